/* SPDX-License-Identifier: Apache-2.0 */
/* Persistence records: key -> server, in the segment, shared by all workers without a lock.
 *
 * One bucket per key. Insert is one CAS on the bucket's head (so publishing needs the head unchanged since the scan
 * that found no live key); every later change is one CAS on the slot's value. A new slot is first reserved by process
 * slot and generation, filled, then published; a reservation of a dead generation is free again; between "value is
 * dead" and "bit cleared" anybody helps. Readers re-check the head and never wait. Nobody ever waits for a dead or
 * stopped process. An expired record is still found (record_expired tells); what becomes of it is its caller's
 * decision. Indices are bucket * RECORD_SLOTS + slot. */
#ifndef SEGMENT_RECORD_H
#define SEGMENT_RECORD_H

#include "segment/segment.h"

struct record_key { /* what a plugin's key becomes: SipHash of (profile identity, table, key) with the segment's secret
                     */
    uint64_t fingerprint[2];
};
void record_key_make(struct record_key *out, const struct segment *segment, uint64_t profile, uint32_t table,
                     const void *key, uint32_t size);

struct record_ref { /* a record as it was seen */
    uint32_t index;
    uint64_t value;
};
#define RECORD_SERVER(value) ((uint32_t)((value) >> 26) & 0xfffu)
#define RECORD_GENERATION(value) ((value) >> 38)
#define RECORD_PROVEN(value) ((value) >> 25 & 1u)
#define RECORD_DECISION(value) ((value) >> 26)                /* generation and server: what a session watches */
#define RECORD_LAST_USE(value) ((uint32_t)(value)&0x1ffffffu) /* seconds, modulo 2^25 */

struct record_origin {  /* what is written beside the value when a record is made */
    uint32_t timeout_s; /* UINT32_MAX: never */
    uint64_t profile, service;
    struct hp_endpoint client;
};

enum record_result {
    RECORD_FOUND,   /* ref is the live record of this key (made by us or by another a moment ago) */
    RECORD_CREATED, /* ref is new, with the server asked for */
    RECORD_FULL,    /* only proven records left in the bucket, or nothing may be evicted */
};

/* [worker, monitor] false as well when the record at this index is changing hands. */
bool record_has_key(const struct segment *segment, uint32_t index, const struct record_key *key);
/* [worker, monitor] The live record of the key. */
bool record_find(const struct segment *segment, const struct record_key *key, struct record_ref *ref);
/* [worker] One atomic get-or-insert. self: the caller's process slot index. evict false: never evict (when_full:
 * refuse). Eviction takes expired, then never-used-again, then unproven records, oldest first, never a proven one that
 * has not expired; *evicted counts them. FOUND: an existing record, expired or not. */
enum record_result record_claim(struct segment *segment, uint32_t self, const struct record_key *key, uint32_t server,
                                const struct record_origin *origin, uint32_t now_s, bool evict, struct record_ref *ref,
                                uint32_t *evicted);
/* Each of these is one CAS from the value in ref; false: it has changed meanwhile (ref->value is then the new one).
 * true: ref->value is what was written. */
bool record_move(struct segment *segment, struct record_ref *ref, uint32_t server, uint32_t now_s);
bool record_touch(struct segment *segment, struct record_ref *ref, uint32_t now_s); /* last use = now */
bool record_prove(struct segment *segment, struct record_ref *ref);
bool record_delete(struct segment *segment, struct record_ref *ref);
void record_set_timeout(struct segment *segment, const struct record_ref *ref, uint32_t timeout_s);

/* The word that a session watches: one load. SEGMENT_NO_INDEX must not be passed. Index is checked. A dead record's
 * server is RECORD_DEAD. An unpublished slot can show a stale value: its generation differs. */
uint64_t record_value(const struct segment *segment, uint32_t index);
/* Seconds since last use; differences up to half a year. */
uint32_t record_age_s(uint64_t value, uint32_t now_s);
bool record_expired(const struct segment *segment, const struct record_ref *ref, uint32_t now_s);

struct record_view { /* a consistent copy for people */
    struct record_ref ref;
    uint32_t timeout_s, created_s, profile, service;
    struct hp_endpoint client;
};
uint32_t record_capacity(const struct segment *segment);                                  /* indices are below this */
bool record_read(const struct segment *segment, uint32_t index, struct record_view *out); /* false: no live record */

#endif
