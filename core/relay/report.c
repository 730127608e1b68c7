/* SPDX-License-Identifier: Apache-2.0 */
/* log.sessions: on: a line for each decision of a new flow, each move, each end. */
#include "base/endpoint.h"
#include "relay/private.h"
#include "segment/source.h"

#include <inttypes.h>
#include <stdio.h>

void report_session(struct relay *relay, const char *message, const struct path *path, const char *reason, bool bytes)
{
    const struct session_row *row = path->row;
    char client[ENDPOINT_TEXT], own[ENDPOINT_TEXT], port[8], to_server[24], to_client[24], server[SEGMENT_NAME];
    const struct hp_endpoint *source = &relay->segment->sources[row->source % SEGMENT_SOURCES].address;

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
    uint32_t count = bytes ? 7 : 5;

    if (row->source != SOURCE_ROUTE)
        fields[count++] = (struct log_field){"source_address", endpoint_format(source, own)};
    log_fields(relay->log, LOG_INFO, message, fields, count);
}
