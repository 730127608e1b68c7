/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP stream's begin. Happy path: a connection is accepted, decided as a flow without a datagram, its session begins
 * and the server's side connects; its client is not read until that is done (stream.c).
 * Fails: refused by the decision           -> reset, counted by whom refuses
 *        no row, memory or port            -> reset, counted
 *        no descriptor for the connection  -> one is kept in reserve: accepted by it and reset, counted; without even
 *                                             that the listener rests, and what waits in it waits
 *        no descriptor for the server      -> reset, counted
 *        the server refuses, is not reached, or does not accept within STREAM_CONNECT_MS
 *                                          -> the pool's other servers that may take a new client, one after the other
 *                                             from its place in the list on, each once; the record stays. None is left:
 *                                             reset, counted as refused_no_server
 *        a client comes from the address and port of a stream that we still have -> that one ends: its client has
 *                                             forgotten it */
#include "base/endpoint.h"
#include "relay/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define RESERVE 320 /* descriptors: a pair a lane, and some */
#define ACCEPTS 64u /* of one listener, before the others have their turn */

/* Descriptors that are no file's: nothing to open where nothing may be opened. */
int stream_spare(const struct relay *relay)
{
    return fcntl(uv_backend_fd(relay->loop), F_DUPFD_CLOEXEC, 0);
}

/* A lane that is given, and one that is taken, need some more: a worker whose clients have taken all would lose every
 * stream in a reload. The kernel gives the lowest number that is free. */
int stream_limit(void)
{
    long limit = sysconf(_SC_OPEN_MAX);

    if (limit <= 0 || limit > INT_MAX)
        limit = INT_MAX;
    return (int)(limit - (limit / 8 < RESERVE ? limit / 8 : RESERVE));
}

/* Where the fault is with us, no other server helps. */
static bool is_ours(int status)
{
    return status == -EMFILE || status == -ENFILE || status == -ENOMEM || status == -ENOBUFS || status == -ENOSPC ||
           status == -EEXIST;
}

static int own_bind(int fd, const struct hp_endpoint *own, bool transparent)
{
    int on = 1, status;

    /* The kernel gives the port when it knows the other end: one serves once per server. */
    if (!transparent) {
        if (endpoint_is_any(own))
            return 0;
        (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        return upstream_bind(fd, own, false);
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    status = upstream_bind(fd, own, true);
    return status == -EADDRINUSE ? -EADDRNOTAVAIL : status; /* its client's port is a listener's of this machine */
}

/* -EEXIST: as its client it is connected to that server already. */
static int connect_status(int status, const struct session_row *row, const struct hp_endpoint *from)
{
    if (row_transparent(row))
        return status == -EADDRNOTAVAIL ? -EEXIST : status;
    return upstream_connect_status(status, from);
}

/* Fills the row's source_port. */
static int upstream_connect(int *out, const struct segment *segment, const struct hp_endpoint *server,
                            struct session_row *row)
{
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(server, &name);
    struct hp_endpoint from = upstream_own(segment, row, server), own = {0};
    int fd = socket(name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, status = 0;
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (server->family == 6)
        upstream_prefer_lasting(fd);
    status = own_bind(fd, &from, row_transparent(row));
    if (status == 0 && connect(fd, (const struct sockaddr *)&name, size) < 0 && errno != EINPROGRESS)
        status = -errno;
    size = sizeof name;
    if (status == 0 && (getsockname(fd, (struct sockaddr *)&name, &size) < 0 ||
                        !endpoint_from_sockaddr(&own, (const struct sockaddr *)&name, size)))
        status = -ENOTCONN;
    if (status < 0) {
        close(fd);
        return connect_status(status, row, &from);
    }
    row->source_port = own.port;
    *out = fd;
    return 0;
}

static void begun(const struct stream_start *start, struct path *path)
{
    struct relay *relay = path->lane->relay;

    path->stream->first = start->first;
    path->stream->tried = start->tried;
    path_watch_record(path, &start->decision);
    relay_count(relay, start->moved ? COUNTER_sessions_moved : COUNTER_sessions_begun, 1);
    report_session(relay, start->moved ? TRACE_SESSION_MOVED : TRACE_SESSION_BEGUN, path,
                   decision_reason_name(start->decision.reason));
}

/* From the client's source, or from another where that one has gone. */
static int connect_anywhere(const struct stream_start *start, const struct hp_endpoint *server, struct session_row *row,
                            int *fd)
{
    struct relay *relay = start->flow.listener->lane->relay;
    int status = -ENXIO;

    for (uint32_t tries = 0; tries < SEGMENT_SOURCES && status == -ENXIO; tries++) {
        uint32_t source = source_choose(relay, &start->flow, &start->decision, NULL);

        if (source == SEGMENT_NO_INDEX)
            return -ENXIO;
        row->source = (uint16_t)source;
        status = upstream_connect(fd, relay->segment, server, row);
        if (status == -ENXIO)
            source_is_absent(relay, source);
    }
    return status;
}

/* The row is the caller's again where it fails; so is the connection. */
static int begin_in(const struct stream_start *start, struct session_row *row)
{
    struct listener *listener = start->flow.listener;
    struct lane *lane = listener->lane;
    struct session_row content = {.client = *start->flow.client,
                                  .service = listener->service->topology->identity,
                                  .server = (uint16_t)start->decision.server,
                                  .server_port = listener->service->config->server_port};
    struct hp_endpoint server = upstream_server(lane->relay->segment, &content);
    struct stream *stream = NULL;
    struct path *path = NULL;
    int fd = -1, status;

    row_source(&content, listener->service);
    status = row_transparent(&content) ? upstream_connect(&fd, lane->relay->segment, &server, &content)
                                       : connect_anywhere(start, &server, &content, &fd);
    if (status < 0)
        return status;
    path = path_make(lane, row, listener, &server);
    stream = stream_make(start->client, fd);
    status = -ENOMEM;
    if (path == NULL || stream == NULL)
        goto fail;
    stream->path = path;
    path->stream = stream;
    stream->connect_ms = lane->relay->now_ms;
    status = stream_watch(stream);
    if (status < 0)
        goto fail;
    memcpy(content.local, start->flow.local->address, sizeof content.local);
    session_begin(row, &content, lane->relay->now_ms);
    path_enter(path);
    begun(start, path);
    return 0;

fail:
    if (stream != NULL) {
        relay_unwatch(lane->epoll, &stream->client.watched);
        relay_unwatch(lane->epoll, &stream->server.watched);
        stream->client.watched.fd = stream->server.watched.fd = -1;
    }
    if (path != NULL)
        path->stream = NULL;
    path_free(path);
    stream_free(stream);
    close(fd);
    return status;
}

static int begin_at(const struct stream_start *start)
{
    struct lane *lane = start->flow.listener->lane;
    struct session_row *row = lane_take_row(lane);
    int status;

    if (row == NULL)
        return -ENOMEM;
    status = begin_in(start, row);
    if (status < 0)
        lane_give_row(lane, row);
    return status;
}

bool stream_next_server(struct stream_start *start)
{
    const struct topology_service *service = start->flow.listener->service->topology;
    struct topology *topology = start->flow.listener->lane->relay->topology;
    uint32_t position = 0;

    while (position < service->member_count && service->members[position].slot != start->first)
        position++;
    if (position == service->member_count) /* a server of another pool */
        position = 0;
    while (start->tried < service->member_count) {
        const struct member *member = &service->members[(position + ++start->tried) % service->member_count];

        if (member->slot == start->first || !topology_takes_new(topology, service, member))
            continue;
        start->decision = (struct decision){
            .server = (int32_t)member->slot, .reason = DECISION_NO_RECORD, .record = SEGMENT_NO_INDEX};
        topology_count_client(topology, service, member->slot);
        return true;
    }
    return false;
}

void stream_begin(struct stream_start *start)
{
    int status;

    do
        status = begin_at(start);
    while (status < 0 && !is_ours(status) && stream_next_server(start));
    if (status == 0)
        return;
    if (is_ours(status) || status == -ENXIO)
        path_refused(&start->flow, status);
    else
        flow_lost(&start->flow, status == -EADDRNOTAVAIL ? LOSS_refused_no_cell : LOSS_refused_no_server);
    close(start->client);
}

static struct path *former_of(const struct flow *flow)
{
    const struct lane *lane = flow->listener->lane;
    struct flow_key key = {.service = flow->listener->service->topology->identity, .client = *flow->client};
    uint32_t row;

    memcpy(key.local, flow->local->address, sizeof key.local);
    row = flow_index_find(&lane->index, &key);
    return row == FLOW_NONE ? NULL : lane->paths[row];
}

static void stream_new(struct stream_start *start)
{
    struct lane *lane = start->flow.listener->lane;
    struct relay *relay = lane->relay;
    const struct decision_request request = {.service = start->flow.listener->service->position,
                                             .client = start->flow.client,
                                             .local = start->flow.local,
                                             .own_server = -1,
                                             .now_s = relay_now_s(relay)};
    struct path *former = former_of(&start->flow);

    if (former != NULL)
        path_end(former, "its client has begun anew");
    if (lane_is_full(lane)) { /* before a record is made for nothing */
        flow_lost(&start->flow, LOSS_refused_sessions_full);
        close(start->client);
        return;
    }
    decide(relay->decider, &request, &start->decision);
    if (start->decision.server < 0) {
        flow_refused(&start->flow, &start->decision);
        close(start->client);
        return;
    }
    start->first = (uint32_t)start->decision.server;
    stream_begin(start);
}

static void connection_take(struct listener *listener, int fd, const struct hp_endpoint *client)
{
    struct hp_endpoint local = listener->address;
    struct sockaddr_storage name;
    socklen_t size = sizeof name;

    if (listener->wildcard && (getsockname(fd, (struct sockaddr *)&name, &size) < 0 ||
                               !endpoint_from_sockaddr(&local, (const struct sockaddr *)&name, size))) {
        close(fd);
        return;
    }
    stream_new(&(struct stream_start){.flow = {listener, client, &local}, .client = fd});
}

/* accept(2) passes on what has become of a connection; anything else has taken none from the queue. */
static bool is_the_connections(int status)
{
    static const int errors[] = {ECONNABORTED, EPROTO,       ENETDOWN,   ENOPROTOOPT, EHOSTDOWN,
                                 ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, ETIMEDOUT};

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (status == -errors[i])
            return true;
    return false;
}

static int accept_one(const struct listener *listener, struct hp_endpoint *client)
{
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    int fd = accept4(listener->watched.fd, (struct sockaddr *)&name, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (endpoint_from_sockaddr(client, (const struct sockaddr *)&name, size))
        return fd;
    close(fd);
    return -ECONNABORTED;
}

/* Its client is told at once, and does not wait in the queue for better times. false: not even that can be done. */
static bool refuse_one(struct relay *relay, struct listener *listener)
{
    struct hp_endpoint client;
    int fd;

    if (relay->spare < 0)
        return false;
    close(relay->spare);
    fd = accept_one(listener, &client);
    if (fd >= 0) {
        flow_lost(&(struct flow){listener, &client, NULL}, LOSS_refused_no_descriptor);
        close(fd);
    }
    relay->spare = stream_spare(relay);
    return fd >= 0;
}

bool stream_accept(struct listener *listener)
{
    struct relay *relay = listener->lane->relay;
    struct hp_endpoint client;

    for (uint32_t i = 0; i < ACCEPTS; i++) {
        int fd = accept_one(listener, &client);

        if (fd >= relay->stream_limit) {
            close(fd);
            flow_lost(&(struct flow){listener, &client, NULL}, LOSS_refused_no_descriptor);
        } else if (fd >= 0)
            connection_take(listener, fd, &client);
        else if (fd == -EAGAIN)
            return false;
        else if (!is_the_connections(fd) && !refuse_one(relay, listener)) {
            relay_unwatch(listener->lane->epoll, &listener->watched);
            return false;
        }
    }
    return true;
}

void stream_accept_again(struct lane *lane)
{
    if (lane->relay->spare < 0)
        lane->relay->spare = stream_spare(lane->relay);
    for (struct listener *listener = lane->listeners; listener != NULL; listener = listener->next)
        if (listener->watched.kind == WATCHED_ACCEPTOR && !listener->watched.on)
            (void)relay_watch(lane->epoll, &listener->watched);
}
