/* SPDX-License-Identifier: Apache-2.0 */
/* What any balancer must pay to have its sockets back: so many sockets, each bound to a port and connected to a server,
 * and nothing else. Prints the milliseconds. */
#include "post.h"
#include "roles.h"

#include <arpa/inet.h>
#include <err.h>
#include <stdio.h>
#include <sys/resource.h>

static void open_one(const struct role_options *options, uint32_t i)
{
    uint32_t range = (uint32_t)options->own_ports[1] - options->own_ports[0] + 1;
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(options->from)};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(options->ports[1])};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    own.sin_port = htons((uint16_t)(options->own_ports[0] + i % range));
    server.sin_addr.s_addr = htonl(options->to + i / range % options->servers);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&own, sizeof own) < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) < 0)
        err(1, "socket %u", i);
}

int role_bare(const struct role_options *options)
{
    struct rlimit limit;
    uint64_t start_ns;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        err(1, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    start_ns = clock_ns();
    for (uint32_t i = 0; i < options->clients; i++)
        open_one(options, i);
    printf("%.1f\n", (double)(clock_ns() - start_ns) / 1e6);
    return 0;
}
