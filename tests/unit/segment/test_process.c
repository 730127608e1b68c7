/* SPDX-License-Identifier: Apache-2.0 */
/* Process slots and counters. */
#include "fixture.h"
#include <criterion/criterion.h>
#include <string.h>

static struct fixture fixture;
static struct segment *segment;

static void begin(void)
{
    fixture_open(&fixture);
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    segment = fixture.segment;
}
static void end(void)
{
    fixture_close(&fixture);
}
TestSuite(process, .init = begin, .fini = end);

static uint32_t generation(uint32_t slot)
{
    return atomic_load(&segment->processes[slot].generation);
}

Test(process, master_always_has_slot_0)
{
    uint32_t first;

    cr_assert_eq(process_begin(segment, PROCESS_WORKER, 0), 1);
    cr_assert_eq(process_begin(segment, PROCESS_MASTER, 0), 0);
    first = generation(0);
    cr_assert_eq(process_begin(segment, PROCESS_MASTER, 0), 0, "one that was killed left it as it was");
    cr_assert_neq(generation(0), first);
}

Test(process, is_alive_until_its_end_and_never_again_under_its_generation)
{
    uint32_t slot = process_begin(segment, PROCESS_WORKER, 3), mine = generation(slot);

    cr_assert(process_alive(segment, slot, mine));
    cr_assert_eq(atomic_load(&segment->processes[slot].number), 3);
    process_end(segment, slot);
    cr_assert_not(process_alive(segment, slot, mine));
    cr_assert_not(process_alive(segment, slot, generation(slot)), "a free slot is nobody");
    cr_assert_eq(process_begin(segment, PROCESS_MONITOR, 0), slot);
    cr_assert_not(process_alive(segment, slot, mine));
    cr_assert(process_alive(segment, slot, generation(slot)));
}

Test(process, generation_is_never_0)
{
    uint32_t slot = process_begin(segment, PROCESS_WORKER, 0);

    atomic_store(&segment->processes[slot].generation, UINT32_MAX);
    process_end(segment, slot);
    cr_assert_eq(generation(slot), 1);
}

Test(process, table_full_gives_no_slot_until_one_ends)
{
    for (uint32_t i = 1; i < SEGMENT_PROCESSES; i++)
        cr_assert_eq(process_begin(segment, PROCESS_WORKER, i), i);
    cr_assert_eq(process_begin(segment, PROCESS_WORKER, 0), SEGMENT_NO_INDEX);
    cr_assert_eq(process_begin(segment, PROCESS_MASTER, 0), 0);
    process_end(segment, 100);
    cr_assert_eq(process_begin(segment, PROCESS_WORKER, 0), 100);
}

Test(process, counters_of_the_dead_are_kept_in_the_total)
{
    uint32_t a = process_begin(segment, PROCESS_WORKER, 0), b = process_begin(segment, PROCESS_WORKER, 1);

    counter_add(&segment->processes[a], COUNTER_decisions, 5);
    counter_add(&segment->processes[b], COUNTER_decisions, 7);
    counter_add(&segment->processes[a], COUNTER_probes_answered, 1);
    process_end(segment, a);
    cr_assert_eq(counter_total(segment, COUNTER_decisions), 12);
    cr_assert_eq(atomic_load(&segment->processes[0].counters[COUNTER_decisions]), 5);
    cr_assert_eq(process_begin(segment, PROCESS_WORKER, 0), a);
    cr_assert_eq(atomic_load(&segment->processes[a].counters[COUNTER_decisions]), 0, "a new process begins at 0");
    process_end(segment, a);
    process_end(segment, a);
    process_end(segment, b);
    process_begin(segment, PROCESS_MASTER, 0);
    cr_assert_eq(counter_total(segment, COUNTER_decisions), 12);
    cr_assert_eq(counter_total(segment, COUNTER_probes_answered), 1);
}

static uint64_t plugin_total(uint64_t identity)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < SEGMENT_PLUGIN_COUNTERS; i++) {
        const struct plugin_counter *counter = &segment->processes[0].plugin_counters[i];

        total += atomic_load(&counter->identity) == identity ? atomic_load(&counter->value) : 0;
    }
    return total;
}

Test(process, plugin_counters_of_the_dead_are_kept_by_identity)
{
    for (uint32_t life = 1; life <= 3; life++) {
        uint32_t slot = process_begin(segment, PROCESS_WORKER, 0);

        for (uint32_t i = 0; i < 10; i++) { /* each life has them in another order */
            struct plugin_counter *counter = &segment->processes[slot].plugin_counters[(i * 3 + life) % 10];

            atomic_store(&counter->identity, 1000 + i);
            atomic_store(&counter->value, i);
        }
        process_end(segment, slot);
    }
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(plugin_total(1000 + i), 3 * i);
}

Test(process, last_words_can_be_read_until_the_slot_is_given_again)
{
    uint32_t slot = process_begin(segment, PROCESS_WORKER, 0);

    strcpy(segment->processes[slot].last_words, "signal 11");
    process_end(segment, slot);
    cr_assert_str_eq(segment->processes[slot].last_words, "signal 11");
    cr_assert_eq(process_begin(segment, PROCESS_WORKER, 0), slot);
    cr_assert_str_empty(segment->processes[slot].last_words);
}

Test(process, end_frees_its_own_lanes_alone)
{
    uint32_t a = process_begin(segment, PROCESS_WORKER, 0), b = process_begin(segment, PROCESS_WORKER, 1);

    atomic_store(&segment->lanes[0].holder, a);
    atomic_store(&segment->lanes[1].holder, b);
    process_end(segment, a);
    cr_assert_eq(atomic_load(&segment->lanes[0].holder), SEGMENT_NO_INDEX);
    cr_assert_eq(atomic_load(&segment->lanes[1].holder), b);
}

Test(process, indices_from_a_hostile_hand_are_checked)
{
    process_end(segment, SEGMENT_PROCESSES);
    process_end(segment, SEGMENT_NO_INDEX);
    cr_assert_not(process_alive(segment, SEGMENT_PROCESSES, 0));
    cr_assert_not(process_alive(segment, SEGMENT_NO_INDEX, 0));
    cr_assert_eq(counter_total(segment, COUNTER_COUNT), 0);
}

Test(process, every_counter_has_a_name_of_its_own_and_a_sentence)
{
    for (int i = 0; i < COUNTER_COUNT; i++) {
        cr_assert_gt(strlen(counter_help((enum counter)i)), 5);
        for (int j = 0; j < i; j++)
            cr_assert_str_neq(counter_name((enum counter)i), counter_name((enum counter)j));
    }
    cr_assert_str_eq(counter_name(COUNTER_datagrams_from_clients), "datagrams_from_clients");
    cr_assert_str_eq(counter_name(COUNTER_COUNT), "unknown");
    cr_assert_str_eq(counter_help((enum counter) - 1), "");
}
