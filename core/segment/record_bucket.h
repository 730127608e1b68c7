/* SPDX-License-Identifier: Apache-2.0 */
/* Inside a bucket: what record.c, record_evict.c and record_change.c share. Private to this folder.
 *
 * head:  16 occupied bits | 48 bits of version, raised with every change of a bit. Changed by CAS alone.
 * value: of an occupied slot is changed by CAS alone, and never from dead to live. Of a free slot it is stored by who
 *        holds the reservation, each time with a generation of its own: no CAS from an old value can meet a new one.
 * Memory order: whoever looks into a slot loads with acquire and then loads the head once more; whoever fills a slot
 * has read (acquire) a head in which it is free and then stores with release. So who sees one filled word sees that
 *        head, or a later one, and knows that its look was spoilt. On x86 all of these are plain moves.
 * tests/model/record.pml tries these orders, and finds a fault when one of them is missing. */
#ifndef SEGMENT_RECORD_BUCKET_H
#define SEGMENT_RECORD_BUCKET_H

#include "segment/record.h"
#include "segment/tables.h"

#define RECORD_NO_SLOT RECORD_SLOTS
#define RECORD_OCCUPIED 0xffffull
#define RECORD_VERSION_STEP (1ull << RECORD_SLOTS)
#define RECORD_GENERATION_MASK 0x3ffffffull
#define RECORD_TIME_MASK 0x1ffffffu
#define RECORD_PROVEN_BIT (1ull << 25)

/* A look is spoilt when the head changes meanwhile: another process has got on. Never waits for one that has not. The
 * bound is far beyond what honest neighbours can cause; it ends the walk when a hostile one does nothing else. */
#define RECORD_TRIES 10000u

static inline uint64_t record_value_make(uint64_t generation, uint32_t server, bool proven, uint32_t now_s)
{
    return (generation & RECORD_GENERATION_MASK) << 38 | (uint64_t)(server & 0xfffu) << 26 |
           (proven ? RECORD_PROVEN_BIT : 0) | (now_s & RECORD_TIME_MASK);
}

/* A record's source: a mark of the decision for which it was chosen, and which one. The mark tells apart all servers of
 * one generation, and one generation from the next. */
#define RECORD_SOURCE_BITS 6u

static inline uint16_t record_source_word(uint64_t decision, uint32_t source)
{
    uint32_t mark = (uint32_t)(decision >> 12) * 389u + (uint32_t)(decision & 0xfffu);

    return (uint16_t)(mark << RECORD_SOURCE_BITS | source);
}
_Static_assert(SEGMENT_SOURCES == 1u << RECORD_SOURCE_BITS, "a record must be able to name every source");

/* Of a bucket that nobody else has. */
static inline void record_source_init(struct record_bucket *bucket, uint32_t slot, uint32_t source)
{
    uint64_t value = atomic_load_explicit(&bucket->slots[slot].value, memory_order_relaxed);

    atomic_init(&bucket->sources[slot], record_source_word(RECORD_DECISION(value), source));
}

static inline bool record_is_dead(uint64_t value)
{
    return RECORD_SERVER(value) == RECORD_DEAD;
}

static inline struct record_bucket *record_bucket_at(const struct segment *segment, uint32_t index)
{
    return &segment->buckets[index / RECORD_SLOTS % segment->bucket_count];
}

/* Multiply-shift: the upper half of a fingerprint's first word, as a fraction of the number of buckets. */
static inline uint32_t record_bucket_number(uint64_t fingerprint, uint32_t bucket_count)
{
    return (uint32_t)((fingerprint >> 32) * bucket_count >> 32);
}

/* Frees a slot whose value is dead: whoever sees it helps, its killer may be dead or stopped. */
void record_clear(struct record_bucket *bucket, uint32_t slot);

enum record_eviction {
    EVICTION_DONE,   /* one record made way */
    EVICTION_LOST,   /* the one chosen has changed meanwhile: look again */
    EVICTION_NOTHING /* only proven ones that have not expired */
};
enum record_eviction record_evict(struct segment *segment, struct record_bucket *bucket, uint32_t now_s);

bool record_slot_expired(const struct record_slot *slot, uint64_t value, uint32_t now_s);
/* The higher the sooner it makes way; 0: never in a claim. */
uint32_t record_slot_rank(const struct record_slot *slot, uint64_t value, uint32_t now_s);

/* Into a new segment (record_copy.c): the records of an old one's bucket, whose number was `number` of bucket_count. */
void records_copy(struct segment *to, const struct record_bucket *bucket, uint32_t number, uint32_t bucket_count,
                  uint32_t now_s, struct segment_carried *carried);
/* After all are copied: the index of what lies in that slot of an old bucket. SEGMENT_NO_INDEX: it was left out. */
uint32_t record_copied_to(const struct segment *to, const struct record_bucket *bucket, uint32_t slot);

#endif
