/* SPDX-License-Identifier: Apache-2.0 */
/* Records into another number of buckets: a record's bucket depends on its fingerprint and on how many there are.
 *
 * Only while nobody else has the new segment, so by plain stores. Value and generation stay as they are, and so do the
 * watches of the sessions; the index alone is another one, found again by the fingerprint.
 * Fails: more records than a bucket has slots -> who would make way in a full bucket is left out (record_evict.c); of
 *                                                proven ones alone, the one that was used longest ago
 *        a record that no claim could have made -> left out: it lies in another's bucket, names no server, or its key
 *                                                  is there already */
#include "segment/record_bucket.h"
#include <string.h>

static uint64_t value_of(const struct record_slot *slot)
{
    return atomic_load_explicit(&slot->value, memory_order_relaxed);
}

static bool same_key(const struct record_slot *left, const struct record_slot *right)
{
    return atomic_load_explicit(&left->fingerprint[0], memory_order_relaxed) ==
               atomic_load_explicit(&right->fingerprint[0], memory_order_relaxed) &&
           atomic_load_explicit(&left->fingerprint[1], memory_order_relaxed) ==
               atomic_load_explicit(&right->fingerprint[1], memory_order_relaxed);
}

static bool makes_way_before(const struct record_slot *left, const struct record_slot *right, uint32_t now_s)
{
    uint32_t left_rank = record_slot_rank(left, value_of(left), now_s);
    uint32_t right_rank = record_slot_rank(right, value_of(right), now_s);

    if (left_rank != right_rank)
        return left_rank > right_rank;
    return record_age_s(value_of(left), now_s) > record_age_s(value_of(right), now_s);
}

struct copied { /* a record of the old segment */
    const struct record_slot *slot;
    uint16_t source;
};

static void slot_put(struct record_bucket *bucket, uint32_t position, const struct copied *record)
{
    struct record_slot *slot = &bucket->slots[position];

    memcpy((void *)slot, (const void *)record->slot, sizeof *slot);
    atomic_store_explicit(&slot->reserve, 0, memory_order_relaxed); /* no process of the last life lives */
    atomic_store_explicit(&bucket->sources[position], record->source, memory_order_relaxed);
}

/* true: there is one record more than before. */
static bool bucket_add(struct record_bucket *bucket, const struct copied *record, uint32_t now_s)
{
    uint64_t head = atomic_load_explicit(&bucket->head, memory_order_relaxed);
    uint32_t used = (uint32_t)__builtin_popcountll(head & RECORD_OCCUPIED), first_to_go = 0;

    for (uint32_t i = 0; i < used; i++) { /* filled from the first slot on */
        if (same_key(&bucket->slots[i], record->slot))
            return false;
        if (makes_way_before(&bucket->slots[i], &bucket->slots[first_to_go], now_s))
            first_to_go = i;
    }
    if (used < RECORD_SLOTS) {
        slot_put(bucket, used, record);
        atomic_store_explicit(&bucket->head, (head | 1ull << used) + RECORD_VERSION_STEP, memory_order_relaxed);
        return true;
    }
    if (makes_way_before(&bucket->slots[first_to_go], record->slot, now_s))
        slot_put(bucket, first_to_go, record);
    return false;
}

void records_copy(struct segment *to, const struct record_bucket *bucket, uint32_t number, uint32_t bucket_count,
                  uint32_t now_s, struct segment_carried *carried)
{
    uint64_t head = atomic_load_explicit(&bucket->head, memory_order_relaxed);

    for (uint64_t bits = head & RECORD_OCCUPIED; bits != 0; bits &= bits - 1) {
        uint32_t position = (uint32_t)__builtin_ctzll(bits);
        const struct record_slot *slot = &bucket->slots[position];
        const struct copied record = {slot, atomic_load_explicit(&bucket->sources[position], memory_order_relaxed)};
        uint64_t fingerprint = atomic_load_explicit(&slot->fingerprint[0], memory_order_relaxed);

        if (record_is_dead(value_of(slot)))
            continue;
        carried->records_found++;
        if (RECORD_SERVER(value_of(slot)) < SEGMENT_SERVERS &&
            record_bucket_number(fingerprint, bucket_count) == number)
            carried->records +=
                bucket_add(&to->buckets[record_bucket_number(fingerprint, to->bucket_count)], &record, now_s);
    }
}

uint32_t record_copied_to(const struct segment *to, const struct record_bucket *bucket, uint32_t slot)
{
    const struct record_slot *from = &bucket->slots[slot % RECORD_SLOTS];
    struct record_key key;
    struct record_ref ref;

    if ((atomic_load_explicit(&bucket->head, memory_order_relaxed) >> slot % RECORD_SLOTS & 1u) == 0)
        return SEGMENT_NO_INDEX;
    key.fingerprint[0] = atomic_load_explicit(&from->fingerprint[0], memory_order_relaxed);
    key.fingerprint[1] = atomic_load_explicit(&from->fingerprint[1], memory_order_relaxed);
    return record_find(to, &key, &ref) ? ref.index : SEGMENT_NO_INDEX;
}
