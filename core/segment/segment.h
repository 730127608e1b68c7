/* SPDX-License-Identifier: Apache-2.0 */
/* The shared segment as a file: made or found again by the master, passed on by descriptor, mapped by everybody.
 * It outlives every process; tables inside are reached through the pointers of struct segment. */
#ifndef SEGMENT_SEGMENT_H
#define SEGMENT_SEGMENT_H

#include "base/error.h"
#include "base/log.h"
#include "segment/layout.h"
#include <stdbool.h>
#include <stddef.h>

struct segment_shape { /* capacities; what is asked for */
    uint32_t records, sessions, lanes;
};

struct segment { /* a process's own view; every table's size is checked at map time against the file's */
    struct segment_header *header;
    struct process_slot *processes;                   /* SEGMENT_PROCESSES */
    struct server_slot *servers;                      /* SEGMENT_SERVERS */
    struct pool_slot *pools;                          /* SEGMENT_POOLS */
    struct service_slot *services;                    /* SEGMENT_SERVICES */
    struct profile_slot *profiles;                    /* SEGMENT_PROFILES */
    struct lane_slot *lanes;                          /* SEGMENT_LANES */
    struct drop_slot *drops;                          /* SEGMENT_DROPS */
    struct source_slot *sources;                      /* SEGMENT_SOURCES */
    struct source_load *loads;                        /* SEGMENT_SERVERS * SEGMENT_SOURCES */
    struct trace_board *traces;                       /* one */
    struct record_bucket *buckets;                    /* shape.buckets below */
    struct session_row *rows;                         /* lane l's rows: rows + l * rows_per_lane */
    _Atomic uint64_t *tuples;                         /* tuple_count, a power of two: see tuple.h */
    uint32_t lane_count, bucket_count, rows_per_lane; /* copies of the header's, checked: use these, not the header's */
    struct segment_header checked;                    /* the header as it was when the file was mapped */
    int fd;
    size_t size;
    uint32_t tuple_count; /* derived */
};

/* [master] Opens DIRECTORY/segment, or makes it (0600, fallocated, so that a full tmpfs is an error here and no SIGBUS
 * later). One of another capacity or of the layout before is copied: one notice says how many records and sessions were
 * carried over. One of another boot or a damaged one is put aside as segment.old with one notice that says why.
 * shape->lanes: what a new one gets (power of two); an old one keeps its own. A symlink, a foreign owner or a file that
 * others can write is an error.
 * Errors: -EPERM foreign or writable by others, -ENOSPC no room (says how much it needs), other errno values. */
int segment_open(struct segment **out, int directory, const struct segment_shape *shape, struct log *log,
                 struct error *error);
/* [master] Opens DIRECTORY/segment as it is, whatever its capacities: processes live that use it. Their slots are kept,
 * the others are ended. -EINVAL: it is not there, damaged, or of another layout or boot; nothing is touched. */
int segment_adopt(struct segment **out, int directory, const bool alive[SEGMENT_PROCESSES], struct error *error);
/* [any] Maps what the master opened. The descriptor is taken over. -EINVAL: another layout. */
int segment_map(struct segment **out, int fd, struct error *error);
/* [master] Writes again what describes the file, as it was checked: a hostile process may have overwritten it, and the
 * next process could not map it. */
void segment_header_restore(struct segment *segment);
void segment_close(struct segment *segment); /* unmaps; the file stays; NULL is fine */

/* [master] A free process slot for role: generation raised, counters kept from zero; SEGMENT_NO_INDEX: none left. */
uint32_t process_begin(struct segment *segment, enum process_role role, uint32_t number);
/* [master] Likewise, in a slot that the caller knows to be free: the segment's own word for it may be forged. */
void process_begin_at(struct segment *segment, uint32_t slot, enum process_role role, uint32_t number);
/* [master] After reaping: its reservations are free again, its counters are added to slot 0 (the master's own slot,
 * which keeps the totals of the dead), its slot is free. */
void process_end(struct segment *segment, uint32_t slot);
bool process_alive(const struct segment *segment, uint32_t slot, uint32_t generation);
uint64_t counter_total(const struct segment *segment, enum counter counter); /* [any] over all processes */
const char *counter_name(enum counter counter);
const char *counter_help(enum counter counter);
enum counter lane_loss_counter(enum lane_loss loss); /* the counter of all lanes together; unknown: the first */
static inline void counter_add(struct process_slot *self, enum counter counter, uint64_t by)
{
    uint64_t old = atomic_load_explicit(&self->counters[counter], memory_order_relaxed); /* one writer */
    atomic_store_explicit(&self->counters[counter], old + by, memory_order_relaxed);
}

/* [master] Slots by name, found again or made. Servers: a slot that no live session and no record names may be given
 * away when the table is full; an assigned one counts as configured. One that is there keeps its address until
 * server_set_address. SEGMENT_NO_INDEX: table full. */
uint32_t server_assign(struct segment *segment, const char *name, const struct hp_endpoint *address);
uint32_t pool_assign(struct segment *segment, const char *name);
uint32_t service_assign(struct segment *segment, const char *name);
uint32_t profile_assign(struct segment *segment, const char *name);
/* [master] Index of the probe (protocol 6 or 17, port), found or made; SEGMENT_NO_INDEX: all SEGMENT_PROBES taken. */
uint32_t server_probe_assign(struct segment *segment, uint32_t server, uint32_t protocol, uint16_t port);
/* [master] Frees the pools, services and profiles whose identities, and the server's probes whose keys, are not kept.
 */
void names_free_others(struct segment *segment, const uint64_t *kept, size_t count);
void server_probes_free_others(struct segment *segment, uint32_t server, const uint32_t *kept, uint32_t count);
/* [any] Found by name's identity; SEGMENT_NO_INDEX: not there. */
uint32_t server_find(const struct segment *segment, const char *name);
uint32_t pool_find(const struct segment *segment, const char *name);
uint32_t service_find(const struct segment *segment, const char *name);
uint32_t profile_find(const struct segment *segment, const char *name);
uint32_t server_probe_find(const struct segment *segment, uint32_t server, uint32_t protocol, uint16_t port);
/* [master] Once the configuration that says so is accepted. */
void server_set_address(struct segment *segment, uint32_t server, const struct hp_endpoint *address);
/* [master] State of the configuration; configured false: no longer in it (drains). */
void server_set_state(struct segment *segment, uint32_t server, enum server_state state, bool configured);
/* [monitor] */
void server_set_down(struct segment *segment, uint32_t server, uint32_t probe, bool down);
static inline uint64_t server_word(const struct segment *segment, uint32_t server)
{
    return atomic_load_explicit(&segment->servers[server % SEGMENT_SERVERS].word, memory_order_acquire);
}
static inline enum server_state server_word_state(uint64_t word)
{
    return (enum server_state)(word >> SERVER_STATE_SHIFT & 3u);
}

/* [monitor] Posts a drop; returns its sequence. [worker] walks what is newer than its lane's drop_seen. */
uint64_t drop_post(struct segment *segment, const struct hp_endpoint *client);
/* [any] The client of a drop. false: overwritten by newer ones, or not posted yet. */
bool drop_read(const struct segment *segment, uint64_t sequence, struct hp_endpoint *client);

#endif
