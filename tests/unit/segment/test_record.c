/* SPDX-License-Identifier: Apache-2.0 */
/* Records: one process's view of each promise. What happens between processes: record_steps, record_storm. */
#include "base/endpoint.h"
#include "fixture.h"
#include <criterion/criterion.h>
#include <string.h>

static struct fixture fixture;
static struct segment *segment;
static uint32_t self;

static void begin(void)
{
    fixture_open(&fixture);
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    segment = fixture.segment;
    self = process_begin(segment, PROCESS_WORKER, 0);
}
static void end(void)
{
    fixture_close(&fixture);
}
TestSuite(record, .init = begin, .fini = end);
TestSuite(record_key, .init = begin, .fini = end);
TestSuite(eviction, .init = begin, .fini = end);

static uint32_t evicted;

/* Claims the key with this number in bucket 0. */
static enum record_result claim_number(uint32_t number, uint32_t server, uint32_t timeout_s, uint32_t now_s, bool evict,
                                       struct record_ref *ref)
{
    struct record_key key = key_in_bucket(segment, 0, number);
    struct record_origin origin = origin_of(timeout_s);

    return record_claim(segment, self, &key, server, &origin, now_s, evict, ref, &evicted);
}

static bool has(uint32_t number)
{
    struct record_key key = key_in_bucket(segment, 0, number);
    struct record_ref ref;

    return record_find(segment, &key, &ref);
}

Test(record, claim_makes_it_once_and_then_finds_it)
{
    struct record_ref first, second;

    cr_assert_not(has(1));
    cr_assert_eq(claim_number(1, 11, 180, 1000, true, &first), RECORD_CREATED);
    cr_assert_eq(claim_number(1, 22, 180, 1001, true, &second), RECORD_FOUND);
    cr_assert_eq(second.index, first.index);
    cr_assert_eq(second.value, first.value);
    cr_assert_eq(RECORD_SERVER(second.value), 11);
    cr_assert_eq(RECORD_LAST_USE(second.value), 1000, "a claim alone does not extend it");
    cr_assert_not(RECORD_PROVEN(second.value));
    cr_assert_eq(record_value(segment, first.index), first.value);
    cr_assert_eq(evicted, 0);
}

Test(record, holds_the_extremes_of_every_part_of_its_value)
{
    static const uint32_t servers[] = {0, 1, SEGMENT_SERVERS - 1};
    static const uint32_t times[] = {0, 1, 0x1fffffe, 0x1ffffff, 0x2000000, UINT32_MAX};
    uint32_t number = 0;

    for (size_t s = 0; s < 3; s++) {
        for (size_t t = 0; t < sizeof times / sizeof *times; t++) {
            struct record_ref ref;

            cr_assert_eq(claim_number(++number, servers[s], 0, times[t], true, &ref), RECORD_CREATED);
            cr_assert_eq(RECORD_SERVER(ref.value), servers[s]);
            cr_assert_eq(RECORD_LAST_USE(ref.value), times[t] & 0x1ffffff);
            cr_assert_eq(RECORD_PROVEN(ref.value), 0);
            cr_assert(record_prove(segment, &ref));
            cr_assert_eq(RECORD_PROVEN(ref.value), 1);
            cr_assert_eq(RECORD_SERVER(ref.value), servers[s]);
            cr_assert_eq(RECORD_LAST_USE(ref.value), times[t] & 0x1ffffff);
            cr_assert(record_delete(segment, &ref));
        }
    }
}

Test(record, generation_wraps_within_its_26_bits)
{
    struct record_ref ref;

    atomic_store(&segment->buckets[0].slots[0].value, 0x3ffffffull << 38 | (uint64_t)RECORD_DEAD << 26);
    cr_assert_eq(claim_number(1, SEGMENT_SERVERS - 1, 180, UINT32_MAX, true, &ref), RECORD_CREATED);
    cr_assert_eq(ref.index, 0);
    cr_assert_eq(RECORD_GENERATION(ref.value), 0);
    cr_assert_eq(RECORD_SERVER(ref.value), SEGMENT_SERVERS - 1);
    cr_assert(has(1));
}

Test(record, server_that_no_record_can_name_makes_none)
{
    struct record_ref ref;

    cr_assert_eq(claim_number(1, SEGMENT_SERVERS, 180, 1, true, &ref), RECORD_FULL);
    cr_assert_eq(claim_number(1, RECORD_DEAD, 180, 1, true, &ref), RECORD_FULL);
    cr_assert_eq(claim_number(1, SEGMENT_NO_INDEX, 180, 1, true, &ref), RECORD_FULL);
    cr_assert_eq(claim_number(1, 3, 180, 1, true, &ref), RECORD_CREATED);
    cr_assert_eq(claim_number(1, SEGMENT_NO_INDEX, 180, 1, true, &ref), RECORD_FOUND);
    cr_assert_not(record_move(segment, &ref, RECORD_DEAD, 1));
    cr_assert_not(record_move(segment, &ref, SEGMENT_SERVERS, 1));
    cr_assert_eq(RECORD_SERVER(record_value(segment, ref.index)), 3);
}

Test(record, move_keeps_the_proven_bit_and_changes_the_decision)
{
    struct record_ref ref;
    uint64_t watch;

    claim_number(1, 3, 180, 1000, true, &ref);
    watch = RECORD_DECISION(ref.value);
    cr_assert(record_prove(segment, &ref));
    cr_assert_eq(RECORD_DECISION(ref.value), watch, "proving decides nothing");
    cr_assert(record_move(segment, &ref, 4, 1500));
    cr_assert_eq(RECORD_SERVER(ref.value), 4);
    cr_assert_eq(RECORD_PROVEN(ref.value), 1);
    cr_assert_eq(RECORD_LAST_USE(ref.value), 1500);
    cr_assert_neq(RECORD_DECISION(record_value(segment, ref.index)), watch);
}

Test(record, touch_writes_once_a_second_and_never_back_in_time)
{
    struct record_ref ref, stale;

    claim_number(1, 3, 180, 1000, true, &ref);
    stale = ref;
    cr_assert(record_move(segment, &ref, 4, 1000));
    cr_assert(record_touch(segment, &stale, 1000), "no look at the record within its second, so no failure either");
    cr_assert_eq(RECORD_SERVER(stale.value), 3);
    cr_assert_not(record_touch(segment, &stale, 1001), "it has moved");
    cr_assert_eq(stale.value, ref.value, "and tells where to");
    cr_assert(record_touch(segment, &stale, 1001));
    cr_assert_eq(RECORD_LAST_USE(stale.value), 1001);
    cr_assert(record_touch(segment, &stale, 990), "a clock reading of a moment ago");
    cr_assert_eq(RECORD_LAST_USE(record_value(segment, stale.index)), 1001);
    cr_assert_eq(RECORD_SERVER(stale.value), 4);
}

Test(record, changes_fail_from_a_value_that_is_not_the_present_one)
{
    struct record_ref ref, stale;

    claim_number(1, 3, 180, 1000, true, &ref);
    stale = ref;
    cr_assert(record_touch(segment, &ref, 1001));
    cr_assert_not(record_move(segment, &stale, 9, 1001));
    cr_assert_eq(stale.value, ref.value);
    stale.value ^= 1;
    cr_assert_not(record_delete(segment, &stale));
    cr_assert_eq(stale.value, ref.value);
    cr_assert_not(record_prove(segment, &(struct record_ref){stale.index, stale.value ^ 1}));
    cr_assert(has(1));
}

Test(record, deleted_is_gone_and_stays_dead_whatever_its_old_references_try)
{
    struct record_ref ref, stale;

    claim_number(1, 3, 180, 1000, true, &ref);
    stale = ref;
    cr_assert(record_delete(segment, &ref));
    cr_assert_not(has(1));
    cr_assert_eq(RECORD_SERVER(record_value(segment, ref.index)), RECORD_DEAD);
    cr_assert_not(record_touch(segment, &stale, 1001));
    cr_assert_eq(RECORD_SERVER(stale.value), RECORD_DEAD);
    for (int i = 0; i < 2; i++) { /* from the dead value itself */
        cr_assert_not(record_touch(segment, &stale, 1001));
        cr_assert_not(record_touch(segment, &stale, 0));
        cr_assert_not(record_move(segment, &stale, 5, 1001));
        cr_assert_not(record_prove(segment, &stale));
        cr_assert_not(record_delete(segment, &stale));
    }
    cr_assert_not(has(1));
}

Test(record, reference_to_the_one_before_in_the_slot_changes_nothing)
{
    struct record_ref first, second;

    claim_number(1, 3, 180, 1000, true, &first);
    second = first;
    cr_assert(record_delete(segment, &second));
    cr_assert_eq(claim_number(2, 3, 180, 1000, true, &second), RECORD_CREATED);
    cr_assert_eq(second.index, first.index, "this test wants the same slot");
    cr_assert_neq(RECORD_DECISION(second.value), RECORD_DECISION(first.value), "same server, another generation");
    record_set_timeout(segment, &first, 7);
    cr_assert_not(record_delete(segment, &first));
    cr_assert(has(2));
    cr_assert_eq(atomic_load(&segment->buckets[0].slots[0].timeout_s), 180);
}

Test(record, age_counts_over_the_wrap_of_its_25_bits)
{
    struct record_ref ref;

    claim_number(1, 3, 180, 0x1fffff0, true, &ref);
    cr_assert_eq(record_age_s(ref.value, 0x2000010), 32);
    cr_assert_not(record_expired(segment, &ref, 0x1fffff0 + 180));
    cr_assert(record_expired(segment, &ref, 0x1fffff0 + 181));
    cr_assert_eq(record_age_s(ref.value, 0x1ffffe0), 0, "used in the future is used now");
    cr_assert_not(record_expired(segment, &ref, 0x1ffffe0));
    cr_assert_eq(record_age_s(ref.value, 0x1fffff0 + 0xffffff), 0xffffff, "half a year");
    cr_assert(record_touch(segment, &ref, 0x2000010));
    cr_assert_eq(RECORD_LAST_USE(ref.value), 0x10);
    cr_assert_eq(record_age_s(ref.value, 0x2000011), 1);
}

Test(record, never_expires_without_a_timeout)
{
    struct record_ref ref;

    claim_number(1, 3, UINT32_MAX, 1000, true, &ref);
    cr_assert_not(record_expired(segment, &ref, 1000 + 0xfffff0));
    record_set_timeout(segment, &ref, 5);
    cr_assert_not(record_expired(segment, &ref, 1005));
    cr_assert(record_expired(segment, &ref, 1006));
}

Test(record, expired_is_still_found)
{
    struct record_ref ref;

    claim_number(1, 3, 10, 1000, true, &ref);
    cr_assert_eq(claim_number(1, 4, 10, 9000, true, &ref), RECORD_FOUND);
    cr_assert(record_expired(segment, &ref, 9000));
    cr_assert_eq(RECORD_SERVER(ref.value), 3);
}

Test(record, read_gives_all_that_was_written_beside_it)
{
    struct record_origin origin = origin_of(77);
    struct record_key key = key_in_bucket(segment, 9, 1);
    struct record_view view;
    struct record_ref ref;
    char text[ENDPOINT_TEXT];

    record_claim(segment, self, &key, 3, &origin, 1000, true, &ref, &evicted);
    cr_assert_geq(ref.index, 9 * RECORD_SLOTS);
    cr_assert(record_read(segment, ref.index, &view));
    cr_assert_eq(view.ref.value, ref.value);
    cr_assert_eq(view.ref.index, ref.index);
    cr_assert_eq(view.timeout_s, 77);
    cr_assert_eq(view.created_s, 1000);
    cr_assert_eq(view.profile, 0x55667788);
    cr_assert_eq(view.service, 0xeeff00u | 0xdd000000u);
    cr_assert_str_eq(endpoint_format(&view.client, text), "192.0.2.7");
    cr_assert(endpoint_parse(&origin.client, "2001:db8::7"));
    key = key_in_bucket(segment, 9, 2);
    record_claim(segment, self, &key, 3, &origin, 1000, true, &ref, &evicted);
    cr_assert(record_read(segment, ref.index, &view));
    cr_assert_str_eq(endpoint_format(&view.client, text), "2001:db8::7");
}

Test(record, read_and_value_answer_for_any_index)
{
    struct record_view view;

    cr_assert_eq(record_capacity(segment), 160);
    for (uint32_t i = 0; i < record_capacity(segment); i++)
        cr_assert_not(record_read(segment, i, &view));
    cr_assert_not(record_read(segment, 160, &view));
    cr_assert_not(record_read(segment, SEGMENT_NO_INDEX, &view));
    cr_assert_eq(RECORD_SERVER(record_value(segment, 160)), RECORD_DEAD);
    cr_assert_eq(RECORD_SERVER(record_value(segment, SEGMENT_NO_INDEX)), RECORD_DEAD);
    cr_assert_not(record_delete(segment, &(struct record_ref){160, 0}));
}

Test(record, reservation_of_a_dead_process_is_free_and_one_of_a_living_is_not)
{
    uint32_t other = process_begin(segment, PROCESS_WORKER, 1);
    uint64_t reserve = (uint64_t)other << 32 | atomic_load(&segment->processes[other].generation);
    struct record_ref ref;

    for (uint32_t i = 0; i < RECORD_SLOTS - 1; i++)
        atomic_store(&segment->buckets[0].slots[i].reserve, reserve);
    cr_assert_eq(claim_number(1, 3, 180, 1, true, &ref), RECORD_CREATED);
    cr_assert_eq(ref.index, RECORD_SLOTS - 1);
    cr_assert(record_prove(segment, &ref));
    cr_assert_eq(claim_number(2, 3, 180, 1, true, &ref), RECORD_FULL, "nobody waits for a stopped one");
    process_end(segment, other);
    for (uint32_t i = 2; i <= RECORD_SLOTS; i++)
        cr_assert_eq(claim_number(i, 3, 180, 1, true, &ref), RECORD_CREATED);
    cr_assert_eq(evicted, 0);
    cr_assert_eq(bucket_duplicates(segment, 0), 0);
}

Test(record, reservation_that_names_no_process_is_free)
{
    struct record_ref ref;

    for (uint32_t i = 0; i < RECORD_SLOTS; i++)
        atomic_store(&segment->buckets[0].slots[i].reserve, UINT64_MAX - i);
    for (uint32_t i = 1; i <= RECORD_SLOTS; i++)
        cr_assert_eq(claim_number(i, 3, 180, 1, false, &ref), RECORD_CREATED);
}

/* Who killed it was killed itself before the bit was cleared. */
Test(record, slot_of_a_dead_one_is_cleared_by_the_next_who_needs_it)
{
    struct record_ref ref;

    for (uint32_t i = 1; i <= RECORD_SLOTS; i++)
        claim_number(i, 3, 180, 1, false, &ref);
    atomic_store(&segment->buckets[0].slots[4].value, 9ull << 38 | (uint64_t)RECORD_DEAD << 26);
    cr_assert_not(has(5));
    cr_assert_eq(claim_number(99, 3, 180, 1, false, &ref), RECORD_CREATED);
    cr_assert_eq(ref.index, 4);
    cr_assert_eq(RECORD_GENERATION(ref.value), 10);
}

Test(record_key, depends_on_profile_table_length_and_secret)
{
    static const uint8_t key[HP_KEY_MAX] = {1, 2, 3};
    struct record_key keys[6];

    record_key_make(&keys[0], segment, 7, 0, key, 4);
    record_key_make(&keys[1], segment, 8, 0, key, 4);
    record_key_make(&keys[2], segment, 7, 1, key, 4);
    record_key_make(&keys[3], segment, 7, 0, key, 5);
    record_key_make(&keys[4], segment, 7, 0, key, 0);
    segment->header->secret[3] ^= 1;
    record_key_make(&keys[5], segment, 7, 0, key, 4);
    for (int a = 0; a < 6; a++) {
        for (int b = 0; b < a; b++)
            cr_assert_neq(memcmp(&keys[a], &keys[b], sizeof keys[a]), 0, "%d and %d", a, b);
    }
    segment->header->secret[3] ^= 1;
    record_key_make(&keys[1], segment, 7, 0, key, 4);
    cr_assert_arr_eq(&keys[0], &keys[1], sizeof keys[0]);
}

Test(record_key, longer_than_a_key_can_be_is_not_read_beyond)
{
    uint8_t *key = calloc(1, HP_KEY_MAX); /* ASan watches its end */
    struct record_key made;

    record_key_make(&made, segment, 7, 0, key, HP_KEY_MAX);
    record_key_make(&made, segment, 7, 0, key, UINT32_MAX);
    record_key_make(&made, segment, 7, 0, NULL, 0);
    free(key);
}

/* Half as many buckets' room again as the capacity: what is configured fits without evicting. */
Test(record_key, spread_so_evenly_that_the_capacity_fits)
{
    uint32_t thrown_out = 0;

    fixture.shape.records = 10000;
    cr_assert_eq(fixture_segment(&fixture), 0);
    segment = fixture.segment;
    memset(segment->header->secret, 42, sizeof segment->header->secret);
    for (uint32_t i = 0; i < 10000; i++) {
        struct record_origin origin = origin_of(180);
        struct record_key key;
        struct record_ref ref;

        record_key_make(&key, segment, 7, 0, &i, sizeof i);
        cr_assert_neq(record_claim(segment, self, &key, 1, &origin, 1, true, &ref, &evicted), RECORD_FULL);
        thrown_out += evicted;
    }
    cr_assert_leq(thrown_out, 10);
}

/* Fills bucket 0 with keys 1..16, made at second 1000 + number. */
static void fill(uint32_t timeout_s)
{
    struct record_ref ref;

    for (uint32_t i = 1; i <= RECORD_SLOTS; i++)
        cr_assert_eq(claim_number(i, 3, timeout_s, 1000 + i, true, &ref), RECORD_CREATED);
}

static struct record_ref find(uint32_t number)
{
    struct record_key key = key_in_bucket(segment, 0, number);
    struct record_ref ref = {0};

    cr_assert(record_find(segment, &key, &ref), "key %u", number);
    return ref;
}

static void touch(uint32_t number, uint32_t now_s)
{
    struct record_ref ref = find(number);

    cr_assert(record_touch(segment, &ref, now_s));
}

static void prove(uint32_t number)
{
    struct record_ref ref = find(number);

    cr_assert(record_prove(segment, &ref));
}

/* Claims a new key and says which of 1..16 went. */
static uint32_t push(uint32_t number, uint32_t now_s)
{
    bool before[RECORD_SLOTS + 1], gone;
    struct record_ref ref;
    uint32_t which = 0;

    for (uint32_t i = 1; i <= RECORD_SLOTS; i++)
        before[i] = has(i);
    cr_assert_eq(claim_number(number, 3, UINT32_MAX, now_s, true, &ref), RECORD_CREATED);
    cr_assert_eq(evicted, 1);
    prove(number); /* keeps it from being the next to go */
    for (uint32_t i = 1; i <= RECORD_SLOTS; i++) {
        gone = before[i] && !has(i);
        which = gone ? i : which;
    }
    return which;
}

Test(eviction, takes_expired_then_never_used_then_unproven_oldest_first)
{
    struct record_ref ref;

    fill(10000);
    for (uint32_t i = 1; i <= 10; i++) /* 1..10 were used again, 10 longest ago */
        touch(i, 2000 - i);
    for (uint32_t i = 1; i <= 8; i++) /* 1..8 are proven */
        prove(i);
    ref = find(12);
    record_set_timeout(segment, &ref, 5); /* expired: 12 never used, 9 unproven, 3 proven */
    ref = find(9);
    record_set_timeout(segment, &ref, 5);
    ref = find(3);
    record_set_timeout(segment, &ref, 5);
    cr_assert_eq(push(100, 3000), 12);
    cr_assert_eq(push(101, 3000), 9, "9 was used at 1991");
    cr_assert_eq(push(102, 3000), 3, "3 was used at 1997; a proven one that has expired goes as well");
    cr_assert_eq(push(103, 3000), 11);
    cr_assert_eq(push(104, 3000), 13);
    cr_assert_eq(push(105, 3000), 14);
    cr_assert_eq(push(106, 3000), 15);
    cr_assert_eq(push(107, 3000), 16);
    cr_assert_eq(push(108, 3000), 10, "used again, but unproven");
    cr_assert_eq(claim_number(109, 3, 180, 3000, true, &ref), RECORD_FULL, "only proven ones left");
    cr_assert_eq(evicted, 0);
    for (uint32_t i = 1; i <= 8; i++)
        cr_assert_eq(has(i), i != 3);
}

Test(eviction, of_equals_takes_one)
{
    struct record_ref ref;

    for (uint32_t i = 1; i <= RECORD_SLOTS + 5; i++)
        cr_assert_eq(claim_number(i, 3, 180, 1000, true, &ref), RECORD_CREATED);
    cr_assert_eq(evicted, 1);
}

Test(eviction, never_happens_when_refused)
{
    struct record_ref ref;

    fill(10);
    cr_assert_eq(claim_number(99, 3, 180, 9000, false, &ref), RECORD_FULL);
    cr_assert_eq(evicted, 0);
    cr_assert_eq(claim_number(7, 3, 180, 9000, false, &ref), RECORD_FOUND);
    for (uint32_t i = 1; i <= RECORD_SLOTS; i++)
        cr_assert(has(i));
}

/* I5: the flood of a spoofer who never gets an answer. */
Test(eviction, by_10000_unproven_ones_takes_no_proven_one)
{
    struct record_ref ref;

    fill(100000);
    for (uint32_t i = 1; i <= 4; i++)
        prove(i);
    for (uint32_t i = 0; i < 10000; i++) {
        cr_assert_eq(claim_number(1000 + i, 4, 100000, 2000 + i / 100, true, &ref), RECORD_CREATED);
        for (uint32_t proven = 1; proven <= 4; proven++)
            cr_assert(has(proven), "client %u was thrown out by number %u", proven, i);
    }
    cr_assert_eq(bucket_duplicates(segment, 0), 0);
}

Test(eviction, over_the_wrap_of_the_clock_still_takes_the_oldest)
{
    struct record_ref ref;

    for (uint32_t i = 1; i <= RECORD_SLOTS; i++)
        cr_assert_eq(claim_number(i, 3, UINT32_MAX, 0x1fffff8 + i, true, &ref), RECORD_CREATED);
    cr_assert_eq(push(100, 0x2000100), 1);
    cr_assert_eq(push(101, 0x2000100), 2);
}
