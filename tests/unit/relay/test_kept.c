/* SPDX-License-Identifier: Apache-2.0 */
/* The records that a session claimed before: how many, how long, and what proves them. A path without a socket; time is
 * the test's own. */
#include "fixture.h"

#include "relay/private.h"

#include <criterion/criterion.h>
#include <string.h>

#define TIMEOUT_S 60u
#define START_S 1000u
#define HOME 3u

static struct fixture fixture;
static struct relay relay;
static struct lane lane;
static struct service service;
static struct path path;
static struct session_row row;
static uint32_t self;

static void at(uint32_t now_s)
{
    relay.now_ms = (uint64_t)now_s * 1000;
}

static void heard(void)
{
    atomic_store(&row.client_ms, relay.now_ms);
}

static void answered(void)
{
    atomic_store(&row.server_ms, relay.now_ms);
}

static void open_path(void)
{
    const struct session_row content = {.server = HOME};

    fixture_open(&fixture);
    fixture.shape.records = 1600;
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    self = process_begin(fixture.segment, PROCESS_WORKER, 0);
    relay.segment = fixture.segment;
    lane.relay = &relay;
    service.decides = HP_DECIDE_IKE;
    path = (struct path){.lane = &lane, .row = &row, .service = &service};
    at(START_S);
    session_begin(&row, &content, relay.now_ms);
}

static void close_path(void)
{
    fixture_close(&fixture);
}

TestSuite(kept, .init = open_path, .fini = close_path);

static struct record_ref record_make(uint32_t number, uint64_t profile)
{
    const struct record_origin origin = {.timeout_s = TIMEOUT_S, .profile = profile};
    struct record_key key;
    struct record_ref ref;
    uint32_t evicted = 0;

    record_key_make(&key, fixture.segment, profile, 0, &number, sizeof number);
    cr_assert_eq(record_claim(fixture.segment, self, &key, HOME, &origin, relay_now_s(&relay), true, &ref, &evicted),
                 RECORD_CREATED);
    return ref;
}

/* As a decision that claims the record. */
static struct record_ref watch_new(uint32_t number)
{
    struct record_ref ref = record_make(number, 1);
    const struct decision decision = {.server = HOME, .record = ref.index, .watch = RECORD_DECISION(ref.value)};

    path_watch_record(&path, &decision);
    return ref;
}

static void watch_again(const struct record_ref *ref)
{
    const struct decision decision = {.server = HOME, .record = ref->index, .watch = RECORD_DECISION(ref->value)};

    path_watch_record(&path, &decision);
}

static uint32_t kept_count(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < SESSION_KEPT; i++)
        count += atomic_load(&row.kept_record[i]) != SEGMENT_NO_INDEX;
    return count;
}

static bool is_kept(const struct record_ref *ref)
{
    for (uint32_t i = 0; i < SESSION_KEPT; i++)
        if (atomic_load(&row.kept_record[i]) == ref->index)
            return true;
    return false;
}

static bool is_watched(const struct record_ref *ref)
{
    struct record_ref watched;

    return path_watched(&path, &watched) && watched.index == ref->index;
}

static bool lives(const struct record_ref *ref)
{
    struct record_ref now = {ref->index, record_value(fixture.segment, ref->index)};

    return RECORD_DECISION(now.value) == RECORD_DECISION(ref->value) &&
           !record_expired(fixture.segment, &now, relay_now_s(&relay));
}

static bool is_proven(const struct record_ref *ref)
{
    return RECORD_PROVEN(record_value(fixture.segment, ref->index));
}

Test(kept, the_last_three_and_each_once)
{
    struct record_ref refs[6];

    for (uint32_t i = 0; i < 6; i++)
        refs[i] = watch_new(i);
    for (uint32_t i = 0; i < 6; i++)
        cr_expect_eq(is_kept(&refs[i]), i >= 3, "%u: the first is watched", i);
    watch_again(&refs[0]);
    watch_again(&refs[3]);
    cr_expect_eq(kept_count(), SESSION_KEPT, "the same once more changes nothing");
    watch_again(&refs[1]);
    cr_expect(is_kept(&refs[3]) && !is_kept(&refs[4]), "the longest unused makes way");
    cr_expect(is_watched(&refs[0]));
}

Test(kept, what_takes_the_place_of_a_lost_record_is_watched)
{
    struct record_ref first = watch_new(1), second = watch_new(2);

    cr_assert(record_delete(fixture.segment, &first));
    watch_again(&second);
    cr_expect(is_watched(&second));
    cr_expect_eq(kept_count(), 0);
}

Test(kept, a_plugin_that_does_not_decide_on_live_sessions_has_one_name)
{
    struct record_ref second;

    service.decides = 0;
    watch_new(1);
    second = watch_new(2);
    cr_expect_eq(kept_count(), 0);
    cr_expect(is_watched(&second));
}

Test(kept, another_profiles_record_is_left_to_its_timeout)
{
    struct record_ref before = record_make(1, 2), after;

    watch_again(&before);
    after = watch_new(2);
    cr_expect_eq(kept_count(), 0);
    cr_expect(is_watched(&after));
}

Test(kept, lives_as_long_as_traffic_and_its_timeout_longer)
{
    struct record_ref first;

    watch_new(1);
    first = watch_new(2);
    for (uint32_t i = 1; i <= 500; i++) {
        at(START_S + i);
        heard();
        kept_refresh(&path);
        cr_assert(lives(&first), "after %u s", i);
    }
    at(START_S + 500 + TIMEOUT_S - 10);
    cr_expect(lives(&first));
    at(START_S + 500 + TIMEOUT_S + 1);
    cr_expect_not(lives(&first), "nobody has looked after it");
}

Test(kept, does_not_expire_under_a_silent_session)
{
    struct record_ref first;

    watch_new(1);
    first = watch_new(2);
    for (uint32_t i = 1; i <= 3 * TIMEOUT_S; i++) {
        at(START_S + i);
        kept_refresh(&path);
        cr_assert(lives(&first), "after %u s", i);
    }
}

Test(kept, is_proven_when_it_has_lasted_in_a_proven_session)
{
    struct record_ref first = watch_new(1), second;

    path_prove(&path);
    path_prove_record(&path, &(struct record_ref){first.index, record_value(fixture.segment, first.index)});
    cr_expect(is_proven(&first), "at once: what the session was proven with");
    second = watch_new(2);
    for (uint32_t i = 0; i < RELAY_PROBATION_S; i++) {
        at(START_S + i);
        answered();
        kept_refresh(&path);
        cr_assert_not(is_proven(&second), "after %u s", i);
    }
    at(START_S + RELAY_PROBATION_S);
    kept_refresh(&path);
    cr_expect(is_proven(&second));
}

/* The record that it was proven with has gone; who forges datagrams may be who names the next one. */
Test(kept, so_is_what_a_proven_session_watches_later)
{
    struct record_ref first = watch_new(1), second, now;

    path_prove(&path);
    cr_assert(record_delete(fixture.segment, &first));
    second = watch_new(2);
    cr_assert(is_watched(&second));
    for (uint32_t i = 0; i <= RELAY_PROBATION_S; i++) {
        at(START_S + i);
        answered();
        now = (struct record_ref){second.index, record_value(fixture.segment, second.index)};
        path_refresh(&path, &now);
        cr_assert_eq(is_proven(&second), i == RELAY_PROBATION_S, "after %u s", i);
    }
}

Test(kept, a_flood_of_names_proves_none)
{
    struct record_ref refs[100];

    watch_new(1000);
    path_prove(&path);
    for (uint32_t i = 0; i < 100; i++) {
        at(START_S + i);
        refs[i] = watch_new(i);
        heard();
        answered();
        kept_refresh(&path);
    }
    for (uint32_t i = 0; i < 100; i++)
        cr_expect_not(is_proven(&refs[i]), "%u", i);
}

Test(kept, is_not_proven_by_a_server_that_has_not_answered_since)
{
    struct record_ref second;

    watch_new(1);
    answered();
    path_prove(&path);
    at(START_S + 1);
    second = watch_new(2);
    at(START_S + 3 * RELAY_PROBATION_S);
    heard();
    kept_refresh(&path);
    cr_expect_not(is_proven(&second));
}

/* Another worker's clock reading may be a second ahead. */
Test(kept, a_record_of_the_next_second_has_not_lasted)
{
    struct record_ref second;

    watch_new(1);
    path_prove(&path);
    at(START_S + 1);
    second = watch_new(2);
    at(START_S);
    atomic_store(&row.server_ms, relay.now_ms + 2000);
    kept_refresh(&path);
    cr_expect_not(is_proven(&second));
}

Test(kept, what_is_pushed_out_while_in_use_is_asked_about_again)
{
    for (uint32_t i = 0; i <= SESSION_KEPT; i++)
        watch_new(i);
    path.esp_spi = 77;
    watch_new(100);
    cr_expect_eq(path.esp_spi, 0);
}

Test(kept, of_an_unproven_session_stays_unproven)
{
    struct record_ref second;

    watch_new(1);
    second = watch_new(2);
    at(START_S + 3 * RELAY_PROBATION_S);
    kept_refresh(&path);
    cr_expect_not(is_proven(&second));
}

Test(kept, what_has_moved_or_gone_is_forgotten_and_asked_about_again)
{
    struct record_ref moved, gone, stays, ref;

    watch_new(1);
    moved = watch_new(2);
    gone = watch_new(3);
    stays = watch_new(4);
    path.esp_spi = 77;
    ref = moved;
    cr_assert(record_move(fixture.segment, &ref, HOME + 1, START_S));
    ref = gone;
    cr_assert(record_delete(fixture.segment, &ref));
    kept_refresh(&path);
    cr_expect_not(is_kept(&moved));
    cr_expect_not(is_kept(&gone));
    cr_expect(is_kept(&stays));
    cr_expect_eq(path.esp_spi, 0);
}

Test(kept, goes_with_its_session_to_another_row)
{
    struct record_ref first = watch_new(1), second = watch_new(2);
    struct session_row next;

    memset((void *)&next, 0, sizeof next);
    session_begin(&next, &(struct session_row){.server = HOME}, relay.now_ms);
    kept_copy(&next, &row);
    path.row = &next;
    cr_expect_eq(atomic_load(&next.kept_record[0]), second.index);
    kept_delete(&path);
    cr_expect_not(lives(&second), "the verb drop");
    cr_expect(lives(&first));
}

/* A hostile worker may have written anything there. */
Test(kept, nonsense_in_the_row_is_forgotten)
{
    watch_new(1);
    for (uint32_t i = 0; i < SESSION_KEPT; i++) {
        atomic_store(&row.kept_record[i], UINT32_MAX - 1 - i);
        atomic_store(&row.kept_watch[i], RECORD_DEAD); /* of a record that is not there */
    }
    kept_delete(&path);
    kept_refresh(&path);
    cr_expect_eq(kept_count(), 0);
    watch_new(2);
    cr_expect_eq(kept_count(), 1);
}
