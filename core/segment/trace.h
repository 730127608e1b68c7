/* SPDX-License-Identifier: Apache-2.0 */
/* Following clients: the monitor writes down whom somebody wants to follow, and for how long; whoever sees something of
 * such a client posts an event; the monitor passes it on (monitor/control/trace.c). While nobody follows anybody, a
 * worker pays one load a wake-up.
 *
 * A watch ends by its time alone, so that a monitor that dies leaves nothing behind, and the next one finds it still
 * there. Events are a ring with a number each, of all processes together, in the order in which they were posted. Who
 * posts takes a number, then fills the slot, and writes the number last: who is killed in between leaves a hole, which
 * a reader passes over after a moment. Who is stopped in between and wakes up a whole ring later may spoil one event;
 * what is read is judged like everything in the segment. */
#ifndef SEGMENT_TRACE_H
#define SEGMENT_TRACE_H

#include "segment/record.h"

enum trace_kind {
    TRACE_SESSION_BEGUN,
    TRACE_SESSION_MOVED,
    TRACE_SESSION_ENDED,
    TRACE_ACCEPTED, /* TCP: by the server */
    TRACE_PROVEN,
    TRACE_LOSS,
    TRACE_IKE_TO_SERVER,
    TRACE_IKE_TO_CLIENT,
    TRACE_ESP_TO_SERVER, /* the first since the client is followed */
    TRACE_ESP_TO_CLIENT,
    TRACE_RECORD_PUT_BACK,
    TRACE_RECORD_EVICTED,
    TRACE_RECORD_EXPIRED,
    TRACE_RECORD_DELETED, /* by the verb drop */
    TRACE_KIND_COUNT
};
const char *trace_kind_name(uint32_t kind); /* for people; "unknown" */

#define TRACE_LEASE_MS 10000u

/* [any] One load. */
static inline bool trace_is_on(const struct segment *segment, uint64_t now_ms)
{
    return atomic_load_explicit(&segment->traces->until_ms, memory_order_relaxed) > now_ms;
}
static inline uint64_t trace_generation(const struct segment *segment)
{
    return atomic_load_explicit(&segment->traces->generation, memory_order_acquire);
}
/* [monitor] The client, whatever its ports, is followed for TRACE_LEASE_MS from now on, or for longer than before.
 * false: so many others are followed that there is no room. */
bool trace_follow(struct segment *segment, const struct hp_endpoint *client, uint64_t now_ms);
void trace_leave(struct segment *segment, const struct hp_endpoint *client); /* [monitor] not any more */
/* [any] Is it followed? */
bool trace_wants(const struct segment *segment, const struct hp_endpoint *client, uint64_t now_ms);
/* [any] Whether its client is followed is the caller's to ask. */
void trace_post(struct segment *segment, const struct trace_event *event);
/* [any] The same of a record that its client has lost, if that client is followed. */
void trace_record(struct segment *segment, enum trace_kind kind, const struct record_view *record, uint64_t now_ms);
void trace_text(struct trace_event *event, const char *text); /* cut to fit */

uint64_t trace_last(const struct segment *segment); /* [any] number of the newest event; 0: none yet */
enum trace_look {
    TRACE_HERE,        /* *event is a copy */
    TRACE_NOT_YET,     /* or never: its writer has not finished */
    TRACE_OVERWRITTEN, /* by a newer one */
};
enum trace_look trace_read(const struct segment *segment, uint64_t sequence, struct trace_event *event); /* [any] */

#endif
