/* SPDX-License-Identifier: Apache-2.0 */
/* Drops: a ring that the monitor writes and each lane's holder follows. An entry says by its sequence whether it is
 * whole: 0 while it is written. A holder that is more than a ring behind has missed the older ones. */
#include "segment/segment.h"
#include "segment/words.h"

_Static_assert(sizeof(struct hp_endpoint) == 24, "an endpoint is three words");

uint64_t drop_post(struct segment *segment, const struct hp_endpoint *client)
{
    uint64_t sequence = atomic_load_explicit(&segment->header->drop_last, memory_order_relaxed) + 1;
    struct drop_slot *slot = &segment->drops[sequence % SEGMENT_DROPS];
    struct hp_endpoint address = *client;

    address.port = 0;
    atomic_store_explicit(&slot->sequence, 0, memory_order_relaxed);
    words_store(&slot->client, &address, sizeof address); /* release: the 0 comes first */
    atomic_store_explicit(&slot->ended, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence, memory_order_release);
    atomic_store_explicit(&segment->header->drop_last, sequence, memory_order_release);
    return sequence;
}

bool drop_read(const struct segment *segment, uint64_t sequence, struct hp_endpoint *client)
{
    const struct drop_slot *slot = &segment->drops[sequence % SEGMENT_DROPS];

    if (sequence == 0 || atomic_load_explicit(&slot->sequence, memory_order_acquire) != sequence)
        return false;
    words_load(client, &slot->client, sizeof *client);
    return atomic_load_explicit(&slot->sequence, memory_order_relaxed) == sequence;
}
