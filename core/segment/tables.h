/* SPDX-License-Identifier: Apache-2.0 */
/* Where each table lies in the file, from the three numbers that shape it. Private to this folder.
 *
 *   4096      processes, servers, pools, services, profiles, lanes, drops, sources, loads, traces: of fixed size, each
 *             on pages of its own
 *   then      record buckets: header.buckets
 *   then      session rows: header.lanes * header.rows_per_lane
 *   then      words of tuple.h: the power of two from twice as many on
 *
 * The offsets are derived, never stored: what a file claims is compared with what its capacities give. */
#ifndef SEGMENT_TABLES_H
#define SEGMENT_TABLES_H

#include "base/error.h"
#include "segment/segment.h"

#define SEGMENT_CAPACITY_MAX (1u << 26) /* records, and sessions: every index stays below 2^32 */
#define SEGMENT_PAGE 4096u
#define SEGMENT_TUPLES_MAX (1u << 27) /* twice that */

enum segment_table { /* in the order in which they lie in the file */
                     TABLE_PROCESSES,
                     TABLE_SERVERS,
                     TABLE_POOLS,
                     TABLE_SERVICES,
                     TABLE_PROFILES,
                     TABLE_LANES,
                     TABLE_DROPS,
                     TABLE_SOURCES,
                     TABLE_LOADS,
                     TABLE_TRACES,
                     TABLE_BUCKETS,
                     TABLE_ROWS,
                     TABLE_TUPLES, /* never copied: each row's holder claims its own again */
                     TABLE_COUNT
};

/* A layout that this version reads: the present one, and those before it that can be copied (layout_old.c). */
struct segment_layout {
    uint32_t number;
    struct segment_table_layout {
        uint32_t count; /* of elements; 0: the header's capacities tell */
        uint32_t size;  /* of one element, octets */
        /* Makes an element of the present layout of an old one's; NULL: it is the same, octet by octet. */
        void (*convert)(void *present, const void *old);
    } tables[TABLE_COUNT];
};
extern const struct segment_layout segment_layout_present;
const struct segment_layout *segment_layout_find(uint32_t number); /* NULL: this version cannot read it */

struct segment_tables { /* offsets in octets */
    size_t at[TABLE_COUNT];
    size_t size; /* of the file */
};
/* capacities: lanes, buckets and rows_per_lane of it count. */
void segment_tables_plan(struct segment_tables *out, const struct segment_layout *layout,
                         const struct segment_header *capacities);

/* Six records in a bucket of sixteen on average: a bucket that overflows at full capacity is rare. */
uint32_t segment_bucket_count(uint32_t records);
uint32_t segment_rows_per_lane(uint32_t sessions, uint32_t lanes); /* rounded up */
uint32_t segment_tuple_count(uint32_t lanes, uint32_t rows_per_lane);

/* Is this a sound header of a file of this size, in a layout that we can read? A snapshot, so that nobody changes it
 * between check and use. -EINVAL: error->what says what is wrong with it. */
int segment_header_check(const struct segment_header *header, uint64_t file_size, const struct segment_layout **layout,
                         struct error *error);
/* Reads the snapshot. 0, or a negative errno value; -EINVAL: the file is shorter than a header. */
int segment_header_read(struct segment_header *out, int fd, struct error *error);

struct segment_carried { /* of what is found in an old segment: how many there are in the new one */
    uint32_t records, records_found;
    uint32_t sessions, sessions_found;
};
/* Fills a new segment, which nobody else has, with all that an old one holds (copy.c). header, layout: those of the
 * old file, which is behind fd, as they were checked. The old one stays as it is.
 * Errors: -ENOSPC, -EDQUOT the old file has holes and no room to fill them; other errno values of mmap. */
int segment_copy(struct segment *to, int fd, const struct segment_header *header, const struct segment_layout *layout,
                 struct segment_carried *carried, struct error *error);

/* Position of an identity in a table of any kind of slot. identity: that of the first slot; stride: octets between two
 * slots. 0 finds a free one. SEGMENT_NO_INDEX: not there. */
uint32_t segment_identity_find(const uint64_t *identity, size_t stride, uint32_t count, uint64_t wanted);
void segment_name_write(char out[SEGMENT_NAME], const char *name); /* cut to fit, always ended */

#endif
