/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP stream's life. Happy path: the server's side is connected; what one side sends is read and leaves on the other
 * at once; a side that has ended is passed on as a half-close, the second by closing both; then the session ends.
 * Fails: a side takes no more            -> what was read is kept, and the other side is not read until it has gone out
 *        a side was reset, or broke      -> what it had sent before is passed on, then the other side is reset
 *        the server does not accept      -> the next one (stream_accept.c)
 *        no octet either way for `idle`, or none at all since the begin for STREAM_SILENT x idle_unproven -> both sides
 *                                           are reset
 *        its server is disabled          -> both sides are reset, within a second
 *        its server is down              -> it runs on
 *        its record has gone, or names another server -> it stays; the claim takes its own server again, if it may
 *                                           serve, so that its client's next flow comes here as well
 *        this process dies               -> its sockets' last close is a reset (SO_LINGER), and no end in peace
 *        no memory for what is unsent    -> both sides are reset: an octet would be lost */
#include "relay/stream.h"
#include "base/endpoint.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUDGET (4 * STREAM_CHUNK) /* octets of one direction, before other streams have their turn */

struct stream *stream_make(int client, int server)
{
    struct stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL)
        return NULL;
    stream->client = (struct stream_side){.watched = {.kind = WATCHED_STREAM, .fd = client}, .stream = stream};
    stream->server = (struct stream_side){.watched = {.kind = WATCHED_STREAM, .fd = server}, .stream = stream};
    return stream;
}

static uint32_t events_of(const struct stream_half *from, const struct stream_half *to)
{
    return (stream_half_state(from) == STREAM_HALF_READS ? (uint32_t)EPOLLIN | (uint32_t)EPOLLRDHUP : 0) |
           (stream_half_state(to) == STREAM_HALF_WRITES ? (uint32_t)EPOLLOUT : 0);
}

/* Without events errors are told all the same. */
static int side_watch(int epoll, struct stream_side *side, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = &side->watched};

    if (side->watched.on ? side->events == events : side->hung_up && events == 0)
        return 0;
    if (epoll_ctl(epoll, side->watched.on ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, side->watched.fd, &event) < 0)
        return -errno;
    side->watched.on = true;
    side->events = events;
    return 0;
}

int stream_watch(struct stream *stream)
{
    int epoll = stream->path->lane->epoll, status;
    bool connecting = stream->connect_ms != 0;

    status = side_watch(epoll, &stream->client, connecting ? 0 : events_of(&stream->to_server, &stream->to_client));
    if (status == 0)
        status = side_watch(epoll, &stream->server,
                            connecting ? (uint32_t)EPOLLOUT : events_of(&stream->to_client, &stream->to_server));
    return status;
}

/* Its last close resets it, unless both directions have ended: then the kernel sends what is left in peace. */
static void side_close(struct stream_side *side, bool clean)
{
    const struct linger in_peace = {.l_onoff = 0};

    if (side->watched.fd < 0)
        return;
    if (clean)
        (void)setsockopt(side->watched.fd, SOL_SOCKET, SO_LINGER, &in_peace, sizeof in_peace);
    close(side->watched.fd);
    side->watched.fd = -1;
}

void stream_close(struct stream *stream)
{
    relay_unwatch(stream->path->lane->epoll, &stream->client.watched);
    relay_unwatch(stream->path->lane->epoll, &stream->server.watched);
    side_close(&stream->client, stream->clean);
    side_close(&stream->server, stream->clean);
}

void stream_free(struct stream *stream)
{
    if (stream == NULL)
        return;
    side_close(&stream->client, false);
    side_close(&stream->server, false);
    stream_half_close(&stream->to_server);
    stream_half_close(&stream->to_client);
    free(stream);
}

static void connect_failed(struct stream *stream)
{
    struct path *path = stream->path;
    const struct hp_endpoint client = path->row->client;
    struct hp_endpoint local = {.family = client.family, .port = path->listener->address.port};
    struct stream_start start = {.flow = {path->listener, &client, &local},
                                 .client = stream->client.watched.fd,
                                 .first = stream->first,
                                 .tried = stream->tried,
                                 .moved = true};
    bool more = stream_next_server(&start);

    memcpy(local.address, path->row->local, sizeof local.address);
    relay_unwatch(path->lane->epoll, &stream->client.watched);
    stream->client.watched.fd = -1;
    path_end(path, more ? NULL : "its server does not accept");
    if (more) {
        stream_begin(&start);
        return;
    }
    flow_lost(&start.flow, LOSS_refused_no_server);
    close(start.client);
}

/* Its client is read from now on. */
static void connect_event(struct stream_side *side, uint32_t events)
{
    struct stream *stream = side->stream;
    int code = 0;
    socklen_t size = sizeof code;

    if (side == &stream->client) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0)
            path_end(stream->path, "reset by its client");
        return;
    }
    if ((events & (EPOLLERR | EPOLLHUP)) != 0 &&
        (getsockopt(side->watched.fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0 || code != 0)) {
        connect_failed(stream);
        return;
    }
    stream->connect_ms = 0;
    if (stream->path->lane->relay->tracing)
        trace_path(stream->path, TRACE_ACCEPTED, NULL);
    if (stream_watch(stream) < 0)
        path_end(stream->path, "no memory");
}

/* Without IKE, a client that speaks again after the server's first answer counts as proven. */
static void client_spoke(struct path *path)
{
    if (atomic_load_explicit(&path->row->server_ms, memory_order_relaxed) != 0)
        path_prove(path);
    atomic_store_explicit(&path->row->client_ms, path->lane->relay->now_ms, memory_order_relaxed);
}

static void note_traffic(struct path *path, bool to_server, uint32_t read, uint32_t written)
{
    struct relay *relay = path->lane->relay;
    struct record_ref ref;

    row_add(to_server ? &path->row->bytes_to_server : &path->row->bytes_to_client, written);
    relay_count(relay, to_server ? COUNTER_bytes_to_servers : COUNTER_bytes_to_clients, written);
    if (read == 0 && written == 0)
        return;
    if (to_server && read > 0)
        client_spoke(path);
    else
        atomic_store_explicit(&path->row->server_ms, relay->now_ms, memory_order_relaxed);
    if (path_watched(path, &ref))
        path_refresh(path, &ref);
}

/* ends: the source has sent its end. false: the stream has ended. */
static bool move(struct stream *stream, bool to_server, bool ends)
{
    struct path *path = stream->path;
    const struct stream_side *from = to_server ? &stream->client : &stream->server;
    const struct stream_side *to = to_server ? &stream->server : &stream->client;
    const struct stream_half *other = to_server ? &stream->to_client : &stream->to_server;
    bool closes = other->shut && !stream->handed_over;
    uint32_t known = (ends ? STREAM_HALF_ENDS : 0) | (closes ? STREAM_HALF_CLOSES : 0), read = 0, written = 0;
    enum stream_half_state state =
        stream_half_move(to_server ? &stream->to_server : &stream->to_client, from->watched.fd, to->watched.fd,
                         path->lane->relay->chunk, BUDGET, known, &read, &written);

    note_traffic(path, to_server, read, written);
    switch (state) {
    case STREAM_HALF_READS:
    case STREAM_HALF_WRITES:
    case STREAM_HALF_SHUT:
        return true;
    case STREAM_HALF_SOURCE_BROKEN:
        path_end(path, to_server ? "reset by its client" : "reset by its server");
        return false;
    case STREAM_HALF_TARGET_BROKEN:
        path_end(path, to_server ? "reset by its server" : "reset by its client");
        return false;
    case STREAM_HALF_NO_MEMORY:
        path_end(path, "no memory");
        return false;
    }
    return false;
}

void stream_event(struct stream_side *side, uint32_t events)
{
    struct stream *stream = side->stream;
    bool client = side == &stream->client, broken = (events & EPOLLERR) != 0;
    bool ends = (events & EPOLLRDHUP) != 0 && !broken; /* else a reset takes with it what waits for more */
    const struct stream_half *from = client ? &stream->to_server : &stream->to_client;
    const struct stream_half *to = client ? &stream->to_client : &stream->to_server;

    if (stream->connect_ms != 0) {
        connect_event(side, events);
        return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && stream_half_state(from) == STREAM_HALF_READS &&
        !move(stream, client, ends))
        return;
    if ((events & EPOLLOUT) != 0 && stream_half_state(to) == STREAM_HALF_WRITES && !move(stream, !client, false))
        return;
    if (broken) {
        path_end(stream->path, client ? "reset by its client" : "reset by its server");
        return;
    }
    if (stream->to_server.shut && stream->to_client.shut) {
        stream->clean = true;
        path_end(stream->path, "closed");
        return;
    }
    if ((events & EPOLLHUP) != 0 && events_of(from, to) == 0) {
        relay_unwatch(stream->path->lane->epoll, &side->watched);
        side->hung_up = true;
    }
    if (stream_watch(stream) < 0)
        path_end(stream->path, "no memory");
}

static bool is_idle(const struct path *path, uint64_t now_ms)
{
    const struct session_row *row = path->row;
    uint64_t limit_ms = path->service->config->idle_ms, last_ms = row_last_ms(row);
    uint64_t silent_ms = STREAM_SILENT * path->lane->relay->config->idle_unproven_ms;

    if (atomic_load_explicit(&row->server_ms, memory_order_relaxed) == 0 &&
        atomic_load_explicit(&row->bytes_to_server, memory_order_relaxed) == 0 && silent_ms < limit_ms)
        limit_ms = silent_ms;
    return now_ms > last_ms && now_ms - last_ms >= limit_ms;
}

static uint32_t queued(const struct stream_side *side)
{
    int octets = 0;

    (void)ioctl(side->watched.fd, SIOCOUTQ, &octets);
    return octets > 0 ? (uint32_t)octets : 0;
}

/* Nothing is read, because a slow reader still takes what the kernel holds for it. */
static bool is_draining(struct stream *stream)
{
    uint32_t before = stream->queued;

    stream->queued = queued(&stream->client) + queued(&stream->server);
    return stream->queued != 0 && stream->queued != before;
}

bool stream_sweep(struct path *path)
{
    struct relay *relay = path->lane->relay;
    struct stream *stream = path->stream;

    if (stream->connect_ms != 0 && relay->now_ms - stream->connect_ms >= STREAM_CONNECT_MS) {
        connect_failed(path->stream);
        return false;
    }
    if (topology_datagram(relay->topology, path->service->topology, path->member, false) != TOPOLOGY_PASS) {
        path_end(path, "its server is disabled");
        return false;
    }
    if (!is_idle(path, relay->now_ms) || is_draining(path->stream))
        return true;
    path_end(path, "idle");
    relay_count(relay, COUNTER_sessions_ended_idle, 1);
    return false;
}

/* While its own port is down, the claim would give its client's record to another server, though the client's other
 * ports may be well served there. */
void stream_ask_again(struct path *path)
{
    struct relay *relay = path->lane->relay;
    struct hp_endpoint local = {.family = path->row->client.family, .port = path->listener->address.port};
    const struct decision_request request = {.service = path->service->position,
                                             .client = &path->row->client,
                                             .local = &local,
                                             .own_server = path->row->server,
                                             .proven = row_proven(path->row),
                                             .now_s = relay_now_s(relay)};
    struct record_ref ref;
    bool changed = !path_watched(path, &ref) && ref.index != SEGMENT_NO_INDEX;

    if ((!path->ask_again && !changed) || (path->member != NULL && !topology_is_up(relay->topology, path->member)))
        return;
    memcpy(local.address, path->row->local, sizeof local.address);
    path_ask_again(path, &request);
}
