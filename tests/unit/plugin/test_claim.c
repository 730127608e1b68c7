/* SPDX-License-Identifier: Apache-2.0 */
/* Named after the lines at the top of claim.c. */
#include "deciding.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static struct deciding deciding;

static void close_deciding(void)
{
    deciding_close(&deciding);
}

TestSuite(claim, .fini = close_deciding);

Test(claim, a_clients_second_port_follows_its_first_on_any_worker)
{
    struct decision first, second;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "ike", 7);
    second = ask(&deciding, 1, "nat-t", 7, -1, LATER);
    cr_assert_eq(first.reason, DECISION_NEW_RECORD);
    cr_assert_eq(second.reason, DECISION_RECORD);
    cr_assert_eq(first.server, second.server);
    cr_assert(watch_holds(&deciding, &first));
    cr_assert_eq(first.record, second.record);
    cr_assert_eq(first.watch, second.watch);
    cr_assert_eq(counted(&deciding, COUNTER_records_created), 1);
    cr_assert_eq(counted(&deciding, COUNTER_decisions), 2);
}

Test(claim, sixty_clients_of_two_workers_are_twenty_a_server)
{
    uint32_t clients[3] = {0};

    deciding_open(&deciding, "derived", "");
    for (uint32_t i = 0; i < 60; i++) {
        struct decision first = ask(&deciding, i % 5 < 2, "ike", i, -1, INIT);
        struct decision second = ask(&deciding, i % 3 < 2, "nat-t", i, -1, LATER);

        cr_assert_eq(first.server, second.server);
        clients[first.server]++;
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(clients[i], 20);
}

struct racer {
    uint32_t worker;
    const char *service;
    int32_t servers[400];
    pthread_barrier_t *barrier;
};

static void *race(void *arg)
{
    struct racer *racer = arg;
    const struct hp_endpoint local = {.family = 4};

    for (uint32_t i = 0; i < 400; i++) {
        const struct hp_endpoint client = {.address = {10, 0, (uint8_t)(i >> 8), (uint8_t)i}, .family = 4};
        const struct decision_request request = {
            .service = racer->worker, .client = &client, .local = &local, .own_server = -1, .now_s = START_S};
        struct decision decision;

        if (i % 8 == 0)
            pthread_barrier_wait(racer->barrier);
        decide(deciding.deciders[racer->worker], &request, &decision);
        racer->servers[i] = decision.server;
    }
    return NULL;
}

/* Not as processes, but on slots of their own: what one does meets what the other does at any instruction. */
Test(claim, two_workers_that_claim_one_key_at_once_agree)
{
    static struct racer racers[2];
    pthread_barrier_t barrier;
    pthread_t threads[2];

    deciding_open(&deciding, "derived", "");
    pthread_barrier_init(&barrier, NULL, 2);
    for (uint32_t i = 0; i < 2; i++) {
        racers[i] = (struct racer){.worker = i, .barrier = &barrier};
        cr_assert_eq(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    for (int i = 0; i < 400; i++)
        cr_assert_eq(racers[0].servers[i], racers[1].servers[i], "client %d was split", i);
    cr_assert_eq(counted(&deciding, COUNTER_records_created), 400);
}

Test(claim, a_record_is_extended_by_each_new_flow)
{
    struct decision first;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "ike", 1);
    deciding.now_s += 170;
    ask_new(&deciding, "nat-t", 1);
    cr_assert_eq(record_age(&deciding, &first), 0);
    deciding.now_s += 170;
    cr_assert_eq(ask_new(&deciding, "ike", 1).reason, DECISION_RECORD);
}

Test(claim, an_expired_record_is_as_if_gone)
{
    struct decision first, second;
    struct record_view view;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "ike", 1);
    prove(&deciding, &first);
    deciding.now_s += 181;
    second = ask_new(&deciding, "ike", 1);
    cr_assert_eq(second.reason, DECISION_NEW_RECORD);
    cr_assert_neq(second.server, first.server, "it is the next one's turn");
    cr_assert(record_read(deciding.world.segment, second.record, &view));
    cr_assert_eq(view.created_s, deciding.now_s);
    cr_assert_not(RECORD_PROVEN(view.ref.value), "nobody has proven anything to the new server");
}

/* Expiry moves nobody: the session that is still there takes the record again. */
Test(claim, a_live_session_puts_its_own_server_back_when_the_record_has_expired)
{
    struct decision first, again;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "ike", 1);
    deciding.now_s += 500;
    again = ask(&deciding, 1, "ike", 1, first.server, LATER);
    cr_assert_eq(again.reason, DECISION_PUT_BACK);
    cr_assert_eq(again.server, first.server);
    cr_assert(watch_holds(&deciding, &again));
    cr_assert_eq(counted(&deciding, COUNTER_records_put_back), 1);
    cr_assert_eq(ask_new(&deciding, "nat-t", 1).server, first.server);
}

Test(claim, a_live_session_puts_its_own_server_back_when_the_record_was_evicted)
{
    struct decision first, again;
    struct record_ref ref;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "nat-t", 1);
    ref = (struct record_ref){first.record, record_value(deciding.world.segment, first.record)};
    cr_assert(record_delete(deciding.world.segment, &ref));
    cr_assert_not(watch_holds(&deciding, &first), "which the session sees at its next datagram");
    again = ask(&deciding, 0, "nat-t", 1, first.server, LATER);
    cr_assert_eq(again.reason, DECISION_PUT_BACK);
    cr_assert_eq(again.server, first.server);
}

Test(claim, a_live_session_whose_server_may_not_serve_puts_nothing_back)
{
    struct decision first, again;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "ike", 1);
    server_set_state(deciding.world.segment, (uint32_t)first.server, SERVER_DISABLED, true);
    deciding.now_s += 500;
    again = ask(&deciding, 0, "ike", 1, first.server, INIT);
    cr_assert_eq(again.reason, DECISION_NEW_RECORD);
    cr_assert_neq(again.server, first.server);
}

Test(claim, a_live_session_follows_a_record_that_names_another_server)
{
    struct decision first, moved, followed;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "nat-t", 1);
    server_set_state(deciding.world.segment, (uint32_t)first.server, SERVER_DISABLED, true);
    moved = ask(&deciding, 1, "ike", 1, -1, INIT);
    cr_assert_eq(moved.reason, DECISION_MOVED);
    cr_assert_not(watch_holds(&deciding, &first));
    followed = ask(&deciding, 0, "nat-t", 1, first.server, LATER);
    cr_assert_eq(followed.server, moved.server);
    cr_assert_eq(followed.reason, DECISION_RECORD);
    cr_assert(watch_holds(&deciding, &followed));
    cr_assert_eq(counted(&deciding, COUNTER_records_moved), 1);
}

/* The state table end to end: what a new flow of a known client gets. */
struct state_case {
    enum server_state state;
    uint32_t silent_s;
    enum decision_reason reason;
    bool extended;
};

Test(claim, server_states_are_as_the_table_says)
{
    static const struct state_case cases[] = {
        {SERVER_ENABLED, 150, DECISION_RECORD, true}, {SERVER_ENABLED, 50, DECISION_RECORD, true},
        {SERVER_DRAIN, 150, DECISION_RECORD, true},   {SERVER_DRAIN, 50, DECISION_RECORD, true},
        {SERVER_OFFLINE, 150, DECISION_MOVED, true},  {SERVER_OFFLINE, 50, DECISION_RECORD, false},
        {SERVER_DISABLED, 150, DECISION_MOVED, true}, {SERVER_DISABLED, 50, DECISION_MOVED, true},
    };

    deciding_open(&deciding, "scripted", "");
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct decision first = ask_new(&deciding, "ike", i), second;

        server_set_state(deciding.world.segment, (uint32_t)first.server, cases[i].state, true);
        deciding.now_s += cases[i].silent_s;
        second = ask_new(&deciding, "nat-t", i);
        cr_expect_eq(second.reason, cases[i].reason, "case %u: %s", i, decision_reason_name(second.reason));
        cr_expect_eq(second.server == first.server, cases[i].reason == DECISION_RECORD, "case %u", i);
        cr_expect_eq(record_age(&deciding, &second), cases[i].extended ? 0 : cases[i].silent_s, "case %u", i);
        cr_expect(watch_holds(&deciding, &second), "case %u", i);
        server_set_state(deciding.world.segment, (uint32_t)first.server, SERVER_ENABLED, true);
    }
}

Test(claim, a_down_servers_client_moves_with_its_next_ike_sa_init_alone)
{
    struct decision first, later, moved;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "ike", 1);
    server_set_down(deciding.world.segment, (uint32_t)first.server, 0, true);
    later = ask(&deciding, 0, "nat-t", 1, -1, LATER);
    cr_assert_eq(later.server, first.server);
    moved = ask(&deciding, 0, "ike", 1, first.server, INIT);
    cr_assert_eq(moved.reason, DECISION_MOVED);
    cr_assert_neq(moved.server, first.server);
    cr_assert_eq(ask(&deciding, 1, "nat-t", 1, later.server, LATER).server, moved.server, "its other session follows");
}

Test(claim, with_new_flows_traffic_does_not_extend_and_a_new_flow_does)
{
    struct decision first, again;

    deciding_open(&deciding, "scripted", "flags: 16");
    first = ask_new(&deciding, "ike", 1);
    cr_assert_eq(first.flags, SESSION_NEW_FLOWS);
    deciding.now_s += 30;
    again = ask(&deciding, 0, "ike", 1, first.server, LATER);
    cr_assert_eq(again.reason, DECISION_RECORD);
    cr_assert_eq(record_age(&deciding, &again), 30);
    again = ask_new(&deciding, "nat-t", 1);
    cr_assert_eq(record_age(&deciding, &again), 0);
    deciding.now_s += 300;
    cr_assert_eq(ask(&deciding, 0, "ike", 1, first.server, LATER).reason, DECISION_PUT_BACK);
}

Test(claim, prefer_is_taken_for_a_new_record_while_it_may_serve)
{
    deciding_open(&deciding, "scripted", "server: 2");
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(ask_new(&deciding, "ike", i).server, 2);
    server_set_state(deciding.world.segment, 2, SERVER_DRAIN, true);
    cr_assert_neq(ask_new(&deciding, "ike", 9).server, 2);
    cr_assert_eq(ask_new(&deciding, "ike", 1).server, 2, "a record is a record");
}

Test(claim, a_changed_timeout_reaches_records_that_are_there)
{
    struct decision first;
    struct record_view view;
    char yaml[2048];

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "ike", 1);
    deciding_reload(&deciding, deciding_yaml(yaml, "scripted", "timeout: 10m", ""));
    ask_new(&deciding, "nat-t", 1);
    cr_assert(record_read(deciding.world.segment, first.record, &view));
    cr_assert_eq(view.timeout_s, 600);
}

static const char two_pools[] =
    "servers:\n"
    "  vpn1: { address: 192.0.2.11 }\n"
    "  vpn2: { address: 192.0.2.12 }\n"
    "pools:\n"
    "  one: { servers: [ vpn1 ] }\n"
    "  two: { servers: [ vpn2 ] }\n"
    "persistence:\n"
    "  home: { plugin: " MODULES "/scripted.so, options: { flags: %u } }\n"
    "services:\n"
    "  ike:   { listen: \"127.0.0.1:500\",  protocol: udp, pool: one, persistence: home }\n"
    "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: two, persistence: home }\n";

static void open_two_pools(uint32_t flags)
{
    char yaml[2048];

    snprintf(yaml, sizeof yaml, two_pools, flags);
    deciding_open_yaml(&deciding, yaml, 1600);
}

Test(claim, a_server_that_this_pool_does_not_name_leaves_the_record_as_it_is)
{
    struct decision first, second;

    open_two_pools(0);
    first = ask_new(&deciding, "ike", 1);
    deciding.now_s += 5;
    second = ask_new(&deciding, "nat-t", 1);
    cr_assert_eq(second.server, server_named(&deciding, "vpn2"));
    cr_assert_eq(second.reason, DECISION_NO_RECORD);
    cr_assert_eq(second.record, SEGMENT_NO_INDEX);
    cr_assert(watch_holds(&deciding, &first));
    cr_assert_eq(record_age(&deciding, &first), 5);
    cr_assert_eq(counted(&deciding, COUNTER_records_foreign_pool), 1);
}

Test(claim, any_pool_takes_the_server_of_another_pool)
{
    struct decision first, second;

    open_two_pools(8);
    first = ask_new(&deciding, "ike", 1);
    second = ask_new(&deciding, "nat-t", 1);
    cr_assert_eq(second.server, first.server);
    cr_assert_eq(second.reason, DECISION_RECORD);
}

/* The handshake of a client that was on 500 when the file was reloaded must not be split. */
Test(claim, a_server_taken_out_of_its_pool_drains_there)
{
    static const char smaller[] =
        "servers:\n"
        "  vpn2: { address: 192.0.2.12 }\n"
        "  vpn3: { address: 192.0.2.13 }\n"
        "pools:\n"
        "  rras: { servers: [ vpn2, vpn3 ] }\n"
        "persistence:\n"
        "  home: { plugin: " MODULES "/scripted.so }\n"
        "services:\n"
        "  ike:   { listen: \"127.0.0.1:500\",  protocol: udp, pool: rras, persistence: home }\n"
        "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: rras, persistence: home }\n";
    struct decision first;

    deciding_open(&deciding, "scripted", "");
    first = ask_new(&deciding, "ike", 1);
    cr_assert_eq(first.server, server_named(&deciding, "vpn1"));
    deciding_reload(&deciding, smaller);
    cr_assert_eq(ask(&deciding, 0, "nat-t", 1, -1, LATER).server, first.server);
    for (uint32_t i = 2; i < 9; i++)
        cr_assert_neq(ask_new(&deciding, "ike", i).server, first.server);
    deciding.now_s += 500;
    cr_assert_eq(ask(&deciding, 0, "ike", 1, first.server, LATER).server, first.server, "its session drains too");
}

static void open_small(const char *when_full)
{
    char yaml[2048], small[2200];

    deciding_yaml(yaml, "scripted", "", "");
    snprintf(small, sizeof small, "affinity: { capacity: 16, when_full: %s }\n%s", when_full, strchr(yaml, '\n') + 1);
    deciding_open_yaml(&deciding, small, 1);
}

/* All buckets, whatever their number, full of clients from 1 on; how many there are. */
static uint32_t fill(bool proven)
{
    uint32_t capacity = record_capacity(deciding.world.segment), count = 0, client = 1;

    for (; count < capacity && client < 60000; client++) {
        struct decision decision = ask_new(&deciding, "ike", client);

        count += decision.reason == DECISION_NEW_RECORD;
        if (proven && decision.reason == DECISION_NEW_RECORD)
            prove(&deciding, &decision);
    }
    cr_assert_eq(count, capacity);
    return client;
}

Test(claim, an_unproven_record_makes_room)
{
    uint32_t next;

    open_small("evict");
    next = fill(false);
    deciding.now_s++;
    cr_assert_eq(ask_new(&deciding, "ike", next).reason, DECISION_NEW_RECORD);
    cr_assert_geq(counted(&deciding, COUNTER_records_evicted), 1);
}

Test(claim, where_all_are_proven_maglev_serves_without_a_record)
{
    struct decision first, second;
    uint32_t next;

    open_small("evict");
    next = fill(true);
    first = ask_new(&deciding, "ike", next);
    second = ask(&deciding, 1, "nat-t", next, -1, LATER);
    cr_assert_eq(first.reason, DECISION_TABLE_FULL);
    cr_assert_eq(first.server, second.server, "both ports, both workers");
    cr_assert_eq(first.record, SEGMENT_NO_INDEX);
    cr_assert_geq(counted(&deciding, COUNTER_records_table_full), 2);
    cr_assert_eq(counted(&deciding, COUNTER_records_evicted), 0);
}

Test(claim, when_full_refuse_drops_a_new_client_and_keeps_a_live_session)
{
    struct decision refused, kept;
    uint32_t next;

    open_small("refuse");
    next = fill(false);
    refused = ask_new(&deciding, "ike", next);
    cr_assert_eq(refused.server, -1);
    cr_assert_eq(refused.reason, DECISION_REFUSED_FULL);
    cr_assert_geq(counted(&deciding, COUNTER_refused_records_full), 1);
    cr_assert_eq(counted(&deciding, COUNTER_refused_by_plugin), 0, "it is counted once");
    kept = ask(&deciding, 0, "ike", next, 2, LATER);
    cr_assert_eq(kept.server, 2);
    cr_assert_eq(kept.reason, DECISION_TABLE_FULL);
}

Test(claim, no_server_that_may_serve_writes_nothing)
{
    deciding_open(&deciding, "scripted", "");
    for (int32_t i = 0; i < 3; i++)
        server_set_state(deciding.world.segment, (uint32_t)i, SERVER_DISABLED, true);
    cr_assert_eq(ask_new(&deciding, "ike", 1).reason, DECISION_NO_SERVER);
    cr_assert_eq(counted(&deciding, COUNTER_refused_no_server), 1);
    cr_assert_eq(counted(&deciding, COUNTER_records_created), 0);
}
