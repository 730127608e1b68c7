/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/place.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Between homeport's own source ports (10240-29999) and the kernel's (32768 and on). */
#define HIGH_IKE 30500u
#define HIGH_NAT_T 31500u
#define HIGH_TRIES 500u

static struct sockaddr_in loopback(uint32_t net, uint32_t host, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(127u << 24 | net << 16 | host),
    };
}

struct sockaddr_in place_service(uint16_t port)
{
    return loopback(30, 1, port);
}

struct sockaddr_in place_server(uint32_t server, uint16_t port)
{
    return loopback(20, server + 1, port);
}

struct sockaddr_in place_client(uint32_t client, uint16_t port)
{
    return loopback(10, client, port);
}

const char *place_text(const struct sockaddr_in *address, char text[INET_ADDRSTRLEN])
{
    return inet_ntop(AF_INET, &address->sin_addr, text, INET_ADDRSTRLEN);
}

int place_bind(const struct sockaddr_in *address, struct error *error)
{
    char text[INET_ADDRSTRLEN];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_set(error, -errno, "cannot open a socket: %s", strerror(errno));
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0) {
        int status = error_set(error, -errno, "cannot bind %s:%u: %s", place_text(address, text),
                               ntohs(address->sin_port), strerror(errno));
        close(fd);
        return status;
    }
    return fd;
}

static int try_bind(struct sockaddr_in address, struct error *error)
{
    int fd = place_bind(&address, error);

    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

static int try_port(uint16_t port, struct error *error)
{
    int status = try_bind(place_service(port), error);

    for (uint32_t i = 0; i < DEMO_SERVERS && status == 0; i++)
        status = try_bind(place_server(i, port), error);
    for (uint32_t i = 1; i <= DEMO_CLIENTS && status == 0; i++)
        status = try_bind(place_client(i, port), error);
    return status;
}

static bool take_pair(struct place *place, uint16_t ike, uint16_t nat_t, struct error *error)
{
    struct sockaddr_in claim = loopback(30, 2, ike);

    if (try_port(ike, error) < 0 || try_port(nat_t, error) < 0)
        return false;
    place->claim = place_bind(&claim, error);
    if (place->claim < 0)
        return false;
    place->ike = ike;
    place->nat_t = nat_t;
    return true;
}

int place_choose(struct place *place, struct error *error)
{
    *place = (struct place){.claim = -1};
    if (take_pair(place, 500, 4500, &place->error))
        return 0;
    place->high = true;
    for (uint16_t i = 0; i < HIGH_TRIES; i++) {
        if (take_pair(place, (uint16_t)(HIGH_IKE + i), (uint16_t)(HIGH_NAT_T + i), error))
            return 0;
    }
    return error_under(error, "no free pair of ports from %u on", HIGH_IKE);
}

void place_release(struct place *place)
{
    if (place->claim >= 0)
        close(place->claim);
    place->claim = -1;
}
