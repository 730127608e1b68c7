/* SPDX-License-Identifier: Apache-2.0 */
/* Private to this folder: what each verb of the control socket answers. */
#ifndef MONITOR_CONTROL_REQUESTS_H
#define MONITOR_CONTROL_REQUESTS_H

#include "monitor/control/connection.h"

/* line: one request, without its newline; not NUL-terminated, from whoever may open the socket. */
void request_answer(struct connection *connection, const char *line, size_t size);

/* The verbs. Each sees that connection_answer, connection_refuse or connection_list is called, now or later. */
void answer_status(struct connection *connection, const json_t *request);
void answer_servers(struct connection *connection, const json_t *request);
void answer_sessions(struct connection *connection, const json_t *request);
void answer_affinity(struct connection *connection, const json_t *request);
void answer_record(struct connection *connection, const json_t *request);
void answer_drop(struct connection *connection, const json_t *request);
void answer_trace(struct connection *connection, const json_t *request);
void answer_reload(struct connection *connection, const json_t *request);

/* The connection closes while its reader may have gone: nobody else follows its client, so it is not followed. */
void trace_end(struct connection *connection);

/* The next piece of a listing, from malloc; NULL: no memory. Sets listing.ended with the last one. */
char *listing_piece(struct connection *connection, size_t *size);

/* A server's state and overall health as the verb servers has them; constant texts. */
void server_condition(const struct control_sources *sources, uint32_t slot, const char **state, const char **health);

/* sources.c: own addresses towards the server, and one note for each that it refuses clients from. */
json_t *sources_array(const struct control_sources *sources, uint32_t slot);
void sources_add_notes(const struct control_sources *sources, uint32_t slot, json_t *notes);

/* The request's "client" as an address. false: not there. wrong: it is there and is none; has been refused. */
enum client_given { CLIENT_ABSENT, CLIENT_GIVEN, CLIENT_WRONG };
enum client_given request_client(struct connection *connection, const json_t *request, struct hp_endpoint *client);

/* By the bits of its identity that mask has; NULL: it is no longer configured. */
const char *service_name(const struct connection *connection, uint64_t identity, uint64_t mask);
/* A name from the segment, which anybody may have spoilt: at most SEGMENT_NAME printable octets. A new reference. */
json_t *json_name(const char name[SEGMENT_NAME]);
json_t *json_server(const struct segment *segment, uint32_t server); /* its name; null: no such slot */
json_t *json_address(const struct hp_endpoint *endpoint);            /* with the port, when it has one */

#endif
