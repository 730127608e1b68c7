/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker tells those who follow a client (segment/trace.h): an event for each begin, move and end of its
 * sessions, for what is refused or dropped of it, for its IKE messages both ways, and for the first ESP of a session.
 * No SPI and no octet of a payload is told, but for the first notify of an IKE_SA_INIT response, which is not
 * encrypted: it says why a server does not go on (COOKIE, INVALID_KE_PAYLOAD, NO_PROPOSAL_CHOSEN). */
#include "relay/private.h"

static void post(const struct lane *lane, const struct hp_endpoint *client, struct trace_event *event)
{
    struct relay *relay = lane->relay;

    if (!trace_wants(relay->segment, client, relay->now_ms))
        return;
    event->at_ms = relay->now_ms;
    event->client = *client;
    event->lane = (uint16_t)lane->number;
    event->worker = atomic_load_explicit(&relay->slot->number, memory_order_relaxed);
    trace_post(relay->segment, event);
}

/* Of a row that is live, or was until now. */
static void event_path(struct trace_event *event, const struct path *path)
{
    const struct session_row *row = path->row;

    event->service = row->service;
    event->server = row->server;
    event->source_port = row->source_port;
    event->bytes_to_server = atomic_load_explicit(&row->bytes_to_server, memory_order_relaxed);
    event->bytes_to_client = atomic_load_explicit(&row->bytes_to_client, memory_order_relaxed);
}

void trace_path(const struct path *path, enum trace_kind kind, const char *reason)
{
    struct trace_event event = {.kind = (uint16_t)kind};

    event_path(&event, path);
    if (reason != NULL)
        trace_text(&event, reason);
    post(path->lane, &path->row->client, &event);
}

void trace_loss(const struct flow *flow, enum lane_loss loss)
{
    struct trace_event event = {.kind = TRACE_LOSS,
                                .service = flow->listener->service->topology->identity,
                                .server = UINT16_MAX,
                                .code = (uint16_t)loss};

    post(flow->listener->lane, flow->client, &event);
}

void trace_datagram(const struct flow *flow, struct path *path, const struct ike_datagram *ike, bool to_client)
{
    uint32_t generation = (uint32_t)trace_generation(flow->listener->lane->relay->segment);
    struct trace_event event = {
        .service = flow->listener->service->topology->identity, .server = UINT16_MAX, .size = ike->size};

    if (path != NULL)
        event_path(&event, path);
    if (ike->kind == IKE_MESSAGE) {
        event.kind = to_client ? TRACE_IKE_TO_CLIENT : TRACE_IKE_TO_SERVER;
        event.exchange = ike->header.exchange;
        event.flags = ike->header.flags;
        event.message_id = ike->header.message_id;
        event.code = ike_notify(ike);
    } else if (ike->kind == IKE_ESP && path != NULL && path->esp_told[to_client] != generation) {
        path->esp_told[to_client] = generation;
        event.kind = to_client ? TRACE_ESP_TO_CLIENT : TRACE_ESP_TO_SERVER;
    } else {
        return;
    }
    post(flow->listener->lane, flow->client, &event);
}
