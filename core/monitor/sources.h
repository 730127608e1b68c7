/* SPDX-License-Identifier: Apache-2.0 */
/* Own addresses towards servers, once a second: how many clients each server sees of each, whether it refuses them, and
 * whether the address is on this machine. Monitor only; part of the recount. No call blocks. */
#ifndef MONITOR_SOURCES_H
#define MONITOR_SOURCES_H

#include "base/endpoint.h"
#include "monitor/context.h"
#include "segment/session.h"

struct sources;

int sources_open(struct sources **out, const struct monitor_context *context, struct error *error);
void sources_close(struct sources *sources); /* NULL is fine */

void sources_begin(struct sources *sources); /* a round */
/* client: a client of the server that this round has not met yet, or a session without a record. */
void sources_count(struct sources *sources, const struct session_row *row, bool client, bool proven);
void sources_count_record(struct sources *sources, uint32_t record, uint64_t value);
void sources_publish(struct sources *sources); /* the round is over; what has changed is said in the log */

/* For people; of the route's choice "our address". */
const char *source_text(const struct segment *segment, uint32_t source, char text[ENDPOINT_TEXT]);

#endif
