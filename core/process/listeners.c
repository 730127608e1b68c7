/* SPDX-License-Identifier: Apache-2.0 */
/* The listening sockets: one a listener and lane, opened in the order of the lanes, because a socket's place in its
 * SO_REUSEPORT group is its lane. The master keeps them all, so the group never changes when a worker dies. */
#include "process/master.h"

#include "base/endpoint.h"
#include "relay/relay.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Others' sockets of the same user would join our SO_REUSEPORT group, or we theirs, and take each other's datagrams:
 * whoever binds without that option is told that somebody is there. Other errors are those of the real socket.
 * Connections of our last life, which still close, are nobody who listens. */
static int check_free(const struct hp_endpoint *address, bool tcp, struct error *error)
{
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(address, &name);
    int fd = socket(name.ss_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0), on = 1;
    bool taken = false;
    char text[ENDPOINT_TEXT];

    if (fd >= 0 && tcp)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd >= 0 && address->family == 6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on); /* as ours: IPv4 may be another's */
    if (fd >= 0 && setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on) == 0)
        taken = bind(fd, (const struct sockaddr *)&name, size) < 0 && errno == EADDRINUSE;
    if (fd >= 0)
        close(fd);
    if (!taken)
        return 0;
    error_set(error, -EADDRINUSE, "%s is in use", endpoint_format(address, text));
    return error_next(
        error,
        "see who has it: ss -l%cnp 'sport = :%u' (on the host, if this is a container); or change `listen` "
        "of this service",
        tcp ? 't' : 'u', address->port);
}

/* The generation before listens on this port: its own sockets would say no. */
static bool is_ours(const struct generation *generation, const struct hp_endpoint *address, uint32_t protocol)
{
    for (uint32_t i = 0; generation != NULL && i < generation->listener_count; i++)
        if (generation->listeners[i].protocol == protocol && generation->listeners[i].address.port == address->port &&
            generation->listeners[i].address.family == address->family)
            return true;
    return false;
}

struct listener *listener_find(const struct generation *generation, const struct listener *like)
{
    for (uint32_t i = 0; generation != NULL && i < generation->listener_count; i++) {
        struct listener *listener = &generation->listeners[i];

        if (listener->protocol == like->protocol && endpoint_equal(&listener->address, &like->address))
            return listener;
    }
    return NULL;
}

static int open_lane(struct listener *listener, uint32_t lane, const struct listener *before, bool deaf, bool shares,
                     struct error *error)
{
    int status = 0;

    if (before == NULL || before->sockets[lane] < 0) /* below 0: nobody of the last master's has it any more */
        return listener_socket(&listener->sockets[lane], &listener->address, listener->protocol, deaf, shares, error);
    listener->sockets[lane] = fcntl(before->sockets[lane], F_DUPFD_CLOEXEC, 0);
    if (listener->sockets[lane] < 0)
        status = -errno;
    else if (shares)
        status = listener_share(listener->sockets[lane]);
    return status < 0 ? error_set(error, status, "cannot keep a listening socket: %s", strerror(-status)) : 0;
}

static int open_listener(struct listener *listener, const struct generation *before, uint32_t lanes, bool transparent,
                         struct error *error)
{
    bool shares = transparent && endpoint_is_any(&listener->address);
    const struct listener *kept = listener_find(before, listener);
    bool deaf = !is_ours(before, &listener->address,
                         listener->protocol); /* else a wildcard of ours may serve what it would drop */

    listener->sockets = malloc(lanes * sizeof *listener->sockets);
    if (listener->sockets == NULL)
        return error_set(error, -ENOMEM, "no memory for listening sockets");
    for (uint32_t i = 0; i < lanes; i++)
        listener->sockets[i] = -1;
    for (uint32_t i = 0; i < lanes; i++) {
        int status = open_lane(listener, i, kept, deaf, shares, error);
        if (status < 0)
            return status;
    }
    for (uint32_t i = 0; i < lanes && deaf; i++)
        listener_hear(listener->sockets[i]);
    return 0;
}

int listeners_open(struct generation *generation, const struct generation *before, uint32_t lanes, struct error *error)
{
    const struct plan *plan = generation->plan;

    for (uint32_t i = 0; i < plan->listener_count; i++) /* before the first of ours is there */
        if (!is_ours(before, &plan->listeners[i].address, plan->listeners[i].protocol) &&
            check_free(&plan->listeners[i].address, plan->listeners[i].protocol == IPPROTO_TCP, error) < 0)
            return error_under(error, "service %s", plan->listeners[i].service);
    for (uint32_t i = 0; i < plan->listener_count; i++) {
        struct listener *listener = &generation->listeners[i];
        int status;

        listener->address = plan->listeners[i].address;
        listener->protocol = plan->listeners[i].protocol;
        generation->listener_count = i + 1;
        status = open_listener(listener, before, lanes, plan->transparent, error);
        if (status < 0)
            return error_under(error, "service %s", plan->listeners[i].service);
    }
    return 0;
}

void listeners_retire(const struct generation *generation, const struct generation *after, uint32_t lanes)
{
    for (uint32_t i = 0; i < generation->listener_count; i++) {
        const struct listener *listener = &generation->listeners[i];

        for (uint32_t lane = 0; lane < lanes; lane++)
            if ((listener->protocol == IPPROTO_TCP || !endpoint_is_any(&listener->address)) &&
                listener_find(after, listener) == NULL)
                listener_retire(listener->sockets[lane], &listener->address);
    }
}

void listeners_close(struct generation *generation, uint32_t lanes)
{
    for (uint32_t i = 0; i < generation->listener_count; i++) {
        struct listener *listener = &generation->listeners[i];

        for (uint32_t lane = 0; listener->sockets != NULL && lane < lanes; lane++)
            if (listener->sockets[lane] >= 0)
                close(listener->sockets[lane]);
        free(listener->sockets);
        listener->sockets = NULL;
    }
    generation->listener_count = 0;
}

/* A worker gets its lanes' sockets; the monitor all of them, to keep for the next master. */
int listeners_send(const struct generation *generation, struct child *child, uint32_t lanes, struct error *error)
{
    bool all = child->role == PROCESS_MONITOR;
    uint32_t first = all ? 0 : child->number, step = all ? 1 : generation->plan->workers;
    struct channel_series series;
    int status;

    series_begin(&series, child->channel, MESSAGE_LISTENERS);
    for (uint32_t i = 0; i < generation->listener_count; i++)
        for (uint32_t lane = first; lane < lanes; lane += step)
            series_add(&series, i, lane, generation->listeners[i].sockets[lane]);
    status = series_end(&series);
    if (status == 0 || status == -EPIPE || status == -ECONNRESET)
        return 0;
    return error_set(error, status, "cannot pass listening sockets on: %s", strerror(-status));
}
