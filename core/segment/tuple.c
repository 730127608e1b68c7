/* SPDX-License-Identifier: Apache-2.0 */
/* A word names a row and its life; the row tells the rest. It stands in a window of TUPLE_WINDOW words that the client,
 * server and port give, wherever there is room in it.
 *
 *   tag 22 (of the hash, never 0) | generation 16 (of the row's state) | row 26
 *
 * Happy path: a free word of the window becomes ours, then the window is looked through for another one that says the
 * same: there is none.
 * Fails: there is one of another flow  -> ours goes, the claim is refused
 *        there is one of the same flow -> it goes: the kernel sends the flow to our lane now (other listeners), and the
 *                                         row that had it ends when its holder looks
 *        two claim at the same instant -> each has written before it looks, so at least one sees the other
 *        killed with a word            -> its row lives on, and its next holder claims it again; or it is dead, and the
 *                                         word may be overwritten: a life that is over never comes back
 *        killed before the word        -> its next holder claims; who has come first meanwhile keeps it
 *        no room in the window         -> refused; at full capacity that is rare
 *        nonsense from a hostile worker -> indices are checked; it can do no worse than refuse flows */
#include "segment/tuple.h"

#include "base/endpoint.h"
#include "base/hash.h"
#include "segment/session.h"
#include <string.h>

#define TUPLE_WINDOW 64u
#define ROW_BITS 26u
#define GENERATION_BITS 16u
#define ROW_MASK ((1ull << ROW_BITS) - 1)
#define GENERATION_MASK ((1ull << GENERATION_BITS) - 1)
#define TAG_SHIFT (ROW_BITS + GENERATION_BITS)

struct tuple { /* hashed as octets: no padding */
    struct hp_endpoint client, server;
};
_Static_assert(sizeof(struct tuple) == 48, "no padding");

struct word { /* what a row has, or will have, in the index */
    uint64_t hash, value;
};

static struct word word_of(const struct segment *segment, const struct session_row *row,
                           const struct hp_endpoint *server)
{
    const struct tuple tuple = {.client = row->client, .server = *server};
    uint64_t generation = atomic_load_explicit(&row->state, memory_order_relaxed) >> 32 & GENERATION_MASK;
    uint64_t hash = hash_64(segment->checked.secret, &tuple, sizeof tuple), tag = hash >> TAG_SHIFT;

    return (struct word){.hash = hash,
                         .value = (tag == 0 ? 1 : tag) << TAG_SHIFT | generation << ROW_BITS |
                                  (uint64_t)(row - segment->rows)};
}

static _Atomic uint64_t *place_of(const struct segment *segment, const struct word *word, uint32_t position)
{
    return &segment->tuples[((uint32_t)word->hash + position) & (segment->tuple_count - 1)];
}

/* The row that a word names, while it lives; NULL: it is over. */
static const struct session_row *row_of(const struct segment *segment, uint64_t value)
{
    uint64_t row = value & ROW_MASK, state;

    if (value == 0 || row >= (uint64_t)segment->lane_count * segment->rows_per_lane)
        return NULL;
    state = atomic_load_explicit(&segment->rows[row].state, memory_order_acquire);
    return (uint32_t)state == SESSION_LIVE && (state >> 32 & GENERATION_MASK) == (value >> ROW_BITS & GENERATION_MASK)
               ? &segment->rows[row]
               : NULL;
}

/* In the first free place, else in the first whose row is over. false: there is none. */
static bool word_put(const struct segment *segment, const struct word *own)
{
    for (uint32_t i = 0; i < 2 * TUPLE_WINDOW; i++) {
        _Atomic uint64_t *place = place_of(segment, own, i % TUPLE_WINDOW);
        uint64_t before = atomic_load(place);

        if (before == own->value)
            return true;
        if ((i < TUPLE_WINDOW ? before == 0 : row_of(segment, before) == NULL) &&
            atomic_compare_exchange_strong(place, &before, own->value))
            return true;
    }
    return false;
}

/* Its server's address may have changed in a reload since it was claimed: then it is another conversation. */
static bool is_same_conversation(const struct segment *segment, const struct session_row *row,
                                 const struct session_row *other, const struct hp_endpoint *server)
{
    return endpoint_equal(&other->client, &row->client) && other->server_port == server->port &&
           endpoint_same_address(&segment->servers[other->server % SEGMENT_SERVERS].address, server);
}

/* Nobody else has what we have put there; a former row of our own flow has it no more. */
static bool is_ours(const struct segment *segment, const struct word *own, const struct session_row *row,
                    const struct hp_endpoint *server)
{
    for (uint32_t i = 0; i < TUPLE_WINDOW; i++) {
        _Atomic uint64_t *place = place_of(segment, own, i);
        uint64_t value = atomic_load(place);
        const struct session_row *other = row_of(segment, value);
        struct session_row copy;

        if (value >> TAG_SHIFT != own->value >> TAG_SHIFT || other == NULL || other == row ||
            !session_read(other, &copy) || !is_same_conversation(segment, row, &copy, server))
            continue;
        if (copy.local_port != row->local_port || memcmp(copy.local, row->local, sizeof copy.local) != 0)
            return false;
        (void)atomic_compare_exchange_strong(place, &value, 0);
    }
    return true;
}

bool tuple_claim(struct segment *segment, const struct session_row *row, const struct hp_endpoint *server)
{
    struct word own = word_of(segment, row, server);

    if (!word_put(segment, &own))
        return false;
    if (is_ours(segment, &own, row, server))
        return true;
    tuple_release(segment, row, server);
    return false;
}

bool tuple_holds(const struct segment *segment, const struct session_row *row, const struct hp_endpoint *server)
{
    struct word own = word_of(segment, row, server);

    for (uint32_t i = 0; i < TUPLE_WINDOW; i++)
        if (atomic_load_explicit(place_of(segment, &own, i), memory_order_relaxed) == own.value)
            return true;
    return false;
}

void tuple_release(struct segment *segment, const struct session_row *row, const struct hp_endpoint *server)
{
    struct word own = word_of(segment, row, server);

    for (uint32_t i = 0; i < TUPLE_WINDOW; i++) {
        uint64_t before = own.value;

        if (atomic_load_explicit(place_of(segment, &own, i), memory_order_relaxed) == own.value)
            (void)atomic_compare_exchange_strong(place_of(segment, &own, i), &before, 0);
    }
}
