/* SPDX-License-Identifier: Apache-2.0 */
/* Where each table lies in the file, from the three numbers that shape it. Private to this folder.
 *
 *   4096      processes, servers, pools, services, profiles, lanes, drops: of fixed size, each on pages of its own
 *   then      record buckets: header.buckets
 *   then      session rows: header.lanes * header.rows_per_lane
 *
 * The offsets are derived, never stored: what a file claims is compared with what its capacities give. */
#ifndef SEGMENT_TABLES_H
#define SEGMENT_TABLES_H

#include "base/error.h"
#include "segment/segment.h"

#define SEGMENT_CAPACITY_MAX (1u << 26) /* records, and sessions: every index stays below 2^32 */
#define SEGMENT_PAGE 4096u

struct segment_tables { /* offsets in octets */
    size_t processes, servers, pools, services, profiles, lanes, drops, buckets, rows;
    size_t size; /* of the file */
};
void segment_tables_plan(struct segment_tables *out, uint32_t lanes, uint32_t buckets, uint32_t rows_per_lane);

/* Six records in a bucket of sixteen on average: a bucket that overflows at full capacity is rare. */
uint32_t segment_bucket_count(uint32_t records);
uint32_t segment_rows_per_lane(uint32_t sessions, uint32_t lanes); /* rounded up */

/* Is this a header that we can work with, of a file of this size? A snapshot, so that nobody changes it between check
 * and use. -EINVAL: error->what says what is wrong with it. */
int segment_header_check(const struct segment_header *header, uint64_t file_size, struct error *error);
/* Reads the snapshot. 0, or a negative errno value; -EINVAL: the file is shorter than a header. */
int segment_header_read(struct segment_header *out, int fd, struct error *error);

/* Position of an identity in a table of any kind of slot. identity: that of the first slot; stride: octets between two
 * slots. 0 finds a free one. SEGMENT_NO_INDEX: not there. */
uint32_t segment_identity_find(const uint64_t *identity, size_t stride, uint32_t count, uint64_t wanted);
void segment_name_write(char out[SEGMENT_NAME], const char *name); /* cut to fit, always ended */

#endif
