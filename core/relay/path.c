/* SPDX-License-Identifier: Apache-2.0 */
/* A session's life: begin, watch, end, and what a new holder makes of its row.
 *
 * Begin: a row and a cell are free, the socket opens, the row is published, the watch is written. Killed before the
 * row is live: nothing was there. Killed before the watch is written: the row says so, and its next datagram is decided
 * anew with the session's own server.
 * Fails: no row, cell or descriptor -> the datagram is refused and counted, nothing is left behind
 *        the cell cannot be bound   -> skipped, counted, the next one
 *        its address is not here    -> another source address; none is left: refused and counted
 *        source: transparent, and the client's address is another session's at that server, or a stranger's here
 *                                   -> the datagram is refused and counted */
#include "base/endpoint.h"
#include "relay/stream.h"
#include "segment/source.h"
#include "segment/tuple.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CELL_TRIES 16u    /* cells that cannot be bound, before the flow is refused */
#define EXPIRES_SOON_S 2u /* of a record: the next look comes in a second */

void path_refused(const struct flow *flow, int status)
{
    switch (status) {
    case -EMFILE:
    case -ENFILE:
    case -ENOMEM:
    case -ENOBUFS:
    case -ENOSPC: /* of epoll */
        flow_lost(flow, LOSS_refused_no_descriptor);
        break;
    case -EADDRINUSE:
        flow_lost(flow, LOSS_refused_no_cell);
        break;
    case -ENXIO:
        flow_lost(flow, LOSS_refused_no_source);
        break;
    case -EEXIST:
        flow_lost(flow, LOSS_refused_shadowed);
        break;
    default: /* no route to the server */
        flow_lost(flow, LOSS_dropped_send_to_server);
        break;
    }
}

/* A free cell of the row's source and a socket on it. -EADDRINUSE: no cell that can be bound. */
static int cell_open(struct lane *lane, const struct hp_endpoint *server, struct session_row *row, int *fd)
{
    for (uint32_t tries = 0; tries < CELL_TRIES; tries++) {
        int status;

        if (!cell_take(lane, server, row->source, &row->source_port))
            return -EADDRINUSE;
        status = upstream_open(fd, lane->relay->segment, row, server);
        if (status == 0)
            return 0;
        if (status != -EADDRINUSE) {
            cell_give_back(lane, server, row->source, row->source_port);
            return status;
        }
        relay_count(lane->relay, COUNTER_cells_unbindable, 1);
        cell_give(lane, server, row->source, row->source_port);
    }
    return -EADDRINUSE;
}

/* From the source that is the client's, or from another where that one has gone. */
static int cell_open_anywhere(const struct flow *flow, const struct decision *decision,
                              const struct session_row *before, const struct hp_endpoint *server,
                              struct session_row *row, int *fd)
{
    struct lane *lane = flow->listener->lane;
    int status = -ENXIO;

    for (uint32_t tries = 0; tries < SEGMENT_SOURCES && status == -ENXIO; tries++) {
        uint32_t source = source_choose(lane->relay, flow, decision, before);

        if (source == SEGMENT_NO_INDEX)
            return -ENXIO;
        row->source = (uint16_t)source;
        status = cell_open(lane, server, row, fd);
        if (status == -ENXIO)
            source_is_absent(lane->relay, source);
    }
    return status;
}

struct path *path_make(struct lane *lane, struct session_row *row, struct listener *listener,
                       const struct hp_endpoint *server)
{
    struct path *path = malloc(sizeof *path);

    if (path == NULL)
        return NULL;
    *path = (struct path){.watched = {.kind = WATCHED_PATH, .fd = -1},
                          .lane = lane,
                          .row = row,
                          .service = listener->service,
                          .listener = listener,
                          .server = *server,
                          .first = RELAY_NO_SLOT,
                          .last = RELAY_NO_SLOT};
    return path;
}

void path_free(struct path *path)
{
    if (path != NULL)
        stream_free(path->stream);
    free(path);
}

void path_enter(struct path *path)
{
    struct lane *lane = path->lane;
    struct flow_key key;
    uint32_t position = (uint32_t)(path->row - lane->rows);

    if (path->stream == NULL && !row_transparent(path->row))
        cell_note_source(lane, path->row);
    path->member = topology_member_anywhere(lane->relay->topology, path->service->topology, path->row->server);
    lane->paths[position] = path;
    lane->index.key_of(lane, position, &key);
    flow_index_add(&lane->index, &key, position);
}

static int path_attach(struct path *path, int fd)
{
    int status;

    path->watched.fd = fd;
    status = relay_watch(path->lane->epoll, &path->watched);
    if (status < 0)
        path->watched.fd = -1;
    else
        keeper_note(path->lane->relay->keeper, path->row, fd);
    return status;
}

void row_source(struct session_row *row, const struct service *service)
{
    if (!service->config->transparent)
        return;
    row->source_port = row->client.port;
    atomic_init(&row->flags, SESSION_TRANSPARENT);
}

/* The row is live first: by it other flows see whose the client's address is at that server. -EEXIST: another one's. */
static int path_begin_as_client(struct path *path, const struct session_row *content)
{
    struct relay *relay = path->lane->relay;
    int fd = -1, status = -EEXIST;

    session_begin(path->row, content, relay->now_ms);
    if (!tuple_claim(relay->segment, path->row, &path->server))
        goto fail_claim;
    status = upstream_open(&fd, relay->segment, path->row, &path->server);
    if (status < 0)
        goto fail_socket;
    status = path_attach(path, fd);
    if (status < 0)
        goto fail_watch;
    path_enter(path);
    return 0;

fail_watch:
    close(fd);
fail_socket:
    tuple_release(relay->segment, path->row, &path->server);
fail_claim:
    session_end(path->row);
    return status;
}

static int path_begin_at(struct path **out, const struct flow *flow, struct session_row *row,
                         const struct decision *decision, const struct session_row *before)
{
    struct lane *lane = flow->listener->lane;
    struct session_row content = {.client = *flow->client,
                                  .service = flow->listener->service->topology->identity,
                                  .server = (uint16_t)decision->server,
                                  .server_port = flow->listener->service->config->server_port,
                                  .local_port = flow->listener->address.port};
    struct hp_endpoint server = upstream_server(lane->relay->segment, &content);
    struct path *path = path_make(lane, row, flow->listener, &server);
    int fd = -1, status;

    if (path == NULL)
        return -ENOMEM;
    memcpy(content.local, flow->local->address, sizeof content.local);
    row_source(&content, flow->listener->service);
    if (row_transparent(&content)) {
        status = path_begin_as_client(path, &content);
        if (status < 0)
            goto fail_cell;
        *out = path;
        return 0;
    }
    status = cell_open_anywhere(flow, decision, before, &server, &content, &fd);
    if (status < 0)
        goto fail_cell;
    status = path_attach(path, fd);
    if (status < 0)
        goto fail_watch;
    session_begin(row, &content, lane->relay->now_ms);
    path_enter(path);
    *out = path;
    return 0;

fail_watch:
    close(fd);
    cell_give(lane, &server, content.source, content.source_port);
fail_cell:
    free(path);
    return status;
}

struct path *path_begin(const struct flow *flow, const struct decision *decision, const struct session_row *before)
{
    struct lane *lane = flow->listener->lane;
    struct relay *relay = lane->relay;
    struct session_row *row = lane_take_row(lane);
    struct path *path = NULL;
    int status;

    if (row == NULL) {
        flow_lost(flow, LOSS_refused_sessions_full);
        return NULL;
    }
    status = path_begin_at(&path, flow, row, decision, before);
    if (status < 0) {
        lane_give_row(lane, row);
        path_refused(flow, status);
        return NULL;
    }
    path_watch_record(path, decision);
    relay_count(relay, before != NULL ? COUNTER_sessions_moved : COUNTER_sessions_begun, 1);
    report_session(relay, before != NULL ? TRACE_SESSION_MOVED : TRACE_SESSION_BEGUN, path,
                   decision_reason_name(decision->reason));
    return path;
}

struct path *path_adopt(struct lane *lane, struct session_row *row, struct listener *listener)
{
    struct hp_endpoint server = upstream_server(lane->relay->segment, row);
    struct path *path = path_make(lane, row, listener, &server);

    if (path == NULL)
        return NULL;
    path->ask_again = true;
    path_enter(path);
    return path;
}

int path_open(struct path *path)
{
    const struct segment *segment = path->lane->relay->segment;
    int fd = lane_take_socket(path->lane, path->row), status = 0;

    if (fd >= 0 && (!upstream_leads_to(fd, &path->server) ||
                    (!path->lane->looked_at && !upstream_comes_from(fd, segment, path->row, &path->server)))) {
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        status = upstream_open(&fd, segment, path->row, &path->server);
    if (status < 0)
        return status;
    status = path_attach(path, fd);
    if (status < 0)
        close(fd);
    return status;
}

static void path_bury(struct path *path)
{
    struct relay *relay = path->lane->relay;

    path->lane->paths[path->row - path->lane->rows] = NULL;
    path->next = relay->buried;
    relay->buried = path;
}

static void path_close(struct path *path)
{
    int fd;

    if (path->stream != NULL)
        stream_close(path->stream);
    relay_unwatch(path->lane->epoll, &path->watched);
    fd = path_forget(path);
    if (fd >= 0)
        close(fd);
}

void path_end(struct path *path, const char *reason)
{
    struct lane *lane = path->lane;
    struct flow_key key;

    backlog_send(path);
    lane->index.key_of(lane, (uint32_t)(path->row - lane->rows), &key);
    if (row_transparent(path->row))
        tuple_release(lane->relay->segment, path->row, &path->server);
    session_end(path->row);
    if (reason != NULL)
        report_session(lane->relay, TRACE_SESSION_ENDED, path, reason);
    flow_index_remove(&lane->index, &key);
    if (path->stream == NULL && !row_transparent(path->row))
        cell_give(lane, &path->server, path->row->source, path->row->source_port);
    path_close(path);
    lane_give_row(lane, path->row);
    if (path->leaving) /* its plugin is not ours to call */
        return;
    struct hp_endpoint local = {.family = path->row->client.family, .port = path->listener->address.port};
    memcpy(local.address, path->row->local, sizeof local.address);
    decider_session_end(lane->relay->decider, path->service->position, &path->row->client, &local, path->row->server);
}

int path_forget(struct path *path)
{
    int fd = path->watched.fd >= 0 ? path->watched.fd : lane_take_socket(path->lane, path->row);

    keeper_note(path->lane->relay->keeper, path->row, -1);
    backlog_forget(path);
    path->watched.fd = -1;
    path_bury(path);
    return fd;
}

void path_watch_record(struct path *path, const struct decision *decision)
{
    struct session_row *row = path->row;
    uint32_t before = atomic_load_explicit(&row->flags, memory_order_relaxed),
             flags = before & (SESSION_PROVEN | SESSION_TRANSPARENT);

    path->stays = false;
    path->table_full = decision->reason == DECISION_TABLE_FULL;
    if (decision->record != SEGMENT_NO_INDEX && !row_transparent(row)) /* put back, or another of its client's names */
        record_source_offer(path->lane->relay->segment, decision->record, decision->watch, row->source);
    if (path->service->decides != 0) {
        if (kept_add(path, decision)) {
            atomic_store_explicit(&row->settings, path->service->settings, memory_order_relaxed);
            return;
        }
        if (decision->record == atomic_load_explicit(&row->record, memory_order_relaxed) &&
            decision->watch == atomic_load_explicit(&row->watch, memory_order_relaxed))
            flags |= before & SESSION_LEARNT;
        else if ((before & SESSION_PROVEN) != 0)
            flags |= SESSION_LEARNT;
    }
    atomic_store_explicit(&row->watch, decision->watch, memory_order_relaxed);
    atomic_store_explicit(&row->record, decision->record, memory_order_relaxed);
    atomic_store_explicit(&row->flags, flags | decision->flags | RELAY_ROW_DECIDED, memory_order_release);
    atomic_store_explicit(&row->settings, path->service->settings, memory_order_release);
}

bool path_finds(const struct path *path, uint32_t record, uint64_t watch, struct record_ref *ref)
{
    ref->index = record;
    if (record == SEGMENT_NO_INDEX)
        return false;
    ref->value = record_value(path->lane->relay->segment, record);
    return RECORD_DECISION(ref->value) == watch;
}

bool path_watched(const struct path *path, struct record_ref *ref)
{
    return path_finds(path, atomic_load_explicit(&path->row->record, memory_order_relaxed),
                      atomic_load_explicit(&path->row->watch, memory_order_relaxed), ref);
}

void path_keep_record(const struct path *path, struct record_ref *ref)
{
    const struct relay *relay = path->lane->relay;

    if (record_expired(relay->segment, ref, relay_now_s(relay) + EXPIRES_SOON_S))
        (void)record_touch(relay->segment, ref, relay_now_s(relay));
}

bool path_has_borne_out(const struct path *path, const struct record_ref *ref)
{
    const struct relay *relay = path->lane->relay;
    struct record_view view;
    uint32_t answered_s;

    if (!record_read(relay->segment, ref->index, &view) ||
        RECORD_DECISION(view.ref.value) != RECORD_DECISION(ref->value))
        return false;
    answered_s = (uint32_t)(atomic_load_explicit(&path->row->server_ms, memory_order_relaxed) / 1000);
    /* signed: another process's clock reading may be a moment ahead of ours */
    return (int32_t)(relay_now_s(relay) - view.created_s) >= (int32_t)RELAY_PROBATION_S &&
           (int32_t)(answered_s - view.created_s) >= 0;
}

void path_prove_record(const struct path *path, struct record_ref *ref)
{
    uint32_t flags = atomic_load_explicit(&path->row->flags, memory_order_relaxed);

    if ((flags & SESSION_PROVEN) != 0 && !RECORD_PROVEN(ref->value) &&
        ((flags & SESSION_LEARNT) == 0 || path_has_borne_out(path, ref)))
        (void)record_prove(path->lane->relay->segment, ref);
}

/* Each is one CAS from the value that was seen; who loses it to another session of the client tries again with the
 * next datagram. */
void path_refresh(struct path *path, struct record_ref *ref)
{
    struct relay *relay = path->lane->relay;
    uint32_t flags = atomic_load_explicit(&path->row->flags, memory_order_relaxed);

    path_prove_record(path, ref);
    if ((flags & SESSION_NEW_FLOWS) == 0 && record_age_s(ref->value, relay_now_s(relay)) != 0)
        (void)record_touch(relay->segment, ref, relay_now_s(relay));
}

void path_prove(struct path *path)
{
    uint32_t flags = atomic_load_explicit(&path->row->flags, memory_order_relaxed);

    atomic_store_explicit(&path->row->flags, flags | SESSION_PROVEN, memory_order_relaxed);
    if ((flags & SESSION_PROVEN) == 0)
        path->esp_spi = 0; /* what was asked about before taught nothing */
    if ((flags & SESSION_PROVEN) == 0 && path->lane->relay->tracing)
        trace_path(path, TRACE_PROVEN, NULL);
}

/* As those by which it was decided. */
static bool has_same_settings(const struct path *path)
{
    uint64_t settings = atomic_load_explicit(&path->row->settings, memory_order_relaxed);

    return settings != 0 && settings == path->service->settings;
}

/* Without a look at its record: that one is in another page of the segment for each session. */
bool path_may_wait(const struct path *path)
{
    const struct session_row *row = path->row;
    uint64_t heard_ms = atomic_load_explicit(&row->client_ms, memory_order_relaxed);

    if (path->leaving) /* it decides nothing any more */
        return true;
    return has_same_settings(path) && atomic_load_explicit(&row->record, memory_order_relaxed) != SEGMENT_NO_INDEX &&
           (atomic_load_explicit(&row->flags, memory_order_relaxed) & SESSION_NEW_FLOWS) == 0 &&
           path->lane->relay->now_ms < heard_ms + RELAY_QUIET_MS;
}

/* The plugin would say again what it has said. */
static bool is_settled(const struct path *path, const struct decision_request *request)
{
    const struct relay *relay = path->lane->relay;
    struct record_ref ref;

    return has_same_settings(path) && path_watched(path, &ref) &&
           !record_expired(relay->segment, &ref, relay_now_s(relay) + EXPIRES_SOON_S) &&
           decider_record_is(relay->decider, request, ref.index);
}

void path_ask_again(struct path *path, const struct decision_request *request)
{
    const struct decision unwatched = {.record = SEGMENT_NO_INDEX};
    struct decision decision;
    struct record_ref ref;

    path->ask_again = false;
    if (is_settled(path, request))
        return;
    decide(path->lane->relay->decider, request, &decision);
    if (decision.server < 0) /* what would be refused is a new flow */
        return;
    if (decision.server != path->row->server) {
        path_watch_record(path, &unwatched);
        path->stays = true;
    } else if (decision.record != SEGMENT_NO_INDEX || !path_watched(path, &ref)) {
        path_watch_record(path, &decision);
    }
}

void path_rekey(struct path *path)
{
    struct relay *relay = path->lane->relay;
    const struct service *service = path->service;
    struct hp_endpoint local = {.family = path->row->client.family, .port = path->listener->address.port};
    const struct decision_request request = {.service = service->position,
                                             .client = &path->row->client,
                                             .local = &local,
                                             .own_server = path->row->server,
                                             .proven = row_proven(path->row),
                                             .now_s = relay_now_s(relay)};
    uint32_t flags = atomic_load_explicit(&path->row->flags, memory_order_relaxed);
    uint8_t key[HP_KEY_MAX];
    struct record_ref ref;

    if (path->stream != NULL) {
        stream_ask_again(path);
        return;
    }
    if (!path->ask_again || path->leaving) /* a datagram was quicker */
        return;
    memcpy(local.address, path->row->local, sizeof local.address);
    if ((flags & RELAY_ROW_DECIDED) == 0 || (!path_watched(path, &ref) && ref.index != SEGMENT_NO_INDEX))
        return; /* its next datagram finds that out */
    if (topology_datagram(relay->topology, service->topology, path->member, false) != TOPOLOGY_PASS)
        return;
    if (decider_explain(relay->decider, service->position, request.client, &local, key) > 0)
        path_ask_again(path, &request);
}
