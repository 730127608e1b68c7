/* SPDX-License-Identifier: Apache-2.0 */
/* Session rows. */
#include "fixture.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

static struct fixture fixture;
static struct session_row *row;

static void begin(void)
{
    fixture_open(&fixture);
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    row = session_partition(fixture.segment, 2) + 3;
}
static void end(void)
{
    fixture_close(&fixture);
}
TestSuite(session, .init = begin, .fini = end);

Test(session, begins_with_its_content_and_times_of_now)
{
    struct session_row content = {.client = endpoint_of(7, 4500),
                                  .local = {203, 0, 113, 10},
                                  .service = 0x1234,
                                  .server = 5,
                                  .server_port = 4500,
                                  .source_port = 10777,
                                  .watch = 9,
                                  .record = 9,
                                  .begun_ms = 9,
                                  .server_ms = 9,
                                  .flags = SESSION_NEW_FLOWS};
    struct session_row read;

    session_begin(row, &content, 5000);
    cr_assert(session_is_live(row));
    cr_assert(session_read(row, &read));
    cr_assert_arr_eq(&read.client, &content.client, sizeof content.client);
    cr_assert_arr_eq(read.local, content.local, sizeof content.local);
    cr_assert_eq(read.service, 0x1234);
    cr_assert_eq(read.server, 5);
    cr_assert_eq(read.server_port, 4500);
    cr_assert_eq(read.source_port, 10777);
    cr_assert_eq(atomic_load(&read.flags), SESSION_NEW_FLOWS);
    cr_assert_eq(atomic_load(&read.begun_ms), 5000);
    cr_assert_eq(atomic_load(&read.client_ms), 5000);
    cr_assert_eq(atomic_load(&read.server_ms), 0, "never answered");
    cr_assert_eq(atomic_load(&read.record), SEGMENT_NO_INDEX, "watches nothing yet");
    cr_assert_eq(atomic_load(&read.watch), 0);
}

Test(session, that_has_ended_is_not_read)
{
    struct session_row content = {.server = 5}, read;

    cr_assert_not(session_read(row, &read), "a new row is free");
    session_begin(row, &content, 1);
    session_end(row);
    cr_assert_not(session_is_live(row));
    cr_assert_not(session_read(row, &read));
}

Test(session, each_life_of_a_row_has_a_generation_of_its_own)
{
    struct session_row content = {.server = 5};
    uint64_t first;

    session_begin(row, &content, 1);
    first = atomic_load(&row->state);
    session_end(row);
    session_begin(row, &content, 1);
    cr_assert_eq(atomic_load(&row->state) >> 32, (first >> 32) + 1);
}

Test(session, state_that_is_nonsense_is_not_live)
{
    struct session_row read;

    atomic_store(&row->state, 2);
    cr_assert_not(session_is_live(row));
    cr_assert_not(session_read(row, &read));
    atomic_store(&row->state, UINT64_MAX);
    cr_assert_not(session_read(row, &read));
}

Test(session, partitions_are_apart_and_inside_the_table)
{
    const struct segment *segment = fixture.segment;

    for (uint32_t lane = 0; lane < segment->lane_count; lane++)
        cr_assert_eq(session_partition(segment, lane), segment->rows + lane * segment->rows_per_lane);
    cr_assert_eq(session_partition(segment, UINT32_MAX),
                 segment->rows + (segment->lane_count - 1) * segment->rows_per_lane);
}

static atomic_bool stop;

/* Every life has one number in all its members. */
static void *live_and_die(void *unused)
{
    for (uint32_t i = 1; !atomic_load(&stop); i++) {
        struct session_row content = {
            .service = i, .server = (uint16_t)i, .server_port = (uint16_t)i, .source_port = (uint16_t)i};

        memset(content.client.address, (int)i, sizeof content.client.address);
        memset(content.local, (int)i, sizeof content.local);
        session_begin(row, &content, i);
        session_end(row);
    }
    return unused;
}

static bool all_of_one_life(const struct session_row *read)
{
    uint32_t life = (uint32_t)read->service;

    for (size_t i = 0; i < sizeof read->local; i++) {
        if (read->local[i] != (uint8_t)life || read->client.address[i] != (uint8_t)life)
            return false;
    }
    return read->server == (uint16_t)life && read->server_port == (uint16_t)life &&
           read->source_port == (uint16_t)life && atomic_load(&read->begun_ms) == life &&
           atomic_load(&read->state) >> 32 == life;
}

Test(session, read_never_mixes_two_lives)
{
    struct session_row read;
    struct timespec start, now;
    pthread_t holder;
    uint32_t whole = 0;

    cr_assert_eq(pthread_create(&holder, NULL, live_and_die, NULL), 0);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (now = start; whole < 100000 && now.tv_sec - start.tv_sec < 3;) {
        if (!session_read(row, &read)) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            continue;
        }
        whole++;
        cr_assert(all_of_one_life(&read), "mixed after %u whole ones", whole);
    }
    atomic_store(&stop, true);
    pthread_join(holder, NULL);
    cr_assert_gt(whole, 0, "the test must have read something");
}
