/* SPDX-License-Identifier: Apache-2.0 */
/* An old segment into a new one that has other capacities or a newer layout. No process lives, nobody else has the new
 * one, and the old one is only read.
 *
 * Happy path: the tables of fixed size element by element, as they are (servers with their states, pools with their
 * cursors, process slots with their counters, which last_life_end then adds up); the records into the buckets that are
 * theirs now; the rows of each lane, each watching its record at its new place.
 * Fails: more records than fit a bucket      -> record_copy.c says which are left out
 *        fewer rows in a lane than before    -> its sessions that were idle longest are left out
 *        a session's record is left out      -> the session watches one that is gone: its next datagram puts it back
 *        nonsense in the old one             -> every index is checked; what cannot be is left out
 *        the old one has holes, and no room  -> an error; nothing has changed
 * An element is loaded as a whole into memory of our own, converted where its layout is an older one, and judged only
 * there: nobody changes it between check and use. */
#include "base/clock.h"
#include "segment/record_bucket.h"
#include "segment/session.h"
#include "segment/tables.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WATCH_GONE (UINT64_MAX >> 26) /* what no live record's value gives: its server would be RECORD_DEAD */

struct old {
    const char *base;
    const struct segment_header *header; /* checked, our own */
    const struct segment_layout *layout;
    struct segment_tables tables;
};

struct row_use {
    bool live;
    uint64_t last_ms;
    uint32_t position;
};

static void element_load(void *out, const struct old *old, enum segment_table table, size_t index)
{
    const struct segment_table_layout *kind = &old->layout->tables[table];
    const char *from = old->base + old->tables.at[table] + index * kind->size;

    if (kind->convert != NULL)
        kind->convert(out, from);
    else
        memcpy(out, from, kind->size);
}

static void table_copy(void *to, const struct old *old, enum segment_table table)
{
    const struct segment_table_layout *present = &segment_layout_present.tables[table];
    uint32_t count = old->layout->tables[table].count;

    for (uint32_t i = 0; i < count && i < present->count; i++)
        element_load((char *)to + (size_t)i * present->size, old, table, i);
}

static void fixed_copy(struct segment *to, const struct old *old)
{
    table_copy(to->processes, old, TABLE_PROCESSES);
    table_copy(to->servers, old, TABLE_SERVERS);
    table_copy(to->pools, old, TABLE_POOLS);
    table_copy(to->services, old, TABLE_SERVICES);
    table_copy(to->profiles, old, TABLE_PROFILES);
    table_copy(to->lanes, old, TABLE_LANES);
    table_copy(to->drops, old, TABLE_DROPS);
    table_copy(to->sources, old, TABLE_SOURCES);
    table_copy(to->loads, old, TABLE_LOADS);
}

static void buckets_copy(struct segment *to, const struct old *old, struct segment_carried *carried)
{
    uint32_t now_s = (uint32_t)clock_now_s();
    struct record_bucket bucket;

    for (uint32_t i = 0; i < old->header->buckets; i++) {
        element_load(&bucket, old, TABLE_BUCKETS, i);
        records_copy(to, &bucket, i, old->header->buckets, now_s, carried);
    }
}

/* The value of a record is copied as it is, so the watch fits, or does not fit, as before. */
static void watch_move(const struct segment *to, const struct old *old, _Atomic uint32_t *record,
                       _Atomic uint64_t *watch)
{
    uint32_t before = atomic_load_explicit(record, memory_order_relaxed), now = SEGMENT_NO_INDEX;
    struct record_bucket bucket;

    if (before == SEGMENT_NO_INDEX)
        return;
    if (before / RECORD_SLOTS < old->header->buckets) {
        element_load(&bucket, old, TABLE_BUCKETS, before / RECORD_SLOTS);
        now = record_copied_to(to, &bucket, before % RECORD_SLOTS);
    }
    if (now == SEGMENT_NO_INDEX) {
        atomic_store_explicit(watch, WATCH_GONE, memory_order_relaxed);
        now = 0; /* any: none would mean that the session never had a record */
    }
    atomic_store_explicit(record, now, memory_order_relaxed);
}

static void row_copy(struct segment *to, const struct old *old, struct session_row *row, uint32_t from,
                     struct segment_carried *carried)
{
    struct session_row copy;

    element_load(&copy, old, TABLE_ROWS, from);
    if (session_is_live(&copy)) {
        carried->sessions++;
        watch_move(to, old, &copy.record, &copy.watch);
        for (uint32_t i = 0; i < SESSION_KEPT; i++)
            watch_move(to, old, &copy.kept_record[i], &copy.kept_watch[i]);
    }
    memcpy((void *)row, (const void *)&copy, sizeof *row);
}

static struct row_use row_use_of(const struct old *old, uint32_t first, uint32_t position)
{
    struct session_row row;
    uint64_t client_ms, server_ms;

    element_load(&row, old, TABLE_ROWS, first + position);
    client_ms = atomic_load_explicit(&row.client_ms, memory_order_relaxed);
    server_ms = atomic_load_explicit(&row.server_ms, memory_order_relaxed);
    return (struct row_use){
        .live = session_is_live(&row), .last_ms = client_ms > server_ms ? client_ms : server_ms, .position = position};
}

/* Live ones first; of those, and of the free ones, whose ports shall rest, the last used first. */
static int row_use_compare(const void *left, const void *right)
{
    const struct row_use *a = left, *b = right;

    if (a->live != b->live)
        return a->live ? -1 : 1;
    if (a->last_ms != b->last_ms)
        return a->last_ms > b->last_ms ? -1 : 1;
    return a->position < b->position ? -1 : 1;
}

/* uses: room for a lane of the old one. A row keeps its place where there is one for each. */
static void lane_copy(struct segment *to, const struct old *old, uint32_t lane, struct row_use *uses,
                      struct segment_carried *carried)
{
    uint32_t count = old->header->rows_per_lane, first = lane * count;

    for (uint32_t i = 0; i < count; i++) {
        uses[i] = row_use_of(old, first, i);
        carried->sessions_found += uses[i].live;
    }
    if (count > to->rows_per_lane) {
        qsort(uses, count, sizeof *uses, row_use_compare);
        count = to->rows_per_lane;
    }
    for (uint32_t i = 0; i < count; i++)
        row_copy(to, old, session_partition(to, lane) + i, first + uses[i].position, carried);
}

static int rows_copy(struct segment *to, const struct old *old, struct segment_carried *carried, struct error *error)
{
    struct row_use *uses = malloc(old->header->rows_per_lane * sizeof *uses);

    if (uses == NULL)
        return error_set(error, -ENOMEM, "no memory to copy the sessions of the last run");
    for (uint32_t lane = 0; lane < to->lane_count; lane++)
        lane_copy(to, old, lane, uses, carried);
    free(uses);
    return 0;
}

int segment_copy(struct segment *to, int fd, const struct segment_header *header, const struct segment_layout *layout,
                 struct segment_carried *carried, struct error *error)
{
    struct old old = {.header = header, .layout = layout};
    int code = -posix_fallocate(fd, 0, (off_t)header->size); /* a hole that cannot be filled kills who reads it */
    void *base;

    if (code < 0) {
        error_set(error, code, "cannot fill the holes in the segment of the last run: %s", strerror(-code));
        return error_next(error, "make room in the state folder");
    }
    base = mmap(NULL, header->size, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return error_set(error, -errno, "cannot map the segment of the last run: %s", strerror(errno));
    old.base = base;
    segment_tables_plan(&old.tables, layout, header);
    memset(carried, 0, sizeof *carried);
    fixed_copy(to, &old);
    buckets_copy(to, &old, carried);
    code = rows_copy(to, &old, carried, error);
    munmap(base, header->size);
    return code;
}
