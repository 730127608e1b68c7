/* SPDX-License-Identifier: Apache-2.0 */
/* Session rows. One writer, the lane's holder; a writer that is killed between two stores leaves a free row (its state
 * is stored last at the begin, first at the end).
 *
 * A foreign reader: state (acquire), the row's words (acquire), state again. Equal and live: all words are of one life
 * of the row, because the end of a life is stored before any word of the next (session_begin stores with release), so
 * who has seen a word of the next life sees another state. Times and octets move while the row lives; each of them is
 * whole by itself. */
#include "segment/session.h"
#include "segment/words.h"
#include <string.h>

_Static_assert(offsetof(struct session_row, client) == 8, "everything but the state follows it");

void session_begin(struct session_row *row, const struct session_row *content, uint64_t now_ms)
{
    uint64_t generation = (atomic_load_explicit(&row->state, memory_order_relaxed) >> 32) + 1;
    struct session_row filled;

    memcpy((void *)&filled, (const void *)content, sizeof filled);
    atomic_init(&filled.watch, 0);
    atomic_init(&filled.record, SEGMENT_NO_INDEX);
    atomic_init(&filled.begun_ms, now_ms);
    atomic_init(&filled.client_ms, now_ms);
    atomic_init(&filled.server_ms, 0);
    for (uint32_t i = 0; i < SESSION_KEPT; i++)
        atomic_init(&filled.kept_record[i], SEGMENT_NO_INDEX);
    words_store(&row->client, &filled.client, sizeof *row - offsetof(struct session_row, client));
    atomic_store_explicit(&row->state, generation << 32 | SESSION_LIVE, memory_order_release);
}

void session_end(struct session_row *row)
{
    uint64_t state = atomic_load_explicit(&row->state, memory_order_relaxed);

    atomic_store_explicit(&row->state, (state >> 32) << 32 | SESSION_FREE, memory_order_release);
}

bool session_read(const struct session_row *row, struct session_row *copy)
{
    uint64_t state = atomic_load_explicit(&row->state, memory_order_acquire);

    if ((uint32_t)state != SESSION_LIVE)
        return false;
    words_load(&copy->client, &row->client, sizeof *row - offsetof(struct session_row, client));
    atomic_init(&copy->state, state);
    return atomic_load_explicit(&row->state, memory_order_relaxed) == state;
}

struct session_row *session_partition(const struct segment *segment, uint32_t lane)
{
    return segment->rows + (size_t)(lane & (segment->lane_count - 1)) * segment->rows_per_lane;
}
