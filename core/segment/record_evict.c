/* SPDX-License-Identifier: Apache-2.0 */
/* Who makes way in a full bucket: expired records first, then those never used again since they were made, then
 * unproven ones; within each, the one that was used longest ago. A proven record that has not expired never does (I5):
 * a flood from spoofed sources makes unproven records only, and those throw out each other. */
#include "segment/record_bucket.h"
#include "segment/trace.h"

enum rank { RANK_KEEP, RANK_UNPROVEN, RANK_NEVER_USED, RANK_EXPIRED };

uint32_t record_age_s(uint64_t value, uint32_t now_s)
{
    uint32_t age = (now_s - RECORD_LAST_USE(value)) & RECORD_TIME_MASK;

    /* another process's clock reading may be a moment ahead of ours: used in the future is used now */
    return age > RECORD_TIME_MASK / 2 ? 0 : age;
}

bool record_slot_expired(const struct record_slot *slot, uint64_t value, uint32_t now_s)
{
    uint32_t timeout = atomic_load_explicit(&slot->timeout_s, memory_order_acquire);

    return timeout != UINT32_MAX && record_age_s(value, now_s) > timeout;
}

uint32_t record_slot_rank(const struct record_slot *slot, uint64_t value, uint32_t now_s)
{
    if (record_slot_expired(slot, value, now_s))
        return RANK_EXPIRED;
    if (RECORD_PROVEN(value))
        return RANK_KEEP;
    if ((atomic_load_explicit(&slot->created_s, memory_order_acquire) & RECORD_TIME_MASK) == RECORD_LAST_USE(value))
        return RANK_NEVER_USED;
    return RANK_UNPROVEN;
}

enum record_eviction record_evict(struct segment *segment, struct record_bucket *bucket, uint32_t now_s)
{
    uint64_t head = atomic_load_explicit(&bucket->head, memory_order_acquire), chosen_value = 0;
    uint32_t chosen = RECORD_NO_SLOT, chosen_age = 0, chosen_rank = RANK_KEEP;
    struct record_view view;
    bool followed;

    for (uint64_t bits = head & RECORD_OCCUPIED; bits != 0; bits &= bits - 1) {
        uint32_t slot = (uint32_t)__builtin_ctzll(bits);
        uint64_t value = atomic_load_explicit(&bucket->slots[slot].value, memory_order_acquire);
        uint32_t age = record_age_s(value, now_s);
        uint32_t rank = record_slot_rank(&bucket->slots[slot], value, now_s);

        if (record_is_dead(value))
            return EVICTION_LOST; /* somebody is just freeing it */
        if (rank == RANK_KEEP || rank < chosen_rank ||
            (rank == chosen_rank && age <= chosen_age && chosen != RECORD_NO_SLOT))
            continue;
        chosen = slot;
        chosen_rank = rank;
        chosen_age = age;
        chosen_value = value;
    }
    if (chosen == RECORD_NO_SLOT)
        return EVICTION_NOTHING;
    followed = trace_is_on(segment, now_s * 1000ull) &&
               record_read(segment, (uint32_t)(bucket - segment->buckets) * RECORD_SLOTS + chosen, &view);
    /* From the value that was judged: a record that was used, moved or proven meanwhile stays. */
    if (!atomic_compare_exchange_strong_explicit(
            &bucket->slots[chosen].value, &chosen_value,
            record_value_make(RECORD_GENERATION(chosen_value), RECORD_DEAD, false, 0), memory_order_acq_rel,
            memory_order_relaxed))
        return EVICTION_LOST;
    if (followed)
        trace_record(segment, TRACE_RECORD_EVICTED, &view, now_s * 1000ull);
    record_clear(bucket, chosen);
    return EVICTION_DONE;
}
