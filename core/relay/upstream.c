/* SPDX-License-Identifier: Apache-2.0 */
/* A session's socket: bound to its cell's port, or to its client's address and port (`source: transparent`), connected
 * to its server.
 *
 * The same port serves once per server and own address: SO_REUSEADDR, and the kernel tells connected sockets apart by
 * both ends. The own address is that of the session's source, or the route's choice, made by connect. IP_FREEBIND is of
 * no use here: connect finds no route from an address that is not on this machine.
 * Between bind and connect the port hears anybody: reply.c looks at each datagram's source. A client's address hears
 * but the server's answers: what clients send is for addresses of ours. */
#include "base/endpoint.h"
#include "relay/private.h"
#include "segment/source.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#ifndef IPV6_PREFER_SRC_PUBLIC /* of linux/in6.h, which does not go with netinet/in.h everywhere */
#define IPV6_PREFER_SRC_PUBLIC 2
#endif

#define UPSTREAM_BUFFER (1 << 20) /* a download is one session's: the default loses bursts beyond 208 KiB */

struct hp_endpoint upstream_server(const struct segment *segment, const struct session_row *row)
{
    struct hp_endpoint server = segment->servers[row->server % SEGMENT_SERVERS].address;

    server.port = row->server_port;
    return server;
}

void upstream_prefer_lasting(int fd)
{
    int lasting = IPV6_PREFER_SRC_PUBLIC; /* a temporary address (RFC 8981) would change under a tunnel */

    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, &lasting, sizeof lasting);
}

static int options_set(int fd, uint32_t family)
{
    int on = 1, discover = IP_PMTUDISC_DONT, discover6 = IPV6_PMTUDISC_DONT, buffer = UPSTREAM_BUFFER;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 || batch_ask_marks(fd, family) < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer); /* as far as rmem_max lets us */
    if (family == 4) {
        (void)setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover);
        return 0;
    }
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &discover6, sizeof discover6);
    upstream_prefer_lasting(fd);
    return setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0 ? -errno : 0;
}

struct hp_endpoint upstream_own(const struct segment *segment, const struct session_row *row,
                                const struct hp_endpoint *server)
{
    struct hp_endpoint own = {.family = server->family};

    if (row_transparent(row))
        return row->client;
    if (row->source != SOURCE_ROUTE)
        own = segment->sources[row->source % SEGMENT_SOURCES].address;
    own.port = row->source_port;
    return own;
}

static int transparent_set(int fd, uint32_t family)
{
    int level = family == 4 ? IPPROTO_IP : IPPROTO_IPV6, option = family == 4 ? IP_TRANSPARENT : IPV6_TRANSPARENT,
        on = 1;

    return setsockopt(fd, level, option, &on, sizeof on) < 0 ? -errno : 0;
}

int upstream_bind(int fd, const struct hp_endpoint *own, bool transparent)
{
    struct sockaddr_storage address;
    socklen_t size = endpoint_to_sockaddr(own, &address);
    int status = transparent ? transparent_set(fd, own->family) : 0;

    if (status < 0)
        return status;
    if (bind(fd, (const struct sockaddr *)&address, size) == 0)
        return 0;
    return errno == EADDRNOTAVAIL && !transparent ? -ENXIO : -errno;
}

int upstream_connect_status(int status, const struct hp_endpoint *own)
{
    if ((status != -EINVAL && status != -ENETUNREACH) || endpoint_is_any(own))
        return status;
    return endpoint_look_for(own) == 0 ? -ENXIO : status;
}

static int upstream_prepare(int fd, const struct segment *segment, const struct session_row *row,
                            const struct hp_endpoint *server)
{
    struct hp_endpoint own = upstream_own(segment, row, server);
    bool transparent = row_transparent(row);
    struct sockaddr_storage address;
    socklen_t size = endpoint_to_sockaddr(server, &address);
    int status = own.family == server->family ? options_set(fd, server->family) : -EAFNOSUPPORT;

    if (status == 0)
        status = upstream_bind(fd, &own, transparent);
    if (status < 0)
        return status;
    if (connect(fd, (const struct sockaddr *)&address, size) == 0)
        return 0;
    status = errno == EADDRINUSE ? -EADDRNOTAVAIL : -errno;
    return transparent ? status : upstream_connect_status(status, &own);
}

int upstream_open(int *out, const struct segment *segment, const struct session_row *row,
                  const struct hp_endpoint *server)
{
    int fd = socket(server->family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int status;

    if (fd < 0)
        return -errno;
    status = upstream_prepare(fd, segment, row, server);
    if (status < 0) {
        close(fd);
        return status;
    }
    *out = fd;
    return 0;
}

typedef int name_of(int fd, struct sockaddr *address, socklen_t *size);

static bool name_read(int fd, name_of *of, struct hp_endpoint *name)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;

    return of(fd, (struct sockaddr *)&address, &size) == 0 &&
           endpoint_from_sockaddr(name, (const struct sockaddr *)&address, size);
}

bool upstream_leads_to(int fd, const struct hp_endpoint *server)
{
    struct hp_endpoint peer;

    return name_read(fd, getpeername, &peer) && endpoint_equal(&peer, server);
}

bool upstream_comes_from(int fd, const struct segment *segment, const struct session_row *row,
                         const struct hp_endpoint *server)
{
    const struct hp_endpoint own = upstream_own(segment, row, server);
    struct hp_endpoint name;

    return name_read(fd, getsockname, &name) && name.port == own.port &&
           (endpoint_is_any(&own) || endpoint_same_address(&name, &own));
}
