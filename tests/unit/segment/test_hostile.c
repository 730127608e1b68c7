/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile process writes anything anywhere at any time (I6): whoever reads must stay within the segment, come back,
 * and hand out no index or pointer beyond the tables. Under ASan the file's mapping ends where the segment ends. */
#include "fixture.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct fixture fixture;
static struct segment *segment;
static uint64_t seed;

static void begin(void)
{
    const char *wanted = getenv("SEED");

    fixture_open(&fixture);
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    segment = fixture.segment;
    seed = wanted != NULL ? strtoull(wanted, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1u;
}
static void end(void)
{
    fixture_close(&fixture);
}
TestSuite(hostile, .init = begin, .fini = end, .timeout = 60);

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void read_records(uint64_t *random)
{
    struct record_key key = {.fingerprint = {random_next(random), random_next(random)}};
    struct record_origin origin = origin_of((uint32_t)random_next(random));
    uint32_t now_s = (uint32_t)random_next(random), evicted = 0, index = (uint32_t)random_next(random);
    struct record_ref ref = {0};
    struct record_view view;

    if (random_next(random) % 2 == 0)
        key = key_in_bucket(segment, (uint32_t)(random_next(random) % segment->bucket_count), 1);
    if (record_claim(segment, (uint32_t)random_next(random), &key, (uint32_t)random_next(random) % 2000, &origin, now_s,
                     random_next(random) % 2, &ref, &evicted) != RECORD_FULL)
        cr_assert_lt(ref.index, record_capacity(segment));
    if (record_find(segment, &key, &ref)) {
        cr_assert_lt(ref.index, record_capacity(segment));
        record_expired(segment, &ref, now_s);
        record_touch(segment, &ref, now_s);
        record_prove(segment, &ref);
        record_move(segment, &ref, now_s, now_s);
        record_set_timeout(segment, &ref, now_s);
        record_delete(segment, &ref);
    }
    ref = (struct record_ref){.index = index, .value = random_next(random)};
    record_value(segment, index);
    record_read(segment, index, &view);
    record_read(segment, index % record_capacity(segment), &view);
    record_touch(segment, &ref, now_s);
    record_delete(segment, &ref);
    record_expired(segment, &ref, now_s);
    record_set_timeout(segment, &ref, now_s);
}

static void read_tables(uint64_t *random)
{
    uint32_t number = (uint32_t)random_next(random), index;
    struct hp_endpoint client = endpoint_of(1, 1);
    struct session_row copy;

    session_read(&segment->rows[number % (segment->lane_count * segment->rows_per_lane)], &copy);
    session_partition(segment, number);
    process_alive(segment, number, number);
    process_end(segment, number % SEGMENT_PROCESSES);
    index = process_begin(segment, PROCESS_WORKER, number);
    cr_assert(index < SEGMENT_PROCESSES || index == SEGMENT_NO_INDEX);
    counter_total(segment, (enum counter)(number % COUNTER_COUNT));
    drop_read(segment, random_next(random), &client);
    drop_read(segment, drop_post(segment, &client), &client);
    index = server_assign(segment, "vpn1", &client);
    cr_assert(index < SEGMENT_SERVERS || index == SEGMENT_NO_INDEX);
    server_set_state(segment, index, SERVER_DRAIN, true);
    server_set_down(segment, index, number % 32, true);
    index = server_probe_assign(segment, index, 17, (uint16_t)number);
    cr_assert(index < SEGMENT_PROBES || index == SEGMENT_NO_INDEX);
    index = service_assign(segment, "ike");
    cr_assert(index < SEGMENT_SERVICES || index == SEGMENT_NO_INDEX);
    index = profile_assign(segment, "kemp");
    cr_assert(index < SEGMENT_PROFILES || index == SEGMENT_NO_INDEX);
    index = pool_assign(segment, "rras");
    cr_assert(index < SEGMENT_POOLS || index == SEGMENT_NO_INDEX);
}

static uint8_t *octets_of_body(size_t *size)
{
    *size = segment->size - 4096;
    return (uint8_t *)(void *)segment->header + 4096;
}

Test(hostile, bytes_everywhere_lead_nobody_astray)
{
    size_t size;
    uint8_t *body = octets_of_body(&size);
    uint64_t random = seed;

    printf("# SEED=%llu\n", (unsigned long long)seed);
    for (uint32_t round = 0; round < 40; round++) {
        for (size_t i = 0; i < size; i++) /* all random; or mostly ones; or mostly zeroes */
            body[i] = (uint8_t)(round % 3 == 0   ? random_next(&random)
                                : round % 3 == 1 ? random_next(&random) | random_next(&random)
                                                 : random_next(&random) & random_next(&random));
        for (uint32_t i = 0; i < 300; i++)
            read_records(&random);
        for (uint32_t i = 0; i < 10; i++)
            read_tables(&random);
    }
}

static atomic_bool stop;

static void *flip(void *unused)
{
    size_t size;
    uint8_t *body = octets_of_body(&size);
    uint64_t random = seed + 1;

    while (!atomic_load(&stop)) {
        uint64_t at = random_next(&random);

        __atomic_xor_fetch(&body[at % size], (uint8_t)(1u << (at >> 40) % 8), __ATOMIC_RELAXED);
    }
    return unused;
}

Test(hostile, flips_while_everybody_reads_lead_nobody_astray)
{
    struct timespec start, now;
    uint64_t random = seed;
    pthread_t hostile;

    printf("# SEED=%llu\n", (unsigned long long)seed);
    cr_assert_eq(pthread_create(&hostile, NULL, flip, NULL), 0);
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (uint32_t i = 0; i < 200; i++)
            read_records(&random);
        read_tables(&random);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < 2);
    atomic_store(&stop, true);
    pthread_join(hostile, NULL);
}

static void *spin_heads(void *unused)
{
    while (!atomic_load(&stop)) {
        for (uint32_t i = 0; i < segment->bucket_count; i++)
            atomic_fetch_add_explicit(&segment->buckets[i].head, 1ull << 16, memory_order_relaxed);
    }
    return unused;
}

/* One that changes every head without end spoils every look; nobody may hang for it. */
Test(hostile, heads_that_never_stand_still_keep_nobody_for_long)
{
    uint64_t random = seed;
    pthread_t hostile;

    cr_assert_eq(pthread_create(&hostile, NULL, spin_heads, NULL), 0);
    for (uint32_t i = 0; i < 300; i++)
        read_records(&random);
    atomic_store(&stop, true);
    pthread_join(hostile, NULL);
}

Test(hostile, head_that_claims_everything_occupied_by_the_dead_ends_in_an_answer)
{
    struct record_key key = key_in_bucket(segment, 0, 1);
    struct record_origin origin = origin_of(180);
    struct record_ref ref;
    uint32_t evicted;

    atomic_store(&segment->buckets[0].head, UINT64_MAX);
    for (uint32_t i = 0; i < RECORD_SLOTS; i++)
        atomic_store(&segment->buckets[0].slots[i].value, UINT64_MAX);
    cr_assert_eq(record_claim(segment, 1, &key, 3, &origin, 1, true, &ref, &evicted), RECORD_CREATED);
    cr_assert(record_find(segment, &key, &ref));
}
