/* SPDX-License-Identifier: Apache-2.0 */
/* What no datagram does: idle sessions end, records of live sessions do not expire, drops are carried out. */
#include "base/endpoint.h"
#include "relay/stream.h"
#include "segment/tuple.h"

static bool is_idle(const struct path *path, uint64_t now_ms)
{
    const struct config *config = path->lane->relay->config;
    uint64_t limit_ms = path->service->config->idle_ms, last_ms = row_last_ms(path->row);

    if ((path->leaving || !row_proven(path->row)) && config->idle_unproven_ms < limit_ms)
        limit_ms = config->idle_unproven_ms;
    return now_ms > last_ms && now_ms - last_ms >= limit_ms;
}

/* With other listeners the kernel may send a flow to another lane. In a nat session that goes unnoticed until it is
 * idle; of two as one client, the new one's server must not be heard by the old one's socket. What that has heard
 * until now went to the same client. */
static bool has_moved(const struct path *path)
{
    return row_transparent(path->row) && !tuple_holds(path->lane->relay->segment, path->row, &path->server);
}

/* A record does not expire while a session watches it, not even one that only new flows extend: else a client's next
 * flow could be sent elsewhere before this one has put its own server back. */
static void keep_record(const struct path *path)
{
    struct record_ref ref;

    if (!path_watched(path, &ref))
        return;
    path_prove_record(path, &ref);
    path_keep_record(path, &ref);
}

void sweep_lane(struct lane *lane, uint32_t part)
{
    struct relay *relay = lane->relay;
    uint32_t first = (uint32_t)((uint64_t)lane->row_count * part / RELAY_TICKS);
    uint32_t last = (uint32_t)((uint64_t)lane->row_count * (part + 1) / RELAY_TICKS);

    for (uint32_t i = first; i < last; i++) {
        struct path *path = lane->paths[i];
        if (path == NULL || (path->stream != NULL && !stream_sweep(path)))
            continue;
        if (path->stream == NULL && has_moved(path)) {
            path_end(path, "its flow comes by another lane");
        } else if (path->stream == NULL && is_idle(path, relay->now_ms)) {
            path_end(path, "idle");
            relay_count(relay, COUNTER_sessions_ended_idle, 1);
        } else {
            if (!path->table_full)
                path_rekey(path);
            path->ask_again = path->ask_again || path->table_full;
            if (path->leaving)
                continue;
            source_look(path);
            keep_record(path);
            kept_refresh(path);
        }
    }
}

static uint32_t drop_client(struct lane *lane, const struct hp_endpoint *client)
{
    struct relay *relay = lane->relay;
    uint32_t ended = 0;

    for (uint32_t i = 0; i < lane->row_count; i++) {
        struct path *path = lane->paths[i];
        struct record_ref ref;
        if (path == NULL || !endpoint_names(client, &path->row->client))
            continue;
        if (path_watched(path, &ref))
            (void)record_delete(relay->segment, &ref);
        kept_delete(path);
        path_end(path, "drop");
        ended++;
    }
    relay_count(relay, COUNTER_sessions_dropped, ended);
    return ended;
}

void sweep_drops(struct lane *lane)
{
    struct segment *segment = lane->relay->segment;
    _Atomic uint64_t *seen = &segment->lanes[lane->number].drop_seen;
    uint64_t newest = atomic_load_explicit(&segment->header->drop_last, memory_order_acquire);
    uint64_t next = atomic_load_explicit(seen, memory_order_relaxed) + 1;
    struct hp_endpoint client;

    if (next == newest + 1)
        return;
    if (newest - next >= SEGMENT_DROPS) /* the older ones are overwritten */
        next = newest - SEGMENT_DROPS + 1;
    for (; next != newest + 1; next++) {
        if (drop_read(segment, next, &client))
            atomic_fetch_add_explicit(&segment->drops[next % SEGMENT_DROPS].ended, drop_client(lane, &client),
                                      memory_order_relaxed);
    }
    atomic_store_explicit(seen, newest, memory_order_release);
}
