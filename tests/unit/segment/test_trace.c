/* SPDX-License-Identifier: Apache-2.0 */
/* Following clients: who is followed and for how long, and the ring of what was seen of them. */
#include "fixture.h"
#include "segment/trace.h"
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

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
TestSuite(trace, .init = begin, .fini = end, .timeout = 60);

static bool follow(uint8_t last, uint64_t now_ms)
{
    struct hp_endpoint client = endpoint_of(last, 500);

    return trace_follow(segment, &client, now_ms);
}

static bool wants(uint8_t last, uint16_t port, uint64_t now_ms)
{
    struct hp_endpoint client = endpoint_of(last, port);

    return trace_wants(segment, &client, now_ms);
}

static uint64_t post(uint32_t size)
{
    const struct trace_event event = {.kind = TRACE_PROVEN, .size = size};

    trace_post(segment, &event);
    return trace_last(segment);
}

Test(trace, a_new_segment_follows_nobody)
{
    cr_assert_not(trace_is_on(segment, 1000));
    cr_assert_not(wants(7, 500, 1000));
    cr_assert_eq(trace_last(segment), 0);
}

Test(trace, a_client_is_followed_on_every_port_until_its_time_is_over)
{
    cr_assert(follow(7, 1000));
    cr_assert(trace_is_on(segment, 1000 + TRACE_LEASE_MS - 1));
    cr_assert(wants(7, 4500, 1000));
    cr_assert_not(wants(8, 500, 1000));
    cr_assert(follow(7, 5000), "longer");
    cr_assert(wants(7, 500, 5000 + TRACE_LEASE_MS - 1));
    cr_assert_not(wants(7, 500, 5000 + TRACE_LEASE_MS));
    cr_assert_not(trace_is_on(segment, 5000 + TRACE_LEASE_MS));
}

Test(trace, workers_learn_that_another_client_is_followed)
{
    uint64_t before = trace_generation(segment);

    follow(7, 1000);
    cr_assert_eq(trace_generation(segment), before + 1);
    follow(7, 2000);
    cr_assert_eq(trace_generation(segment), before + 1, "it was followed already");
    follow(8, 2000);
    cr_assert_eq(trace_generation(segment), before + 2);
}

Test(trace, there_is_room_for_so_many_and_again_when_one_has_gone)
{
    struct hp_endpoint client = endpoint_of(3, 0);

    for (uint32_t i = 0; i < SEGMENT_TRACES; i++)
        cr_assert(follow((uint8_t)(1 + i), 1000));
    cr_assert_not(follow(100, 1000));
    cr_assert(follow(5, 1000), "one that is followed");
    trace_leave(segment, &client);
    cr_assert_not(wants(3, 500, 1000));
    cr_assert(follow(100, 1001));
    cr_assert(follow(101, 1001 + TRACE_LEASE_MS), "their time is over");
}

Test(trace, who_leaves_last_ends_it_for_all)
{
    struct hp_endpoint one = endpoint_of(7, 0), other = endpoint_of(8, 0);

    follow(7, 1000);
    follow(8, 1000);
    trace_leave(segment, &one);
    cr_assert(trace_is_on(segment, 1000));
    trace_leave(segment, &other);
    cr_assert_not(trace_is_on(segment, 1000));
    trace_leave(segment, &other);
}

Test(trace, what_was_posted_is_read_by_its_number)
{
    struct trace_event event;

    cr_assert_eq(trace_read(segment, 1, &event), TRACE_NOT_YET);
    for (uint32_t i = 1; i <= 100; i++)
        cr_assert_eq(post(i), i);
    for (uint32_t i = 1; i <= 100; i++) {
        cr_assert_eq(trace_read(segment, i, &event), TRACE_HERE);
        cr_assert_eq(event.size, i);
    }
    cr_assert_eq(trace_read(segment, 101, &event), TRACE_NOT_YET);
}

Test(trace, a_whole_ring_later_it_is_overwritten)
{
    struct trace_event event;

    for (uint32_t i = 1; i <= SEGMENT_TRACE_EVENTS + 1; i++)
        post(i);
    cr_assert_eq(trace_read(segment, 1, &event), TRACE_OVERWRITTEN);
    cr_assert_eq(trace_read(segment, 2, &event), TRACE_HERE);
    cr_assert_eq(event.size, 2);
}

Test(trace, a_long_reason_is_cut_and_one_without_an_end_is_ended)
{
    struct trace_event event = {.kind = TRACE_SESSION_ENDED};

    trace_text(&event, "a reason that is longer than there is room for in an event of the ring");
    cr_assert_eq(strlen(event.text), SEGMENT_TRACE_TEXT - 1);
    memset(event.text, 'x', sizeof event.text);
    trace_post(segment, &event);
    cr_assert_eq(trace_read(segment, 1, &event), TRACE_HERE);
    cr_assert_eq(strlen(event.text), SEGMENT_TRACE_TEXT - 1);
}

/* Several processes post at once; some are killed anywhere on the way. */
Test(trace, killed_writers_leave_holes_and_no_event_of_two)
{
    enum { WRITERS = 4, ROUNDS = 50 };

    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t first = trace_last(segment) + 1;
        pid_t pids[WRITERS];

        for (uint32_t i = 0; i < WRITERS; i++) {
            pids[i] = fork();
            cr_assert_geq(pids[i], 0);
            for (uint32_t n = 0; pids[i] == 0; n++) {
                struct trace_event event = {.size = n, .message_id = n, .bytes_to_client = n, .at_ms = n};
                trace_post(segment, &event);
            }
        }
        while (trace_last(segment) < first + 10)
            usleep(100);
        for (uint32_t i = 0; i < WRITERS; i++) {
            kill(pids[i], SIGKILL);
            cr_assert_eq(waitpid(pids[i], NULL, 0), pids[i]);
        }
        uint64_t last = trace_last(segment),
                 from = last - first >= SEGMENT_TRACE_EVENTS ? last - SEGMENT_TRACE_EVENTS + 1 : first;
        uint32_t holes = 0;
        for (uint64_t i = from; i <= last; i++) {
            struct trace_event event;
            enum trace_look look = trace_read(segment, i, &event);

            holes += look == TRACE_NOT_YET;
            if (look != TRACE_HERE)
                continue;
            cr_assert(event.size == event.message_id && event.size == event.bytes_to_client &&
                      event.size == event.at_ms);
        }
        cr_assert_leq(holes, WRITERS, "a hole for each of them at most");
    }
}

Test(trace, eviction_tells_who_has_lost_a_record)
{
    struct record_origin origin = origin_of(180);
    struct record_ref ref;
    struct trace_event event;
    uint32_t self = process_begin(segment, PROCESS_WORKER, 0), evicted = 0;

    cr_assert(trace_follow(segment, &origin.client, 1000 * 1000));
    for (uint32_t i = 0; i <= RECORD_SLOTS; i++) {
        struct record_key key = key_in_bucket(segment, 0, i);
        record_claim(segment, self, &key, i, &origin, 1000, true, &ref, &evicted);
    }
    cr_assert_eq(evicted, 1);
    cr_assert_eq(trace_read(segment, 1, &event), TRACE_HERE);
    cr_assert_eq(event.kind, TRACE_RECORD_EVICTED);
    cr_assert_lt(event.server, RECORD_SLOTS);
    cr_assert_eq(event.client.address[3], origin.client.address[3]);
    cr_assert_eq(trace_last(segment), 1);
}

Test(trace, every_kind_and_every_loss_has_a_name)
{
    for (uint32_t i = 0; i < TRACE_KIND_COUNT; i++)
        cr_assert_str_neq(trace_kind_name(i), "unknown");
    cr_assert_str_eq(trace_kind_name(TRACE_KIND_COUNT), "unknown");
    cr_assert_str_eq(trace_kind_name(UINT32_MAX), "unknown");
    for (int i = 0; i < LOSS_COUNT; i++) {
        const char *name = counter_name(lane_loss_counter((enum lane_loss)i));
        cr_assert(strncmp(name, "refused_", 8) == 0 || strncmp(name, "dropped_", 8) == 0, "%s", name);
    }
    cr_assert_eq(lane_loss_counter((enum lane_loss)60000), lane_loss_counter((enum lane_loss)0));
}

/* A counter of what is refused or dropped that no lane has would be missing there. */
Test(trace, lanes_have_every_counter_of_what_is_refused_or_dropped)
{
    for (int i = 0; i < COUNTER_COUNT; i++) {
        const char *name = counter_name((enum counter)i);
        bool found = false;

        for (int j = 0; j < LOSS_COUNT; j++)
            found = found || lane_loss_counter((enum lane_loss)j) == (enum counter)i;
        cr_assert_eq(found, strncmp(name, "refused_", 8) == 0 || strncmp(name, "dropped_", 8) == 0, "%s", name);
    }
}
