/* SPDX-License-Identifier: Apache-2.0 */
/* Find and claim: the atomic get-or-insert.
 *
 * Claim: scan the bucket under one head. The key is there: its record. Else reserve a free slot, fill it, and publish
 * it by a CAS from the very head of the scan: if anything was published or freed since, the CAS fails and the scan is
 * made again. So of two that claim one key at once the second one's CAS fails, and its scan finds the first one's
 * record: there is one record per key, and everybody gets its server.
 * - Killed before the CAS: the slot stays reserved until the process's generation is raised, by who has reaped it.
 * - Stopped before the CAS, and woken: the CAS fails as above, or nothing has happened to the key.
 * - Killed or stopped after the CAS: the record is whole. The reservation left on it says nothing until it is deleted.
 * - Killed or stopped between "value is dead" and "bit cleared": anybody clears it (record_clear).
 * - No slot to reserve: evict (record_evict.c), or say FULL.
 *
 * Two candidate buckets, or "insert, scan again, lowest wins", are no atomic claim: a stopped one wakes up too late. */
#include "segment/record.h"
#include "base/hash.h"
#include "segment/record_bucket.h"
#include <string.h>

struct scan {
    uint64_t head;  /* under which it was made */
    uint32_t slot;  /* RECORD_NO_SLOT: the key is not there */
    uint64_t value; /* of the slot */
};

void record_key_make(struct record_key *out, const struct segment *segment, uint64_t profile, uint32_t table,
                     const void *key, uint32_t size)
{
    uint8_t text[sizeof profile + sizeof table + sizeof size + HP_KEY_MAX] = {0};
    uint32_t used = size < HP_KEY_MAX ? size : HP_KEY_MAX;
    uint8_t *at = text;

    memcpy(at, &profile, sizeof profile);
    at += sizeof profile;
    memcpy(at, &table, sizeof table);
    at += sizeof table;
    memcpy(at, &size, sizeof size); /* else a key and the same key with a zero behind it would be one */
    at += sizeof size;
    if (used > 0)
        memcpy(at, key, used);
    hash_128(segment->header->secret, text, sizeof text, out->fingerprint);
}

static bool slot_has_key(const struct record_slot *slot, const struct record_key *key)
{
    return atomic_load_explicit(&slot->fingerprint[0], memory_order_acquire) == key->fingerprint[0] &&
           atomic_load_explicit(&slot->fingerprint[1], memory_order_acquire) == key->fingerprint[1];
}

bool record_has_key(const struct segment *segment, uint32_t index, const struct record_key *key)
{
    return index < record_capacity(segment) &&
           slot_has_key(&record_bucket_at(segment, index)->slots[index % RECORD_SLOTS], key);
}

/* One look through the bucket. false: the head has changed meanwhile, what was seen may be of two times. */
static bool bucket_scan(const struct record_bucket *bucket, const struct record_key *key, struct scan *out)
{
    out->head = atomic_load_explicit(&bucket->head, memory_order_acquire);
    out->slot = RECORD_NO_SLOT;
    for (uint64_t bits = out->head & RECORD_OCCUPIED; bits != 0; bits &= bits - 1) {
        uint32_t slot = (uint32_t)__builtin_ctzll(bits);

        if (!slot_has_key(&bucket->slots[slot], key))
            continue;
        out->value = atomic_load_explicit(&bucket->slots[slot].value, memory_order_acquire);
        if (record_is_dead(out->value))
            continue;
        out->slot = slot;
        break;
    }
    return atomic_load_explicit(&bucket->head, memory_order_relaxed) == out->head;
}

bool record_find(const struct segment *segment, const struct record_key *key, struct record_ref *ref)
{
    uint32_t number = record_bucket_number(key->fingerprint[0], segment->bucket_count);

    for (uint32_t tries = 0; tries < RECORD_TRIES; tries++) {
        struct scan scan;

        if (!bucket_scan(&segment->buckets[number], key, &scan))
            continue;
        if (scan.slot == RECORD_NO_SLOT)
            return false;
        ref->index = number * RECORD_SLOTS + scan.slot;
        ref->value = scan.value;
        return true;
    }
    return false;
}

/* The CAS fails when somebody else has cleared the bit, or when anything else in the bucket has changed: look again.
 * The version keeps it from clearing the bit of a record that came into the slot since. */
void record_clear(struct record_bucket *bucket, uint32_t slot)
{
    uint64_t bit = 1ull << slot;

    for (uint32_t tries = 0; tries < RECORD_TRIES; tries++) {
        uint64_t head = atomic_load_explicit(&bucket->head, memory_order_acquire);

        if ((head & bit) == 0 ||
            !record_is_dead(atomic_load_explicit(&bucket->slots[slot].value, memory_order_acquire)))
            return;
        if (atomic_compare_exchange_strong_explicit(&bucket->head, &head, (head & ~bit) + RECORD_VERSION_STEP,
                                                    memory_order_acq_rel, memory_order_relaxed))
            return;
    }
}

/* Who is named has been reaped, or no such process can be. Acquire: what it stored last is seen as well. */
static bool reservation_is_dead(const struct segment *segment, uint64_t reserve)
{
    uint64_t process = reserve >> 32;

    return process >= SEGMENT_PROCESSES ||
           atomic_load_explicit(&segment->processes[process].generation, memory_order_acquire) != (uint32_t)reserve;
}

static void slot_release(struct record_bucket *bucket, uint32_t slot)
{
    if (slot != RECORD_NO_SLOT)
        atomic_store_explicit(&bucket->slots[slot].reserve, 0, memory_order_release);
}

/* Takes the reservation of one slot, if that slot is free. The head is looked at after the reservation: only its holder
 * publishes a slot, so what is free now stays free until we publish it. */
static bool slot_reserve(const struct segment *segment, struct record_bucket *bucket, uint32_t slot, uint64_t self)
{
    _Atomic uint64_t *reserve = &bucket->slots[slot].reserve;
    uint64_t present = atomic_load_explicit(reserve, memory_order_acquire);

    if (present != 0 && !reservation_is_dead(segment, present))
        return false;
    if (!atomic_compare_exchange_strong_explicit(reserve, &present, self, memory_order_acq_rel, memory_order_relaxed))
        return false;
    if ((atomic_load_explicit(&bucket->head, memory_order_acquire) >> slot & 1u) == 0)
        return true;
    slot_release(bucket, slot);
    return false;
}

static uint32_t slot_find_free(const struct segment *segment, struct record_bucket *bucket, uint64_t self)
{
    uint64_t head = atomic_load_explicit(&bucket->head, memory_order_acquire);

    for (uint32_t slot = 0; slot < RECORD_SLOTS; slot++) {
        if ((head >> slot & 1u) != 0) {
            if (!record_is_dead(atomic_load_explicit(&bucket->slots[slot].value, memory_order_acquire)))
                continue;
            record_clear(bucket, slot);
        }
        if (slot_reserve(segment, bucket, slot, self))
            return slot;
    }
    return RECORD_NO_SLOT;
}

/* Writes a reserved, unpublished slot; returns its value. Nobody else writes here. Readers that still look at the
 * record that lay here before find out by the head (record_bucket.h). */
static uint64_t slot_fill(struct record_slot *slot, const struct record_key *key, uint32_t server,
                          const struct record_origin *origin, uint32_t now_s)
{
    uint64_t generation = RECORD_GENERATION(atomic_load_explicit(&slot->value, memory_order_relaxed)) + 1;
    uint64_t value = record_value_make(generation, server, false, now_s);
    uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff};
    uint64_t client[2];

    if (origin->client.family == 4)
        memcpy(mapped + 12, origin->client.address, 4);
    memcpy(client, origin->client.family == 4 ? mapped : origin->client.address, sizeof client);
    atomic_store_explicit(&slot->value, value, memory_order_release);
    atomic_store_explicit(&slot->fingerprint[0], key->fingerprint[0], memory_order_release);
    atomic_store_explicit(&slot->fingerprint[1], key->fingerprint[1], memory_order_release);
    atomic_store_explicit(&slot->timeout_s, origin->timeout_s, memory_order_release);
    atomic_store_explicit(&slot->created_s, now_s, memory_order_release);
    atomic_store_explicit(&slot->profile, (uint32_t)origin->profile, memory_order_release);
    atomic_store_explicit(&slot->service, (uint32_t)origin->service, memory_order_release);
    atomic_store_explicit(&slot->client[0], client[0], memory_order_release);
    atomic_store_explicit(&slot->client[1], client[1], memory_order_release);
    return value;
}

/* The one CAS that makes a record: only from the head under which the key was not there. Release: who sees the bit sees
 * the slot. */
static bool slot_publish(struct record_bucket *bucket, uint32_t slot, uint64_t head)
{
    return atomic_compare_exchange_strong_explicit(&bucket->head, &head, (head | 1ull << slot) + RECORD_VERSION_STEP,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

/* No slot could be reserved under this head. true: look again. */
static bool room_make(struct segment *segment, struct record_bucket *bucket, uint64_t head, uint32_t now_s, bool evict,
                      uint32_t *evicted)
{
    enum record_eviction eviction = evict ? record_evict(segment, bucket, now_s) : EVICTION_NOTHING;

    if (eviction == EVICTION_DONE)
        ++*evicted;
    return eviction != EVICTION_NOTHING || atomic_load_explicit(&bucket->head, memory_order_relaxed) != head;
}

enum record_result record_claim(struct segment *segment, uint32_t self, const struct record_key *key, uint32_t server,
                                const struct record_origin *origin, uint32_t now_s, bool evict, struct record_ref *ref,
                                uint32_t *evicted)
{
    uint32_t number = record_bucket_number(key->fingerprint[0], segment->bucket_count),
             process = self % SEGMENT_PROCESSES, mine = RECORD_NO_SLOT;
    struct record_bucket *bucket = &segment->buckets[number];
    uint64_t identity =
        (uint64_t)process << 32 | atomic_load_explicit(&segment->processes[process].generation, memory_order_relaxed);
    enum record_result result = RECORD_FULL;
    uint64_t filled = 0;

    *evicted = 0;
    for (uint32_t tries = 0; tries < RECORD_TRIES; tries++) {
        struct scan scan;

        if (!bucket_scan(bucket, key, &scan))
            continue;
        if (scan.slot != RECORD_NO_SLOT) {
            *ref = (struct record_ref){.index = number * RECORD_SLOTS + scan.slot, .value = scan.value};
            result = RECORD_FOUND;
            break;
        }
        if (server >= SEGMENT_SERVERS) /* nothing that a record could name */
            break;
        if (mine == RECORD_NO_SLOT) {
            mine = slot_find_free(segment, bucket, identity);
            if (mine == RECORD_NO_SLOT && room_make(segment, bucket, scan.head, now_s, evict, evicted))
                continue;
            if (mine == RECORD_NO_SLOT)
                break;
            filled = slot_fill(&bucket->slots[mine], key, server, origin, now_s);
        }
        if (slot_publish(bucket, mine, scan.head)) {
            *ref = (struct record_ref){.index = number * RECORD_SLOTS + mine, .value = filled};
            result = RECORD_CREATED;
            break;
        }
    }
    slot_release(bucket, mine);
    return result;
}
