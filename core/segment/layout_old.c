/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts before the present one that the next start can copy: layout N reads N - 1. Sizes are numbers, not sizeof:
 * they are what old files have, whatever becomes of the structures.
 *
 * With the next layout: add an entry whose numbers are those that layout.c holds today (SIZES there, and the SEGMENT_
 * numbers of elements), with a converter for each table that has changed, and take the oldest entry out, or let its
 * converters make the newer shape too. */
#include "segment/record_bucket.h"
#include "segment/tables.h"
#include <string.h>

/* 1: rows of two cache lines. What a session claimed besides its first record was not remembered. */
#define ROW_OF_1 128u

static void row_of_1(void *present, const void *old)
{
    struct session_row *row = present;

    memset((void *)row, 0, sizeof *row);
    memcpy((void *)row, old, ROW_OF_1);
    atomic_init(&row->settings, 0);
    for (uint32_t i = 0; i < SESSION_KEPT; i++)
        atomic_init(&row->kept_record[i], SEGMENT_NO_INDEX);
}

#define ROW_OF_2 192u

/* 3: every client came from the address of the route's choice, which is what a 0 says. */
static void row_of_3(void *present, const void *old)
{
    struct session_row *row = present;

    memcpy((void *)row, old, ROW_OF_2);
    row->source = 0;
}

/* 2: what a session was decided by was not remembered. */
static void row_of_2(void *present, const void *old)
{
    struct session_row *row = present;

    row_of_3(row, old);
    atomic_init(&row->settings, 0);
}

static void bucket_of_3(void *present, const void *old)
{
    struct record_bucket *bucket = present;

    memcpy((void *)bucket, old, sizeof *bucket);
    for (uint32_t i = 0; i < RECORD_SLOTS; i++)
        record_source_init(bucket, i, 0);
}

/* Until 3 a lane did not count what it refused or dropped, and nobody was followed. */
#define LANE_OF_3 64u

static void lane_of_3(void *present, const void *old)
{
    struct lane_slot *lane = present;

    memset((void *)lane, 0, sizeof *lane);
    memcpy((void *)lane, old, LANE_OF_3);
}

/* What they have in common. */
#define TABLES_BEFORE_4                                                                                                \
    [TABLE_PROCESSES] = {256, 2624, NULL}, [TABLE_SERVERS] = {1024, 1408, NULL}, [TABLE_POOLS] = {256, 64, NULL},      \
    [TABLE_SERVICES] = {256, 80, NULL}, [TABLE_PROFILES] = {64, 88, NULL},                                             \
    [TABLE_LANES] = {256, LANE_OF_3, lane_of_3}, [TABLE_DROPS] = {64, 40, NULL}, [TABLE_SOURCES] = {0, 0, NULL},       \
    [TABLE_LOADS] = {0, 0, NULL}, [TABLE_TRACES] = {0, 0, NULL}, [TABLE_BUCKETS] = {0, 1088, bucket_of_3}

/* None had the index of tuple.h; where the newest counters are there was nothing. */
static const struct segment_layout layouts_old[] = {
    {.number = 1, .tables = {TABLES_BEFORE_4, [TABLE_ROWS] = {0, ROW_OF_1, row_of_1}}},
    {.number = 2, .tables = {TABLES_BEFORE_4, [TABLE_ROWS] = {0, ROW_OF_2, row_of_2}}},
    {.number = 3, .tables = {TABLES_BEFORE_4, [TABLE_ROWS] = {0, ROW_OF_2, row_of_3}}},
};

const struct segment_layout *segment_layout_find(uint32_t number)
{
    if (number == segment_layout_present.number)
        return &segment_layout_present;
    for (size_t i = 0; i < sizeof layouts_old / sizeof *layouts_old; i++)
        if (layouts_old[i].number == number)
            return &layouts_old[i];
    return NULL;
}
