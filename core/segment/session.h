/* SPDX-License-Identifier: Apache-2.0 */
/* Session rows in the segment: what must outlive the worker that relays them (I2). One writer per partition, the
 * lane's holder, so no locks. Flow, server and cell never change while a row is live: another server is another row.
 * Begin: fill, then store-release the state. End: state first, then close the socket. */
#ifndef SEGMENT_SESSION_H
#define SEGMENT_SESSION_H

#include "segment/segment.h"

/* [holder] row must be free. Publishes the row with a raised generation; times are now, watch none. */
void session_begin(struct session_row *row, const struct session_row *content, uint64_t now_ms);
void session_end(struct session_row *row); /* [holder] */
static inline bool session_is_live(const struct session_row *row)
{
    return (uint32_t)atomic_load_explicit(&row->state, memory_order_acquire) == SESSION_LIVE;
}
/* [any] A consistent copy; false: not live, or it changed meanwhile. */
bool session_read(const struct session_row *row, struct session_row *copy);
struct session_row *session_partition(const struct segment *segment, uint32_t lane); /* rows_per_lane rows */

#endif
