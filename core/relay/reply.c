/* SPDX-License-Identifier: Apache-2.0 */
/* From servers to clients. Happy path: what a session's socket holds is read into the shared vector, behind what other
 * sockets of this loop turn have left there; when the vector is full, and at the end of the turn, each listener's
 * socket sends its replies in one call, from the address that the client wrote to.
 * Fails: not from the session's server -> dropped and counted (it came between bind and connect)
 *        an ICMP error                 -> counted; reading has cleared it, so the session hears on
 *        the kernel takes no more      -> dropped and counted */
#include "base/endpoint.h"
#include "relay/private.h"

#include <errno.h>
#include <string.h>

#define BUDGET BATCH_SLOTS   /* datagrams of one session, before the others have their turn */
#define ANSWERED_STEP_MS 50u /* so that workers do not fight for a cache line */

/* Health compares it with interval x fall, which may be well below a second. */
static void server_answered(struct relay *relay, const struct path *path)
{
    _Atomic uint64_t *answered_ms = &relay->segment->servers[path->row->server % SEGMENT_SERVERS].answered_ms;

    if (relay->now_ms - atomic_load_explicit(answered_ms, memory_order_relaxed) >= ANSWERED_STEP_MS)
        atomic_store_explicit(answered_ms, relay->now_ms, memory_order_relaxed);
}

static void tell(struct path *path, const uint8_t *data, uint32_t size)
{
    const struct flow flow = {path->listener, &path->row->client, NULL};
    struct ike_datagram datagram;

    if (!path->service->config->ike)
        return;
    ike_read(&datagram, data, size, path->service->config->port);
    trace_datagram(&flow, path, &datagram, true);
}

/* RFC 7296 section 2.1 and design: SK, SKF and ESP come only for an IKE_SA whose SPIr the client knew. */
static void look_for_proof(struct path *path, const uint8_t *data, uint32_t size)
{
    struct ike_datagram datagram;

    if (!path->service->config->ike || row_proven(path->row) || path->leaving)
        return;
    ike_read(&datagram, data, size, path->service->config->port);
    if (ike_is_proof(&datagram))
        path_prove(path);
}

static void reply_queue(struct relay *relay, struct path *path, uint32_t slot)
{
    struct listener *listener = path->listener;

    if (listener->reply_first == RELAY_NO_SLOT) {
        listener->reply_first = (uint8_t)slot;
        listener->next_waiting = relay->waiting;
        relay->waiting = listener;
    } else {
        relay->reply_next[listener->reply_last] = (uint8_t)slot;
    }
    listener->reply_last = (uint8_t)slot;
    relay->reply_next[slot] = RELAY_NO_SLOT;
}

static void reply_take(struct path *path, uint32_t slot)
{
    struct relay *relay = path->lane->relay;
    struct session_row *row = path->row;
    struct msghdr *header = &relay->replies.headers[slot].msg_hdr;
    uint32_t size = batch_size(&relay->replies, slot);
    struct hp_endpoint from;
    struct record_ref ref;

    relay->reply_path[slot] = NULL;
    if (!endpoint_from_sockaddr(&from, header->msg_name, header->msg_namelen) ||
        !endpoint_equal(&from, &path->server)) {
        flow_lost(&(struct flow){path->listener, &row->client, NULL}, LOSS_dropped_stranger);
        return;
    }
    if (relay->tracing)
        tell(path, batch_data(&relay->replies, slot), size);
    look_for_proof(path, batch_data(&relay->replies, slot), size);
    source_answered(path, batch_data(&relay->replies, slot), size);
    if (path_watched(path, &ref))
        path_refresh(path, &ref);
    atomic_store_explicit(&row->server_ms, relay->now_ms, memory_order_relaxed);
    row_add(&row->bytes_to_client, size);
    relay->reply_path[slot] = path;
    /* The slot's name is free for where the datagram goes. */
    header->msg_namelen = endpoint_to_sockaddr(&row->client, &relay->replies.names[slot]);
    reply_queue(relay, path, slot);
}

/* mask: of the replies in the listener's chain, by their place in it. */
static void replies_tell_lost(struct relay *relay, struct listener *listener, uint64_t mask)
{
    for (uint8_t slot = listener->reply_first; mask != 0; slot = relay->reply_next[slot], mask >>= 1)
        if ((mask & 1u) != 0)
            trace_loss(&(struct flow){listener, &relay->reply_path[slot]->row->client, NULL},
                       LOSS_dropped_send_to_client);
}

static void replies_send(struct relay *relay, struct listener *listener)
{
    struct hp_endpoint from[BATCH_SLOTS];
    struct run_result result;

    for (uint8_t slot = listener->reply_first; slot != RELAY_NO_SLOT; slot = relay->reply_next[slot]) {
        const struct path *path = relay->reply_path[slot];
        struct run_datagram datagram = {.owner = path,
                                        .data = batch_data(&relay->replies, slot),
                                        .size = batch_size(&relay->replies, slot),
                                        .mark = batch_mark_of(&relay->replies, slot),
                                        .family = (uint8_t)path->row->client.family,
                                        .name = (struct sockaddr *)&relay->replies.names[slot],
                                        .name_size = relay->replies.headers[slot].msg_hdr.msg_namelen};
        if (listener->wildcard) {
            from[slot] = (struct hp_endpoint){.family = path->row->client.family, .scope = path->zone};
            memcpy(from[slot].address, path->row->local, sizeof from[slot].address);
            datagram.from = &from[slot];
        }
        runs_add(&relay->runs, &datagram);
    }
    runs_send(&relay->runs, listener->watched.fd, &result);
    if (relay->tracing)
        replies_tell_lost(relay, listener, result.dropped_mask);
    listener->reply_first = listener->reply_last = RELAY_NO_SLOT;
    relay_count(relay, COUNTER_datagrams_to_clients, result.datagrams);
    relay_count(relay, COUNTER_bytes_to_clients, result.bytes);
    lane_lose(listener->lane, LOSS_dropped_send_to_client, result.dropped);
    relay_count(relay, COUNTER_gso_runs, result.gso_runs);
}

static void reply_observe(struct relay *relay, uint32_t slot)
{
    struct path *path = relay->reply_path[slot];
    struct ike_datagram datagram;

    if (path == NULL || path->watched.fd < 0 || (path->service->observes & HP_OBSERVE_IKE_SERVER) == 0)
        return;
    ike_read(&datagram, batch_data(&relay->replies, slot), batch_size(&relay->replies, slot),
             path->service->config->port);
    if (datagram.kind != IKE_MESSAGE)
        return;
    struct hp_endpoint local = {.family = path->row->client.family, .port = path->listener->address.port};
    memcpy(local.address, path->row->local, sizeof local.address);
    struct decision_request request = {.service = path->service->position,
                                       .client = &path->row->client,
                                       .local = &local,
                                       .datagram = &datagram,
                                       .data = batch_data(&relay->replies, slot),
                                       .size = batch_size(&relay->replies, slot),
                                       .own_server = path->row->server,
                                       .proven = row_proven(path->row),
                                       .now_s = relay_now_s(relay)};
    decider_observe(relay->decider, &request, HP_OBSERVE_IKE_SERVER, path->row->server, ++path->sights);
}

void reply_flush(struct relay *relay)
{
    while (relay->waiting != NULL) {
        struct listener *listener = relay->waiting;
        relay->waiting = listener->next_waiting;
        replies_send(relay, listener);
    }
    for (uint32_t slot = 0; slot < relay->replies.used; slot++)
        reply_observe(relay, slot);
    batch_reset(&relay->replies);
}

void reply_read(struct path *path)
{
    struct relay *relay = path->lane->relay;
    struct batch *batch = &relay->replies;

    for (uint32_t total = 0; total < BUDGET;) {
        if (batch->used == BATCH_SLOTS)
            reply_flush(relay);
        uint32_t first = batch->used;
        int count = batch_receive(batch, path->watched.fd, BATCH_SLOTS);
        if (count == -EAGAIN)
            break;
        if (count < 0) {
            relay_count(relay, COUNTER_icmp_errors, 1);
            total++;
            continue;
        }
        relay_count(relay, COUNTER_datagrams_from_servers, (uint64_t)count);
        server_answered(relay, path);
        for (uint32_t slot = first; slot < batch->used; slot++)
            reply_take(path, slot);
        total += (uint32_t)count;
        if (batch->used < BATCH_SLOTS)
            break;
    }
}
