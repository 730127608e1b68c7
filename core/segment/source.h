/* SPDX-License-Identifier: Apache-2.0 */
/* Sources: own addresses towards the servers, and what each server sees of each of them. Which of them a client comes
 * from is chosen once and stands in its record (record_source) and in its sessions' rows, so that all its ports come
 * from one address, whoever holds its lanes. Source 0 is the route's choice.
 *
 * Clients not yet proven: counted by the monitor, each second, with what has come since: no killed process leaves the
 * number wrong for longer. Refusal: of the last 16 IKE_SA_INITs of clients eight had no answer for two seconds; then no
 * new client goes there for thirty, and it is counted anew. No call waits for anybody. */
#ifndef SEGMENT_SOURCE_H
#define SEGMENT_SOURCE_H

#include "segment/segment.h"

#define SOURCE_ROUTE 0u
#define SOURCE_ANSWER_MS 2000u
#define SOURCE_REFUSAL_MS 30000u
#define SOURCE_LAST 16u      /* IKE_SA_INITs that are looked at */
#define SOURCE_UNANSWERED 8u /* of them: refuses */

/* [any] Position of the address; SOURCE_ROUTE: it is not there. */
uint32_t source_find(const struct segment *segment, const struct hp_endpoint *address);
/* [master] Found again, or made in a free slot, or in one that is not kept (by address) and that nobody used at the
 * last recount. SEGMENT_NO_INDEX: none left. */
uint32_t source_assign(struct segment *segment, const struct hp_endpoint *address, const struct hp_endpoint *kept,
                       size_t count);

static inline struct source_load *source_load(const struct segment *segment, uint32_t server, uint32_t source)
{
    return &segment->loads[(size_t)(server % SEGMENT_SERVERS) * SEGMENT_SOURCES + source % SEGMENT_SOURCES];
}
/* [worker] May a server of the family be reached from it? The route's choice always; an address when it is here. */
bool source_usable(const struct segment *segment, uint32_t source, uint32_t family);
/* [worker, monitor] The address is, or is not, on this machine. true: that is new. */
bool source_set_absent(struct segment *segment, uint32_t source, bool absent);

/* Clients of the server, not yet proven, that come from the source. *seen: for source_count. */
uint32_t source_unproven(const struct segment *segment, uint32_t server, uint32_t source, uint32_t *seen);
/* [worker] One more has come. false: another worker has counted one since; then the choice is to be made again. */
bool source_count(struct segment *segment, uint32_t server, uint32_t source, uint32_t seen);
/* [monitor] A recount: `added` as it was at its begin. */
void source_publish(struct segment *segment, uint32_t server, uint32_t source, uint32_t clients, uint32_t unproven,
                    uint32_t added);

/* [worker] A client's IKE_SA_INIT was answered, or was not for SOURCE_ANSWER_MS. While the server refuses nothing is
 * counted. */
void source_answer(struct segment *segment, uint32_t server, uint32_t source, bool answered, uint64_t now_ms);
/* [any] Milliseconds for which no new client goes there; 0: it takes new ones. unanswered may be NULL. */
uint64_t source_refuses_ms(const struct segment *segment, uint32_t server, uint32_t source, uint32_t *unanswered);

struct record_source { /* as it was seen */
    bool chosen;       /* for this very decision */
    uint32_t source;
    uint16_t word;
};
/* [worker, monitor] watch: RECORD_DECISION. false: the record has been decided anew since, or is gone. */
bool record_source(const struct segment *segment, uint32_t record, uint64_t watch, struct record_source *seen);
/* [worker] One CAS from what was seen; false: another has chosen. */
bool record_source_choose(struct segment *segment, uint32_t record, uint64_t watch, const struct record_source *seen,
                          uint32_t source);
/* [worker] A live session's own: where none was chosen for this decision yet, as for a record that was put back. */
void record_source_offer(struct segment *segment, uint32_t record, uint64_t watch, uint32_t source);

#endif
