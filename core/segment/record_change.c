/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to a record after it was made: each change is one CAS on its value, from the value that the caller has
 * seen. The generation in the value makes a reference to a record that was replaced in its slot fail. A dead value is
 * never changed: life after death would race with who is clearing its bit. */
#include "segment/record_bucket.h"
#include <string.h>

static struct record_slot *slot_at(const struct segment *segment, uint32_t index)
{
    return &record_bucket_at(segment, index)->slots[index % RECORD_SLOTS];
}

static bool value_change(struct segment *segment, struct record_ref *ref, uint64_t value)
{
    if (record_is_dead(ref->value) || ref->index >= record_capacity(segment))
        return false;
    if (!atomic_compare_exchange_strong_explicit(&slot_at(segment, ref->index)->value, &ref->value, value,
                                                 memory_order_acq_rel, memory_order_acquire))
        return false;
    ref->value = value;
    return true;
}

/* The later of the last use and now: another process may have been a moment ahead. */
static uint32_t last_use(uint64_t value, uint32_t now_s)
{
    return record_age_s(value, now_s) == 0 ? RECORD_LAST_USE(value) : now_s;
}

bool record_move(struct segment *segment, struct record_ref *ref, uint32_t server, uint32_t now_s)
{
    if (server >= SEGMENT_SERVERS)
        return false;
    return value_change(segment, ref,
                        record_value_make(RECORD_GENERATION(ref->value), server, RECORD_PROVEN(ref->value),
                                          last_use(ref->value, now_s)));
}

bool record_touch(struct segment *segment, struct record_ref *ref, uint32_t now_s)
{
    if (!record_is_dead(ref->value) && record_age_s(ref->value, now_s) == 0)
        return true;
    return value_change(segment, ref, (ref->value & ~(uint64_t)RECORD_TIME_MASK) | (now_s & RECORD_TIME_MASK));
}

bool record_prove(struct segment *segment, struct record_ref *ref)
{
    if (!record_is_dead(ref->value) && RECORD_PROVEN(ref->value))
        return true;
    return value_change(segment, ref, ref->value | RECORD_PROVEN_BIT);
}

bool record_delete(struct segment *segment, struct record_ref *ref)
{
    if (!value_change(segment, ref, record_value_make(RECORD_GENERATION(ref->value), RECORD_DEAD, false, 0)))
        return false;
    record_clear(record_bucket_at(segment, ref->index), ref->index % RECORD_SLOTS);
    return true;
}

/* Beside the value, so not by CAS: who is stopped between look and store may give its timeout to the slot's next
 * record. That one gets its own back with the next call for it. */
void record_set_timeout(struct segment *segment, const struct record_ref *ref, uint32_t timeout_s)
{
    struct record_slot *slot = slot_at(segment, ref->index);

    if (RECORD_GENERATION(record_value(segment, ref->index)) == RECORD_GENERATION(ref->value) &&
        atomic_load_explicit(&slot->timeout_s, memory_order_relaxed) != timeout_s)
        atomic_store_explicit(&slot->timeout_s, timeout_s, memory_order_relaxed);
}

uint64_t record_value(const struct segment *segment, uint32_t index)
{
    if (index >= record_capacity(segment))
        return record_value_make(0, RECORD_DEAD, false, 0);
    return atomic_load_explicit(&slot_at(segment, index)->value, memory_order_acquire);
}

bool record_expired(const struct segment *segment, const struct record_ref *ref, uint32_t now_s)
{
    return record_slot_expired(slot_at(segment, ref->index), ref->value, now_s);
}

uint32_t record_capacity(const struct segment *segment)
{
    return segment->bucket_count * RECORD_SLOTS;
}

static void client_read(struct hp_endpoint *out, const struct record_slot *slot)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint64_t words[2] = {atomic_load_explicit(&slot->client[0], memory_order_acquire),
                         atomic_load_explicit(&slot->client[1], memory_order_acquire)};
    const uint8_t *octets = (const uint8_t *)words;

    *out = (struct hp_endpoint){.family = 6};
    if (memcmp(octets, mapped, sizeof mapped) == 0) {
        out->family = 4;
        memcpy(out->address, octets + sizeof mapped, 4);
    } else {
        memcpy(out->address, octets, sizeof words);
    }
}

/* As a scan: a copy between two looks at the head. */
static bool view_read(const struct record_bucket *bucket, uint32_t slot, struct record_view *out, bool *live)
{
    const struct record_slot *from = &bucket->slots[slot];
    uint64_t head = atomic_load_explicit(&bucket->head, memory_order_acquire);

    out->ref.value = atomic_load_explicit(&from->value, memory_order_acquire);
    out->timeout_s = atomic_load_explicit(&from->timeout_s, memory_order_acquire);
    out->created_s = atomic_load_explicit(&from->created_s, memory_order_acquire);
    out->profile = atomic_load_explicit(&from->profile, memory_order_acquire);
    out->service = atomic_load_explicit(&from->service, memory_order_acquire);
    client_read(&out->client, from);
    *live = (head >> slot & 1u) != 0 && !record_is_dead(out->ref.value);
    return atomic_load_explicit(&bucket->head, memory_order_relaxed) == head;
}

bool record_read(const struct segment *segment, uint32_t index, struct record_view *out)
{
    bool live = false;

    if (index >= record_capacity(segment))
        return false;
    out->ref.index = index;
    for (uint32_t tries = 0; tries < RECORD_TRIES; tries++) {
        if (view_read(record_bucket_at(segment, index), index % RECORD_SLOTS, out, &live))
            return live;
    }
    return false;
}
