/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <criterion/criterion.h>

static struct fixture fixture;

static void set_up(void)
{
    fixture_open(&fixture);
    fixture_start(&fixture);
}

static void tear_down(void)
{
    fixture_close(&fixture);
}

TestSuite(recount, .init = set_up, .fini = tear_down, .timeout = 30);

static void expect_server(uint32_t server, uint32_t clients, uint32_t sessions)
{
    const struct server_slot *slot = &fixture.segment->servers[fixture.slots[server]];

    cr_assert_eq(atomic_load(&slot->clients), clients, "server %u: %u clients", server, atomic_load(&slot->clients));
    cr_assert_eq(atomic_load(&slot->sessions), sessions, "server %u: %u sessions", server,
                 atomic_load(&slot->sessions));
}

static void expect_service(const char *name, uint32_t clients, uint32_t sessions)
{
    const struct service_slot *slot = &fixture.segment->services[service_find(fixture.segment, name)];

    cr_assert_eq(atomic_load(&slot->clients), clients, "service %s: %u clients", name, atomic_load(&slot->clients));
    cr_assert_eq(atomic_load(&slot->sessions), sessions, "service %s: %u sessions", name, atomic_load(&slot->sessions));
}

Test(recount, a_client_on_two_ports_counts_once_at_its_server_and_once_at_each_service)
{
    struct record_ref record = fixture_record(&fixture, 7, 0, 180, 0);

    fixture_session(&fixture, 0, 7, "ike", 0, &record);
    fixture_session(&fixture, 3000, 7, "nat-t", 0, &record);
    fixture_recount(&fixture);
    expect_server(0, 1, 2);
    expect_service("ike", 1, 1);
    expect_service("nat-t", 1, 1);
    expect_service("other", 0, 0);
}

Test(recount, two_flows_of_one_client_at_one_service_are_one_client)
{
    struct record_ref record = fixture_record(&fixture, 7, 1, 180, 0);

    fixture_session(&fixture, 5, 7, "nat-t", 1, &record);
    fixture_session(&fixture, 6, 7, "nat-t", 1, &record);
    fixture_recount(&fixture);
    expect_server(1, 1, 2);
    expect_service("nat-t", 1, 2);
}

Test(recount, without_persistence_every_flow_is_a_client)
{
    fixture_session(&fixture, 1, 7, "ike", 2, NULL);
    fixture_session(&fixture, 2, 7, "ike", 2, NULL);
    fixture_recount(&fixture);
    expect_server(2, 2, 2);
    expect_service("ike", 2, 2);
}

Test(recount, a_session_whose_record_moved_away_is_a_session_but_no_client)
{
    struct record_ref record = fixture_record(&fixture, 7, 0, 180, 0);

    fixture_session(&fixture, 1, 7, "ike", 0, &record);
    cr_assert(record_move(fixture.segment, &record, fixture.slots[1], (uint32_t)0));
    fixture_session(&fixture, 2, 7, "ike", 1, &record);
    fixture_recount(&fixture);
    expect_server(0, 0, 1);
    expect_server(1, 1, 1);
}

Test(recount, numbers_go_down_when_sessions_end)
{
    struct session_row *row = fixture_session(&fixture, 1, 7, "ike", 0, NULL);

    fixture_recount(&fixture);
    expect_server(0, 1, 1);
    session_end(row);
    fixture_recount(&fixture);
    expect_server(0, 0, 0);
    expect_service("ike", 0, 0);
}

Test(recount, a_service_that_left_the_file_still_counts_at_its_server)
{
    fixture_session(&fixture, 1, 7, "gone", 0, NULL);
    fixture_recount(&fixture);
    expect_server(0, 1, 1);
    expect_service("ike", 0, 0);
}

Test(recount, expired_records_go_unless_a_live_session_watches_them)
{
    struct record_ref fresh = fixture_record(&fixture, 1, 0, 180, 10);
    struct record_ref expired = fixture_record(&fixture, 2, 0, 180, 1000);
    struct record_ref held = fixture_record(&fixture, 3, 0, 180, 1000);
    struct record_ref never = fixture_record(&fixture, 4, 0, UINT32_MAX, 100000);
    struct session_row *row = fixture_session(&fixture, 9, 3, "nat-t", 0, &held);
    struct record_view view;

    fixture_recount(&fixture);
    cr_assert(record_read(fixture.segment, fresh.index, &view));
    cr_assert_not(record_read(fixture.segment, expired.index, &view), "an expired record stays");
    cr_assert(record_read(fixture.segment, held.index, &view), "a session's record was taken from under it");
    cr_assert(record_read(fixture.segment, never.index, &view));
    session_end(row);
    fixture_recount(&fixture);
    cr_assert_not(record_read(fixture.segment, held.index, &view), "nobody holds it any more");
}

/* A hostile worker may write anything into its rows. */
Test(recount, nonsense_in_a_row_hurts_nobody)
{
    struct record_ref wild = {.index = 0xfffffff0u, .value = UINT64_MAX};
    struct session_row *row = fixture_session(&fixture, 1, 7, "ike", 0, &wild);

    row->server = 0xffff;
    atomic_store(&fixture.segment->rows[2].state, (uint64_t)UINT32_MAX << 32 | SESSION_LIVE);
    fixture.segment->rows[2].server = SEGMENT_SERVERS;
    atomic_store(&fixture.segment->rows[2].record, record_capacity(fixture.segment));
    fixture_recount(&fixture);
    expect_service("ike", 0, 1);
}

Test(recount, many_rows_and_records_are_counted_over_many_turns)
{
    for (uint32_t i = 0; i < 4096; i++)
        fixture_session(&fixture, i, (uint8_t)(i % 200), i % 2 ? "ike" : "nat-t", i % 3, NULL);
    fixture_recount(&fixture);
    expect_server(0, 1366, 1366);
    expect_server(1, 1365, 1365);
    expect_service("ike", 2048, 2048);
}
