/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of flows, for people. log.sessions: on: a line for each decision of a new flow, each move, each end. Who
 * follows the client is told the same, and what is refused or dropped besides. */
#include "base/endpoint.h"
#include "relay/private.h"
#include "segment/source.h"

#include <inttypes.h>
#include <stdio.h>

void report_session(struct relay *relay, enum trace_kind kind, const struct path *path, const char *reason)
{
    const struct session_row *row = path->row;
    char client[ENDPOINT_TEXT], own[ENDPOINT_TEXT], port[8], to_server[24], to_client[24], server[SEGMENT_NAME];
    const struct hp_endpoint *source = &relay->segment->sources[row->source % SEGMENT_SOURCES].address;

    if (relay->tracing)
        trace_path(path, kind, reason);
    if (!relay->config->log_sessions)
        return;
    snprintf(server, sizeof server, "%.63s", relay->segment->servers[row->server % SEGMENT_SERVERS].name);
    snprintf(port, sizeof port, "%u", row->source_port);
    snprintf(to_server, sizeof to_server, "%" PRIu64,
             atomic_load_explicit(&row->bytes_to_server, memory_order_relaxed));
    snprintf(to_client, sizeof to_client, "%" PRIu64,
             atomic_load_explicit(&row->bytes_to_client, memory_order_relaxed));
    struct log_field fields[] = {{"client", endpoint_format(&row->client, client)},
                                 {"service", path->service != NULL ? path->service->config->name : "?"},
                                 {"server", server},
                                 {"source_port", port},
                                 {"reason", reason},
                                 {"bytes_to_server", to_server},
                                 {"bytes_to_client", to_client},
                                 {NULL, NULL}};
    uint32_t count = kind == TRACE_SESSION_ENDED ? 7 : 5;

    if (row->source != SOURCE_ROUTE)
        fields[count++] = (struct log_field){"source_address", endpoint_format(source, own)};
    log_fields(relay->log, LOG_INFO, trace_kind_name(kind), fields, count);
}

void flow_lost(const struct flow *flow, enum lane_loss loss)
{
    struct lane *lane = flow->listener->lane;

    lane_lose(lane, loss, 1);
    if (lane->relay->tracing)
        trace_loss(flow, loss);
}

void flow_refused(const struct flow *flow, const struct decision *decision)
{
    struct lane *lane = flow->listener->lane;
    enum lane_loss loss = LOSS_refused_no_server;

    if (decision->reason == DECISION_REFUSED_PLUGIN)
        loss = LOSS_refused_by_plugin;
    else if (decision->reason == DECISION_REFUSED_FULL)
        loss = LOSS_refused_records_full;
    else if (decision->reason == DECISION_REFUSED_SERVICE_LIMIT)
        loss = LOSS_refused_service_limit;
    lane_note_loss(lane, loss, 1);
    if (lane->relay->tracing)
        trace_loss(flow, loss);
}
