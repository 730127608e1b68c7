/* SPDX-License-Identifier: Apache-2.0 */
/* Own addresses towards servers: slots, counts, "refuses clients", and which one a record's client comes from. */
#include "base/clock.h"
#include "fixture.h"
#include "segment/source.h"
#include <criterion/criterion.h>
#include <pthread.h>

#define SERVER 7u
#define CHOOSERS 4u

static struct fixture fixture;
static struct segment *segment;
static uint32_t worker;

static void begin(void)
{
    fixture_open(&fixture);
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    segment = fixture.segment;
    worker = process_begin(segment, PROCESS_WORKER, 0);
}

static void end(void)
{
    fixture_close(&fixture);
}

TestSuite(source, .init = begin, .fini = end, .timeout = 60);

static uint32_t assign(uint8_t last, const struct hp_endpoint *kept, size_t count)
{
    struct hp_endpoint own = endpoint_of(last, 500);

    return source_assign(segment, &own, kept, count);
}

Test(source, is_found_again_by_its_address)
{
    struct hp_endpoint own = endpoint_of(50, 0), other = endpoint_of(51, 0), six = {.family = 6, .address = {0xfd}};

    cr_assert_eq(source_find(segment, &own), SOURCE_ROUTE);
    cr_assert_eq(assign(50, NULL, 0), 1);
    cr_assert_eq(assign(50, NULL, 0), 1);
    cr_assert_eq(source_find(segment, &own), 1);
    cr_assert_eq(source_find(segment, &other), SOURCE_ROUTE);
    cr_assert(source_usable(segment, 1, 4));
    cr_assert_not(source_usable(segment, 1, 6), "an IPv6 server is not reached from IPv4");
    cr_assert(source_usable(segment, SOURCE_ROUTE, 6));
    cr_assert_not(source_usable(segment, 2, 4), "a free slot");
    cr_assert_eq(source_assign(segment, &six, NULL, 0), 2);
    cr_assert(source_usable(segment, 2, 6));
}

Test(source, slots_of_addresses_that_nobody_uses_are_given_away_when_all_are_taken)
{
    struct hp_endpoint kept = endpoint_of(1, 0);

    for (uint8_t i = 1; i < SEGMENT_SOURCES; i++) {
        cr_assert_eq(assign(i, NULL, 0), i);
        atomic_store(&segment->sources[i].used, 1);
    }
    cr_assert_eq(assign(100, &kept, 1), SEGMENT_NO_INDEX, "each has a client");
    atomic_store(&segment->sources[1].used, 0);
    cr_assert_eq(assign(100, &kept, 1), SEGMENT_NO_INDEX, "a configuration names it");
    atomic_store(&segment->sources[9].used, 0);
    atomic_store(&segment->sources[9].absent, 1);
    atomic_store(&source_load(segment, SERVER, 9)->clients, 3);
    cr_assert_eq(assign(100, &kept, 1), 9);
    cr_assert(source_usable(segment, 9, 4), "nothing of the address before stays");
    cr_assert_eq(atomic_load(&source_load(segment, SERVER, 9)->clients), 0);
}

Test(source, absent_is_not_usable_and_says_once_that_it_is_new)
{
    assign(50, NULL, 0);
    cr_assert(source_set_absent(segment, 1, true));
    cr_assert_not(source_set_absent(segment, 1, true));
    cr_assert_not(source_usable(segment, 1, 4));
    cr_assert(source_set_absent(segment, 1, false));
    cr_assert(source_usable(segment, 1, 4));
    cr_assert_not(source_set_absent(segment, SOURCE_ROUTE, true), "the route's choice is always here");
}

Test(source, counts_what_came_since_the_recount_and_one_worker_at_a_time)
{
    uint32_t seen, at_begin;

    cr_assert_eq(source_unproven(segment, SERVER, 1, &seen), 0);
    cr_assert(source_count(segment, SERVER, 1, seen));
    cr_assert_not(source_count(segment, SERVER, 1, seen), "another has counted since: to be chosen anew");
    cr_assert_eq(source_unproven(segment, SERVER, 1, &at_begin), 1);
    cr_assert(source_count(segment, SERVER, 1, at_begin)); /* while the tables are walked */
    source_publish(segment, SERVER, 1, 5, 3, at_begin);
    cr_assert_eq(source_unproven(segment, SERVER, 1, &seen), 4, "three counted, one that came meanwhile");
    source_publish(segment, SERVER, 1, 5, 4, seen);
    cr_assert_eq(source_unproven(segment, SERVER, 1, &seen), 4);
    cr_assert_eq(source_unproven(segment, SERVER, 2, &seen), 0);
}

static void answers(uint32_t count, bool answered, uint64_t now_ms)
{
    for (uint32_t i = 0; i < count; i++)
        source_answer(segment, SERVER, 1, answered, now_ms);
}

Test(source, refuses_from_half_of_the_last_sixteen_on)
{
    uint64_t now_ms = clock_now_ms();
    uint32_t unanswered;

    answers(7, false, now_ms);
    cr_assert_eq(source_refuses_ms(segment, SERVER, 1, NULL), 0);
    answers(16, true, now_ms);
    answers(7, false, now_ms);
    cr_assert_eq(source_refuses_ms(segment, SERVER, 1, &unanswered), 0, "seven of the last sixteen");
    cr_assert_eq(unanswered, 7);
    answers(1, false, now_ms);
    cr_assert_gt(source_refuses_ms(segment, SERVER, 1, &unanswered), 29000);
    cr_assert_leq(source_refuses_ms(segment, SERVER, 1, NULL), 30000);
    cr_assert_eq(unanswered, 8);
    cr_assert_eq(source_refuses_ms(segment, SERVER, 2, NULL), 0, "from another address it does not");
    cr_assert_eq(source_refuses_ms(segment, SERVER + 1, 1, NULL), 0);
}

Test(source, refuses_for_thirty_seconds_whatever_comes_and_is_counted_anew)
{
    uint64_t now_ms = clock_now_ms(), then_ms = now_ms - 31000;

    answers(8, false, then_ms);
    answers(16, true, then_ms + 29000);
    answers(16, false, then_ms + 29000);
    cr_assert_eq(source_refuses_ms(segment, SERVER, 1, NULL), 0, "it was for thirty seconds");
    answers(7, false, now_ms);
    cr_assert_eq(source_refuses_ms(segment, SERVER, 1, NULL), 0, "what was before does not count");
    answers(1, false, now_ms);
    cr_assert_gt(source_refuses_ms(segment, SERVER, 1, NULL), 0);
}

Test(source, a_server_that_is_up_again_refuses_nobody)
{
    struct hp_endpoint address = endpoint_of(9, 0);
    uint32_t server = server_assign(segment, "vpn1", &address), probe = server_probe_assign(segment, server, 17, 500);

    for (uint32_t i = 0; i < 8; i++)
        source_answer(segment, server, 1, false, clock_now_ms());
    server_set_down(segment, server, probe, false);
    cr_assert_gt(source_refuses_ms(segment, server, 1, NULL), 0, "it was up all the time");
    server_set_down(segment, server, probe, true);
    server_set_down(segment, server, probe, false);
    cr_assert_eq(source_refuses_ms(segment, server, 1, NULL), 0);
}

static struct record_ref record_make(uint32_t number)
{
    struct record_key key = key_in_bucket(segment, 0, number);

    return claim(segment, worker, &key, SERVER, 100);
}

Test(source, of_a_record_is_chosen_once_for_each_decision)
{
    struct record_ref ref = record_make(1);
    struct record_source seen, late;

    cr_assert(record_source(segment, ref.index, RECORD_DECISION(ref.value), &seen));
    cr_assert_not(seen.chosen);
    late = seen;
    cr_assert(record_source_choose(segment, ref.index, RECORD_DECISION(ref.value), &seen, 5));
    cr_assert_not(record_source_choose(segment, ref.index, RECORD_DECISION(ref.value), &late, 6));
    cr_assert(record_source(segment, ref.index, RECORD_DECISION(ref.value), &seen));
    cr_assert(seen.chosen && seen.source == 5);
    record_source_offer(segment, ref.index, RECORD_DECISION(ref.value), 6);
    cr_assert(record_prove(segment, &ref) && record_touch(segment, &ref, 120));
    cr_assert(record_source(segment, ref.index, RECORD_DECISION(ref.value), &seen));
    cr_assert(seen.chosen && seen.source == 5, "neither an offer nor a use changes it");
}

Test(source, of_a_record_that_moves_or_is_made_anew_is_to_be_chosen)
{
    struct record_ref ref = record_make(1), old = ref;
    struct record_source seen;

    record_source_offer(segment, ref.index, RECORD_DECISION(ref.value), 5);
    cr_assert(record_move(segment, &ref, SERVER + 1, 101));
    cr_assert(record_source(segment, ref.index, RECORD_DECISION(ref.value), &seen) && !seen.chosen);
    cr_assert_not(record_source(segment, old.index, RECORD_DECISION(old.value), &seen), "a decision of the past");
    record_source_offer(segment, old.index, RECORD_DECISION(old.value), 9);
    record_source_offer(segment, ref.index, RECORD_DECISION(ref.value), 6);
    cr_assert(record_source(segment, ref.index, RECORD_DECISION(ref.value), &seen));
    cr_assert(seen.chosen && seen.source == 6, "whoever comes late with the old decision changes nothing");
    cr_assert(record_delete(segment, &ref));
    ref = record_make(1);
    cr_assert(record_source(segment, ref.index, RECORD_DECISION(ref.value), &seen) && !seen.chosen);
}

struct chooser {
    pthread_t thread;
    const struct record_ref *refs;
    uint32_t count, number;
    uint8_t chosen[RECORD_SLOTS];
};

static void *choose_all(void *arg)
{
    struct chooser *self = arg;

    for (uint32_t i = 0; i < self->count; i++) {
        struct record_source seen;
        uint64_t watch = RECORD_DECISION(self->refs[i].value);

        record_source_offer(segment, self->refs[i].index, watch, self->number + 1);
        if (record_source(segment, self->refs[i].index, watch, &seen) && seen.chosen)
            self->chosen[i] = (uint8_t)seen.source;
    }
    return NULL;
}

Test(source, of_a_record_is_one_for_all_who_choose_at_once)
{
    struct record_ref refs[RECORD_SLOTS];
    struct chooser choosers[CHOOSERS];

    for (uint32_t round = 0; round < 500; round++) {
        for (uint32_t i = 0; i < RECORD_SLOTS; i++)
            refs[i] = record_make(i);
        for (uint32_t i = 0; i < CHOOSERS; i++) {
            choosers[i] = (struct chooser){.refs = refs, .count = RECORD_SLOTS, .number = i};
            cr_assert_eq(pthread_create(&choosers[i].thread, NULL, choose_all, &choosers[i]), 0);
        }
        for (uint32_t i = 0; i < CHOOSERS; i++)
            pthread_join(choosers[i].thread, NULL);
        for (uint32_t i = 0; i < RECORD_SLOTS; i++) {
            cr_assert_neq(choosers[0].chosen[i], 0);
            for (uint32_t j = 1; j < CHOOSERS; j++)
                cr_assert_eq(choosers[j].chosen[i], choosers[0].chosen[i], "round %u, record %u", round, i);
            cr_assert(record_delete(segment, &refs[i]));
        }
    }
}
