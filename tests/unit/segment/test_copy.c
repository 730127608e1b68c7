/* SPDX-License-Identifier: Apache-2.0 */
/* A segment of another capacity or of the layout before is copied: records, sessions and all that belongs to them live
 * on in the new one; each session watches its record at its new place. */
#include "base/clock.h"
#include "base/hash.h"
#include "fault.h"
#include "fixture.h"
#include "segment/source.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct fixture fixture;
static struct segment *segment; /* the one that is open */
static char logged[2048];
static uint32_t worker;

static void begin(void)
{
    fixture_open(&fixture);
    fixture.shape.records =
        240; /* so many that no bucket overflows by chance: the keys have another secret each time */
}
static void end(void)
{
    fault_none();
    fixture_close(&fixture);
}
TestSuite(copy, .init = begin, .fini = end, .timeout = 120);

static void open_or_fail(void)
{
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    segment = fixture.segment;
}

static void expect_notice(const char *what)
{
    cr_assert_not_null(strstr(fixture_logged(&fixture, logged), what), "wanted \"%s\" in: %s", what, logged);
    cr_assert_eq(strchr(logged, '\n'), logged + strlen(logged) - 1, "one notice, not: %s", logged);
    cr_assert_not(fixture_has(&fixture, "segment.old"));
    cr_assert_not(fixture_has(&fixture, "segment.new"));
}

static struct record_key key_of(uint32_t number)
{
    struct record_key key;

    record_key_make(&key, segment, 1, 0, &number, sizeof number);
    return key;
}

/* The record of key `number`, at server `number`, used `age_s` ago. */
static struct record_ref record_make(uint32_t number, uint32_t age_s, bool proven)
{
    struct record_key key = key_of(number);
    struct record_ref ref = claim(segment, worker, &key, number % SEGMENT_SERVERS, (uint32_t)clock_now_s() - age_s);

    if (proven)
        cr_assert(record_prove(segment, &ref));
    return ref;
}

static struct session_row *session_make(uint32_t lane, uint32_t position, uint16_t port, const struct record_ref *ref,
                                        uint64_t last_ms)
{
    struct session_row content = {.client = endpoint_of((uint8_t)port, 4500), .server = 3, .source_port = port};
    struct session_row *row = session_partition(segment, lane) + position;

    session_begin(row, &content, last_ms);
    atomic_store(&row->record, ref != NULL ? ref->index : SEGMENT_NO_INDEX);
    atomic_store(&row->watch, ref != NULL ? RECORD_DECISION(ref->value) : 0);
    return row;
}

/* NULL: no live row of the lane has this port. */
static struct session_row *session_of_port(uint32_t lane, uint16_t port)
{
    struct session_row *rows = session_partition(segment, lane);

    for (uint32_t i = 0; i < segment->rows_per_lane; i++)
        if (session_is_live(&rows[i]) && rows[i].source_port == port)
            return &rows[i];
    return NULL;
}

static bool watches(const struct session_row *row)
{
    return RECORD_DECISION(record_value(segment, atomic_load(&row->record))) == atomic_load(&row->watch);
}

/* What stands in all that is not records and sessions. */
static void names_make(void)
{
    struct hp_endpoint address = endpoint_of(9, 0);
    uint32_t server = server_assign(segment, "vpn1", &address), pool = pool_assign(segment, "rras");

    server_set_state(segment, server, SERVER_DRAIN, true);
    server_set_down(segment, server, server_probe_assign(segment, server, 17, 500), true);
    atomic_store(&segment->pools[pool].cursor, 41);
    service_assign(segment, "ike");
    atomic_store(&segment->profiles[profile_assign(segment, "kemp")].quarantined, 1);
    drop_post(segment, &address);
    atomic_store(&segment->lanes[3].epoch, 12);
    atomic_store(&segment->lanes[3].losses[LOSS_dropped_stranger], 31);
    atomic_store(&segment->header->reloads, 5);
    worker = process_begin(segment, PROCESS_WORKER, 0);
    counter_add(&segment->processes[worker], COUNTER_decisions, 42);
    counter_add(&segment->processes[0], COUNTER_decisions, 1000);
    atomic_store(&segment->processes[worker].plugin_counters[0].identity, 77);
    atomic_store(&segment->processes[worker].plugin_counters[0].value, 7);
}

/* Of the present layout. */
static void losses_check(void)
{
    cr_assert_eq(atomic_load(&segment->lanes[3].losses[LOSS_dropped_stranger]), 31);
}

static void names_check(void)
{
    uint32_t server = server_find(segment, "vpn1");
    struct hp_endpoint client = {0};

    cr_assert_neq(server, SEGMENT_NO_INDEX);
    cr_assert_eq(server_word_state(server_word(segment, server)), SERVER_DRAIN);
    cr_assert_eq(server_word(segment, server) & SERVER_DOWN_MASK, 1);
    cr_assert_eq(server_probe_find(segment, server, 17, 500), 0);
    cr_assert_eq(segment->servers[server].address.address[3], 9);
    cr_assert_eq(atomic_load(&segment->pools[pool_find(segment, "rras")].cursor), 41);
    cr_assert_eq(service_find(segment, "ike"), 0);
    cr_assert_eq(atomic_load(&segment->profiles[profile_find(segment, "kemp")].quarantined), 1);
    cr_assert(drop_read(segment, atomic_load(&segment->header->drop_last), &client));
    cr_assert_eq(client.address[3], 9);
    cr_assert_eq(atomic_load(&segment->lanes[3].epoch), 12);
    cr_assert_eq(atomic_load(&segment->lanes[3].holder), SEGMENT_NO_INDEX);
    cr_assert_eq(atomic_load(&segment->header->reloads), 5);
    cr_assert_eq(counter_total(segment, COUNTER_decisions), 1042, "totals go on");
    cr_assert_eq(atomic_load(&segment->processes[0].counters[COUNTER_decisions]), 1042, "in the slot of the dead");
    cr_assert_eq(atomic_load(&segment->processes[0].plugin_counters[0].value), 7);
    cr_assert_eq(atomic_load(&segment->processes[worker].role), PROCESS_NONE);
}

#define RECORDS 40u

static void world_make(void)
{
    open_or_fail();
    names_make();
    for (uint32_t i = 0; i < RECORDS; i++) {
        struct record_ref ref = record_make(i, i, i % 2 == 0), beside = record_make(100 + i, 0, false);
        struct session_row *row = session_make(i % 8, i / 8, (uint16_t)(10000 + i), &ref, clock_now_ms() + i);

        atomic_store(&row->kept_record[1], beside.index);
        atomic_store(&row->kept_watch[1], RECORD_DECISION(beside.value));
        atomic_store(&row->bytes_to_client, i);
    }
    fixture_logged(&fixture, logged);
}

static void world_check(bool kept)
{
    names_check();
    for (uint32_t i = 0; i < RECORDS; i++) {
        struct record_key key = key_of(i), beside = key_of(100 + i);
        struct session_row *row = session_of_port(i % 8, (uint16_t)(10000 + i));
        struct record_ref ref;
        struct record_view view;

        cr_assert(record_find(segment, &key, &ref), "record %u", i);
        cr_assert_eq(RECORD_SERVER(ref.value), i);
        cr_assert_eq(RECORD_PROVEN(ref.value), i % 2 == 0);
        cr_assert(record_read(segment, ref.index, &view));
        cr_assert_eq(view.timeout_s, 180);
        cr_assert_eq(view.client.address[3], 7);
        cr_assert_not_null(row, "session %u", i);
        cr_assert_eq(atomic_load(&row->record), ref.index);
        cr_assert(watches(row), "session %u", i);
        cr_assert_eq(atomic_load(&row->bytes_to_client), i);
        cr_assert_eq(atomic_load(&row->kept_record[0]), SEGMENT_NO_INDEX);
        cr_assert(record_find(segment, &beside, &ref));
        cr_assert_eq(atomic_load(&row->kept_record[1]), kept ? ref.index : SEGMENT_NO_INDEX);
        if (kept)
            cr_assert_eq(atomic_load(&row->kept_watch[1]), RECORD_DECISION(ref.value));
    }
}

Test(copy, raised_capacities_carry_all_over)
{
    world_make();
    fixture.shape = (struct segment_shape){.records = 6000, .sessions = 800, .lanes = 32};
    open_or_fail();
    expect_notice(
        "affinity.capacity 240, now it is 6000, it was made for sessions.capacity 64, now it is 800; 80 of 80 "
        "records and 40 of 40 sessions are carried over\n");
    cr_assert_eq(segment->bucket_count, 1000);
    cr_assert_eq(segment->rows_per_lane, 100);
    cr_assert_eq(segment->lane_count, 8, "lanes and ports stay what they were");
    world_check(true);
    losses_check();
    open_or_fail();
    cr_assert_str_empty(fixture_logged(&fixture, logged), "once: the new one is fit");
    world_check(true);
}

Test(copy, lowered_capacities_carry_over_what_fits)
{
    fixture.shape = (struct segment_shape){.records = 6000, .sessions = 800, .lanes = 8};
    world_make();
    fixture.shape = (struct segment_shape){.records = 300, .sessions = 40, .lanes = 8};
    open_or_fail();
    expect_notice("80 of 80 records and 40 of 40 sessions are carried over\n");
    cr_assert_eq(segment->rows_per_lane, 5);
    world_check(true);
}

Test(copy, goes_there_and_back)
{
    uint32_t capacities[] = {100, 1000, 77, 5000, 60, 4096};

    world_make();
    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
        fixture.shape.records = 200 + capacities[i];
        fixture.shape.sessions = capacities[i];
        open_or_fail();
        world_check(true);
    }
}

Test(copy, of_fewer_rows_leaves_out_the_sessions_that_were_idle_longest)
{
    uint64_t now_ms = clock_now_ms();

    open_or_fail();
    worker = process_begin(segment, PROCESS_WORKER, 0);
    for (uint16_t i = 0; i < 8; i++)
        session_make(2, i, (uint16_t)(100 + i), NULL, now_ms - (i * 5u) % 8u);
    session_end(session_of_port(2, 100)); /* the last used one, but free */
    atomic_store(&session_of_port(2, 103)->server_ms, now_ms + 1);
    session_make(5, 7, 200, NULL, 1);
    fixture.shape.sessions = 16;
    open_or_fail();
    expect_notice("0 of 0 records and 3 of 8 sessions are carried over, there is no place for the others\n");
    cr_assert_not_null(strstr(logged, "warning"), "%s", logged);
    cr_assert_not_null(session_of_port(2, 103), "its server spoke last");
    cr_assert_not_null(session_of_port(2, 105), "one millisecond ago");
    cr_assert_not_null(session_of_port(5, 200), "alone in its lane");
}

/* Ports of ended sessions rest: the rows remember them. */
Test(copy, keeps_the_rows_of_ended_sessions)
{
    open_or_fail();
    session_make(1, 6, 300, NULL, 12345);
    session_end(session_of_port(1, 300));
    fixture.shape.sessions = 800;
    open_or_fail();
    cr_assert_eq((session_partition(segment, 1) + 6)->source_port, 300);
    cr_assert_eq(atomic_load(&(session_partition(segment, 1) + 6)->client_ms), 12345);
    fixture.shape.sessions = 8;
    open_or_fail();
    cr_assert_eq(session_partition(segment, 1)->source_port, 300, "rather than one that was never used");
}

static void records_in_first_bucket(uint32_t first, uint32_t count, uint32_t age_s, bool proven)
{
    for (uint32_t i = first; i < first + count; i++) {
        struct record_key key = key_in_bucket(segment, i % 8, i); /* bucket 0 of four, later */
        struct record_ref ref = claim(segment, worker, &key, 1, (uint32_t)clock_now_s() - age_s);

        if (proven)
            record_prove(segment, &ref);
    }
}

/* key_in_bucket(segment, b, i) has the number i below the bucket's first fingerprint: found again by its parts. */
static bool is_there(uint32_t of_buckets, uint32_t bucket, uint32_t number)
{
    uint64_t upper = (((uint64_t)bucket << 32) + of_buckets - 1) / of_buckets;
    struct record_key key = {.fingerprint = {upper << 32 | number, ~(uint64_t)number}};
    struct record_ref ref;

    return record_find(segment, &key, &ref);
}

static uint32_t there(uint32_t of_buckets, uint32_t first, uint32_t count)
{
    uint32_t found = 0;

    for (uint32_t i = first; i < first + count; i++)
        found += is_there(of_buckets, i % 8, i);
    return found;
}

Test(copy, of_a_full_bucket_leaves_out_expired_then_unproven_then_the_oldest_records)
{
    uint32_t buckets;

    open_or_fail();
    buckets = segment->bucket_count;
    worker = process_begin(segment, PROCESS_WORKER, 0);
    records_in_first_bucket(0, 6, 500, true); /* the timeout is 180 s */
    records_in_first_bucket(10, 6, 20, false);
    records_in_first_bucket(20, 6, 40, false);
    records_in_first_bucket(30, 10, 100, true);
    fixture.shape.records = 24;
    open_or_fail();
    expect_notice("16 of 28 records and 0 of 0 sessions are carried over, there is no place for the others\n");
    cr_assert_eq(segment->bucket_count, 4);
    cr_assert_eq(there(buckets, 30, 10), 10, "proven ones");
    cr_assert_eq(there(buckets, 10, 6), 6, "unproven ones that were used of late");
    cr_assert_eq(there(buckets, 0, 6) + there(buckets, 20, 6), 0);
}

Test(copy, of_proven_records_alone_leaves_out_those_used_longest_ago)
{
    uint32_t buckets;

    open_or_fail();
    buckets = segment->bucket_count;
    worker = process_begin(segment, PROCESS_WORKER, 0);
    for (uint32_t i = 0; i < 24; i++)
        records_in_first_bucket(i, 1, (i * 7) % 24, true);
    fixture.shape.records = 24;
    open_or_fail();
    expect_notice("16 of 24 records");
    for (uint32_t i = 0; i < 24; i++)
        cr_assert_eq(is_there(buckets, i % 8, i), (i * 7) % 24 < 16, "record used %u s ago", (i * 7) % 24);
}

Test(copy, does_not_let_a_session_watch_what_it_did_not_watch_before)
{
    struct record_ref deleted, moved, of_another, left_out = {.index = UINT32_MAX - 1, .value = 12ull << 38};
    struct record_key key;

    open_or_fail();
    worker = process_begin(segment, PROCESS_WORKER, 0);
    deleted = record_make(1, 0, true);
    session_make(0, 0, 1, &deleted, 1);
    moved = record_make(2, 0, true);
    session_make(0, 1, 2, &moved, 1);
    cr_assert(record_move(segment, &moved, 9, 1));
    of_another = record_make(3, 0, true);
    of_another.value -= 1ull << 38; /* a record that was in this slot before */
    session_make(0, 2, 3, &of_another, 1);
    session_make(0, 3, 4, &left_out, 1);
    session_make(0, 4, 5, NULL, 1);
    cr_assert(record_delete(segment, &deleted));
    fixture.shape.records = 600;
    open_or_fail();
    for (uint16_t port = 1; port <= 4; port++) {
        const struct session_row *row = session_of_port(0, port);

        cr_assert_not(watches(row), "session %u", port);
        cr_assert_lt(atomic_load(&row->record), record_capacity(segment), "none would mean: never had one");
    }
    cr_assert_eq(atomic_load(&session_of_port(0, 5)->record), SEGMENT_NO_INDEX);
    key = key_of(2);
    cr_assert(record_find(segment, &key, &moved));
    cr_assert_eq(atomic_load(&session_of_port(0, 2)->record), moved.index, "it follows its record");
    /* the next records in the slots that are watched by nobody's right */
    for (uint32_t i = 0; i < 300; i++)
        record_make(1000 + i, 0, false);
    cr_assert_not(watches(session_of_port(0, 1)));
    cr_assert_not(watches(session_of_port(0, 4)));
}

/* The shapes of the layouts before, by hand: as today's, but without sources and words for tuples, lanes without what
 * they have lost, nobody who is followed (3), without settings (2), and rows of two cache lines (1). */
static void file_to_layout(uint32_t layout)
{
    const size_t rows_size = layout == 1 ? 128 : 192;
    const struct {
        size_t count, size, present_size;
        const void *present;
    } tables[] = {
        {256, 2624, 2624, segment->processes}, {1024, 1408, 1408, segment->servers},
        {256, 64, 64, segment->pools},         {256, 80, 80, segment->services},
        {64, 88, 88, segment->profiles},       {256, 64, 256, segment->lanes},
        {64, 40, 40, segment->drops},          {40, 1088, 1088, segment->buckets},
        {64, rows_size, 192, segment->rows},
    };
    uint8_t *file = calloc(1, segment->size);
    size_t at = 4096;
    int fd;

    memcpy(file, segment->header, 4096);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        for (size_t j = 0; j < tables[i].count; j++)
            memcpy(file + at + j * tables[i].size, (const uint8_t *)tables[i].present + j * tables[i].present_size,
                   tables[i].size);
        for (size_t j = 0; j < tables[i].count && tables[i].present == segment->buckets; j++)
            memset(file + at + j * tables[i].size + 8, 0, 56);
        for (size_t j = 0; j < tables[i].count && tables[i].present == segment->rows; j++) /* never written there */
            memset(file + at + j * tables[i].size + (layout < 3 ? 120 : 164), 0xa5, layout < 3 ? 8 : 2);
        at = (at + tables[i].count * tables[i].size + 4095) / 4096 * 4096;
    }
    memcpy(file + 8, &layout, 4);
    memcpy(file + 64, &(uint64_t){at}, 8); /* size */
    cr_assert_eq(unlinkat(fixture.directory, "segment", 0), 0);
    fd = openat(fixture.directory, "segment", O_WRONLY | O_CREAT | O_EXCL, 0600);
    cr_assert_eq(write(fd, file, at), (ssize_t)at);
    close(fd);
    free(file);
}

static void expect_carried_over_from(uint32_t layout)
{
    char notice[128];

    world_make();
    file_to_layout(layout);
    open_or_fail();
    snprintf(notice, sizeof notice,
             "it has layout %u, now it is 4; 80 of 80 records and 40 of 40 sessions are carried over\n", layout);
    expect_notice(notice);
    cr_assert_eq(segment->header->layout, SEGMENT_LAYOUT);
    world_check(layout >= 2);
    for (uint32_t i = 0; i < segment->lane_count * segment->rows_per_lane; i++) {
        cr_assert(layout == 3 || atomic_load(&segment->rows[i].settings) == 0, "row %u", i);
        cr_assert_eq(segment->rows[i].source, SOURCE_ROUTE, "row %u", i);
    }
    for (uint32_t i = 0; i < record_capacity(segment); i++) {
        struct record_source seen;
        struct record_view view;

        if (!record_read(segment, i, &view))
            continue;
        cr_assert(record_source(segment, i, RECORD_DECISION(view.ref.value), &seen));
        cr_assert(seen.chosen && seen.source == SOURCE_ROUTE, "its client came from there, and goes on so");
    }
    for (uint32_t i = 0; i < SEGMENT_LANES; i++)
        for (uint32_t loss = 0; loss < SEGMENT_LANE_LOSSES; loss++)
            cr_assert_eq(atomic_load(&segment->lanes[i].losses[loss]), 0, "lane %u", i);
    cr_assert_eq(atomic_load(&segment->traces->last), 0);
}

Test(copy, of_the_layout_before_carries_all_over)
{
    expect_carried_over_from(3);
}

Test(copy, of_the_layout_before_that_carries_all_over)
{
    expect_carried_over_from(2);
}

Test(copy, of_the_first_layout_carries_all_over)
{
    expect_carried_over_from(1);
}

/* Restarts with other capacities move records to other buckets. */
Test(copy, keeps_the_source_of_every_record_and_session)
{
    struct hp_endpoint own = endpoint_of(50, 0);
    uint32_t source;

    open_or_fail();
    worker = process_begin(segment, PROCESS_WORKER, 0);
    source = source_assign(segment, &own, &own, 1);
    cr_assert_eq(source, 1);
    for (uint32_t i = 0; i < 40; i++) {
        struct record_ref ref = record_make(i, 0, true);

        record_source_offer(segment, ref.index, RECORD_DECISION(ref.value), i % 2 ? source : SOURCE_ROUTE);
        if (i < 8)
            session_make(i, 0, (uint16_t)(100 + i), &ref, 1)->source = (uint16_t)(i % 2 ? source : SOURCE_ROUTE);
    }
    atomic_store(&source_load(segment, 3, source)->clients, 17);
    fixture.shape.records = 600;
    open_or_fail();
    cr_assert_eq(source_find(segment, &own), source);
    cr_assert_eq(atomic_load(&source_load(segment, 3, source)->clients), 17);
    for (uint32_t i = 0; i < 40; i++) {
        struct record_key key = key_of(i);
        struct record_source seen;
        struct record_ref ref;

        cr_assert(record_find(segment, &key, &ref));
        cr_assert(record_source(segment, ref.index, RECORD_DECISION(ref.value), &seen) && seen.chosen);
        cr_assert_eq(seen.source, i % 2 ? source : SOURCE_ROUTE, "record %u", i);
        if (i < 8)
            cr_assert_eq(session_of_port(i, (uint16_t)(100 + i))->source, i % 2 ? source : SOURCE_ROUTE);
    }
}

Test(copy, of_the_layout_before_and_of_another_capacity_carries_all_over)
{
    world_make();
    file_to_layout(1);
    fixture.shape.records = 600;
    fixture.shape.sessions = 65;
    open_or_fail();
    expect_notice("it has layout 1, now it is 4, it was made for affinity.capacity 240");
    world_check(false);
}

Test(copy, of_a_damaged_file_of_the_layout_before_is_put_aside)
{
    world_make();
    file_to_layout(1);
    fixture_poke(&fixture, 64, &(uint64_t){fixture.segment->size}, 8);
    open_or_fail();
    cr_assert(fixture_has(&fixture, "segment.old"));
    cr_assert_not_null(strstr(fixture_logged(&fixture, logged), "damaged"), "%s", logged);
}

static uint64_t inode(void)
{
    struct stat status;

    cr_assert_eq(fstatat(fixture.directory, "segment", &status, AT_SYMLINK_NOFOLLOW), 0);
    return status.st_ino;
}

Test(copy, that_fails_at_any_step_leaves_the_old_one_as_it_is)
{
    uint64_t before;
    int failed = 0;

    world_make();
    before = inode();
    fixture.shape.records = 600;
    for (;; failed++) {
        fault_after(failed);
        int code = fixture_segment(&fixture);

        fault_none();
        if (code == 0)
            break;
        cr_assert_eq(inode(), before, "step %d", failed);
        cr_assert_not(fixture_has(&fixture, "segment.old"));
        cr_assert_not(fixture_has(&fixture, "segment.new"), "step %d", failed);
        cr_assert_str_not_empty(fixture.error.what);
    }
    cr_assert_geq(failed, 7, "the sweep must really have failed something, not %d", failed);
    segment = fixture.segment;
    world_check(true);
}

Test(copy, that_dies_at_any_step_is_made_by_the_next_start)
{
    int died = 0, status;

    for (;; died++) {
        world_make();
        fixture.shape.records = 600;
        pid_t child = fork();
        if (child == 0) {
            fault_dies_after(died);
            _exit(fixture_segment(&fixture) == 0 ? 0 : 1);
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status));
        open_or_fail();
        world_check(true);
        if (WEXITSTATUS(status) == 0)
            break;
        cr_assert_eq(WEXITSTATUS(status), FAULT_DIED);
        fixture.shape.records = 240;
        segment_close(fixture.segment);
        fixture.segment = NULL;
        unlinkat(fixture.directory, "segment", 0);
    }
    cr_assert_geq(died, 7, "only %d steps", died);
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void expect_sound(void)
{
    struct record_view view;

    for (uint32_t i = 0; i < segment->bucket_count; i++)
        cr_assert_eq(bucket_duplicates(segment, i), 0);
    for (uint32_t i = 0; i < record_capacity(segment); i++)
        if (record_read(segment, i, &view))
            cr_assert_lt(RECORD_SERVER(view.ref.value), SEGMENT_SERVERS);
    for (uint32_t i = 0; i < segment->lane_count * segment->rows_per_lane; i++) {
        uint32_t record = atomic_load(&segment->rows[i].record);

        cr_assert(!session_is_live(&segment->rows[i]) || record == SEGMENT_NO_INDEX ||
                  record < record_capacity(segment));
    }
}

/* What a hostile worker leaves behind. */
Test(copy, of_flipped_bits_and_of_nonsense_leads_nobody_astray)
{
    const char *wanted = getenv("SEED");
    uint64_t random = wanted != NULL ? strtoull(wanted, NULL, 0) : (uint64_t)time(NULL) * 2654435761u | 1u;

    printf("# SEED=%llu\n", (unsigned long long)random);
    world_make();
    for (uint32_t round = 0; round < 60; round++) {
        uint8_t *body = (uint8_t *)(void *)segment->header + 4096;
        size_t size = segment->size - 4096, count = round % 3 == 0 ? size : 30000;

        for (size_t i = 0; i < count; i++) {
            uint64_t number = random_next(&random);

            if (round % 3 == 0)
                body[i] = (uint8_t)number;
            else
                body[number % size] ^= (uint8_t)(1u << (number >> 40) % 8);
        }
        if (round % 3 == 1 && segment->bucket_count == 40 && segment->rows_per_lane == 8)
            file_to_layout(1 + (uint32_t)round / 3 % 3);
        fixture.shape.records = round % 2 == 0 ? 60 + (uint32_t)(random_next(&random) % 500) : 240;
        fixture.shape.sessions = round % 2 == 0 ? 1 + (uint32_t)(random_next(&random) % 500) : 64;
        open_or_fail();
        expect_sound();
    }
}

/* The figure is for people: a loaded machine says little about it. A quarter of what a big site has. */
Test(copy, of_a_full_one_carries_all_over, .timeout = 240)
{
    uint64_t start_ms;

    fixture.shape = (struct segment_shape){.records = 65536, .sessions = 16384, .lanes = 8};
    open_or_fail();
    worker = process_begin(segment, PROCESS_WORKER, 0);
    for (uint32_t i = 0; i < 65536; i++) {
        struct record_ref ref = record_make(i, 0, false);

        if (i % 4 == 0)
            session_make(i / 4 % 8, i / 32, (uint16_t)i, &ref, 1);
    }
    fixture_logged(&fixture, logged);
    fixture.shape.records = 131072;
    fixture.shape.sessions = 32768;
    start_ms = clock_now_ms();
    open_or_fail();
    printf("# copied in %llu ms\n", (unsigned long long)(clock_now_ms() - start_ms));
    expect_notice("records and 16384 of 16384 sessions are carried over\n");
}
