/* SPDX-License-Identifier: Apache-2.0 */
/* Which own address a client reaches its server from, and servers that refuse clients. */
#include "base/clock.h"
#include "segment/record.h"
#include "segment/source.h"
#include "world.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct world world;
static char yaml[2048];
static uint32_t worker;

static const char *with_source(const char *source, const char *more)
{
    snprintf(yaml, sizeof yaml,
             "servers:\n"
             "  vpn1: { address: 192.0.2.11 }\n"
             "  vpn2: { address: 192.0.2.12 }\n"
             "pools:\n"
             "  rras: { servers: [ vpn1, vpn2 ], source: %s%s }\n"
             "services:\n"
             "  ike: { listen: \"127.0.0.1:500\", protocol: udp, pool: rras }\n"
             "  tcp: { listen: \"127.0.0.1:443\", protocol: tcp, pool: rras }\n",
             source, more);
    return yaml;
}

static void open_with(const char *source, const char *more)
{
    world_open(&world, with_source(source, more));
    worker = process_begin(world.segment, PROCESS_WORKER, 0);
}

static void open_world(void)
{
    open_with("[ 127.0.0.21, 127.0.0.22, 127.0.0.23 ]", "");
}

static void close_world(void)
{
    world_close(&world);
}

TestSuite(source_choice, .init = open_world, .fini = close_world);

static struct record_ref record_make(uint32_t number, const char *server)
{
    const struct record_origin origin = {.timeout_s = 180};
    struct record_key key;
    struct record_ref ref;
    uint32_t evicted;

    record_key_make(&key, world.segment, 1, 0, &number, sizeof number);
    cr_assert_eq(
        record_claim(world.segment, worker, &key, world_server(&world, server), &origin, 100, true, &ref, &evicted),
        RECORD_CREATED);
    return ref;
}

static uint32_t choose(const char *server, const struct record_ref *ref, bool heard, int32_t prefer, uint8_t client)
{
    const struct hp_endpoint from = {.family = 4, .address = {192, 0, 2, client}};
    const struct topology_source_question question = {.server = world_server(&world, server),
                                                      .record = ref != NULL ? ref->index : SEGMENT_NO_INDEX,
                                                      .watch = ref != NULL ? RECORD_DECISION(ref->value) : 0,
                                                      .heard = heard,
                                                      .prefer = prefer,
                                                      .client = &from};

    return topology_source(world.topology, world_service(&world, "ike"), &question);
}

static void refuse(const char *server, uint32_t source)
{
    for (uint32_t i = 0; i < 8; i++)
        source_answer(world.segment, world_server(&world, server), source, false, clock_now_ms());
}

Test(source_choice, new_clients_are_spread_evenly_for_each_server)
{
    uint32_t chosen[SEGMENT_SOURCES] = {0};

    for (uint32_t i = 0; i < 12; i++) {
        struct record_ref ref = record_make(i, i % 2 ? "vpn1" : "vpn2");

        chosen[choose(i % 2 ? "vpn1" : "vpn2", &ref, false, -1, 1)]++;
    }
    for (uint32_t i = 1; i <= 3; i++)
        cr_assert_eq(chosen[i], 4, "source %u: %u", i, chosen[i]);
}

Test(source_choice, the_fewest_that_are_not_proven_win)
{
    uint32_t server = world_server(&world, "vpn1");
    struct record_ref ref = record_make(1, "vpn1");

    source_publish(world.segment, server, 1, 100, 2, 0);
    source_publish(world.segment, server, 2, 500, 0, 0);
    source_publish(world.segment, server, 3, 0, 1, 0);
    cr_assert_eq(choose("vpn1", &ref, false, -1, 1), 2, "however many it has that are");
}

Test(source_choice, a_record_keeps_it)
{
    struct record_ref ref = record_make(1, "vpn1");
    uint32_t first = choose("vpn1", &ref, false, -1, 1);

    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(choose("vpn1", &ref, i % 2, -1, 1), first);
    refuse("vpn1", first);
    cr_assert_eq(choose("vpn1", &ref, true, -1, 1), first, "a known client is not sent elsewhere");
}

Test(source_choice, a_server_that_refuses_one_address_is_reached_from_the_others)
{
    refuse("vpn1", 1);
    refuse("vpn1", 3);
    for (uint32_t i = 0; i < 6; i++) {
        struct record_ref ref = record_make(i, "vpn1");

        cr_assert_eq(choose("vpn1", &ref, false, -1, 1), 2);
    }
    cr_assert_not(topology_refuses(world.topology, world_service(&world, "ike"), world_server(&world, "vpn1")));
    refuse("vpn1", 2);
    cr_assert(topology_refuses(world.topology, world_service(&world, "ike"), world_server(&world, "vpn1")));
    cr_assert_not(topology_refuses(world.topology, world_service(&world, "tcp"), world_server(&world, "vpn1")),
                  "SSTP is no IKE_SA");
}

Test(source_choice, a_server_that_refuses_all_gets_no_new_client)
{
    struct topology_service *ike = world_service(&world, "ike");
    int32_t vpn1 = (int32_t)world_server(&world, "vpn1"), vpn2 = (int32_t)world_server(&world, "vpn2");
    const struct topology_question known = {.new_sa = true};

    for (uint32_t i = 1; i <= 3; i++)
        refuse("vpn1", i);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(topology_schedule(world.topology, ike, 0), vpn2);
    cr_assert_not(topology_takes_new(world.topology, ike, topology_member(ike, (uint32_t)vpn1)));
    cr_assert_eq(topology_ask(world.topology, ike, (uint32_t)vpn1, &known), TOPOLOGY_HONOUR, "the known ones stay");
    for (uint32_t i = 1; i <= 3; i++)
        refuse("vpn2", i);
    cr_assert(topology_all_refuse(world.topology, ike));
    cr_assert_neq(topology_schedule(world.topology, ike, 0), topology_schedule(world.topology, ike, 0),
                  "all refuse: all serve");
}

Test(source_choice, a_server_that_refuses_is_better_than_one_that_is_down)
{
    struct topology_service *ike = world_service(&world, "ike");

    world_down(&world, "vpn1", 500, true);
    for (uint32_t i = 1; i <= 3; i++)
        refuse("vpn2", i);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(topology_schedule(world.topology, ike, 0), (int32_t)world_server(&world, "vpn2"));
}

Test(source_choice, an_address_that_is_not_here_is_passed_over_and_left)
{
    struct record_ref ref = record_make(1, "vpn1"), other = record_make(2, "vpn1");
    uint32_t first = choose("vpn1", &ref, false, -1, 1), second;

    source_set_absent(world.segment, first, true);
    second = choose("vpn1", &ref, true, (int32_t)first, 1);
    cr_assert_neq(second, first);
    cr_assert_eq(choose("vpn1", &ref, true, -1, 1), second, "and all its flows follow");
    source_set_absent(world.segment, first, false);
    cr_assert_eq(choose("vpn1", &ref, true, -1, 1), second, "nobody goes back by himself");
    for (uint32_t i = 1; i <= 3; i++)
        source_set_absent(world.segment, i, true);
    cr_assert_eq(choose("vpn1", &other, false, -1, 1), SEGMENT_NO_INDEX);
    cr_assert_eq(choose("vpn1", NULL, false, -1, 1), SEGMENT_NO_INDEX);
    cr_assert(topology_refuses(world.topology, world_service(&world, "tcp"), world_server(&world, "vpn1")));
}

Test(source_choice, one_that_left_the_list_is_kept_by_those_whose_sessions_may_live)
{
    struct record_ref ref = record_make(1, "vpn1");
    uint32_t first = choose("vpn1", &ref, false, -1, 1), later;

    world_reload(&world, with_source("[ 127.0.0.31 ]", ""));
    cr_assert_eq(choose("vpn1", &ref, true, -1, 1), first);
    later = choose("vpn1", &ref, false, -1, 1);
    cr_assert_eq(later, 4);
    cr_assert_eq(choose("vpn1", &ref, true, -1, 1), later);
}

Test(source_choice, the_session_that_goes_on_brings_its_own)
{
    struct record_ref ref = record_make(1, "vpn1");

    cr_assert_eq(choose("vpn1", &ref, false, 3, 1), 3);
    cr_assert_eq(choose("vpn1", &ref, false, -1, 1), 3);
    cr_assert_eq(choose("vpn1", NULL, false, 2, 1), 2);
}

Test(source_choice, without_a_record_all_flows_of_a_client_come_from_one)
{
    uint32_t chosen[SEGMENT_SOURCES] = {0};

    for (uint8_t client = 1; client < 200; client++) {
        uint32_t source = choose("vpn1", NULL, false, -1, client);

        cr_assert_eq(choose("vpn1", NULL, false, -1, client), source);
        chosen[source]++;
    }
    for (uint32_t i = 1; i <= 3; i++)
        cr_assert_gt(chosen[i], 30);
}

Test(source_choice, nat_is_the_routes_choice_for_everybody)
{
    struct record_ref ref;

    close_world();
    open_with("nat", "");
    ref = record_make(1, "vpn1");
    cr_assert_eq(choose("vpn1", &ref, false, -1, 1), SOURCE_ROUTE);
    cr_assert_eq(choose("vpn1", NULL, false, -1, 1), SOURCE_ROUTE);
}

Test(source_choice, all_down_refuse_refuses_when_all_do)
{
    close_world();
    open_with("nat", ", all_down: refuse");
    refuse("vpn1", SOURCE_ROUTE);
    cr_assert_eq(topology_schedule(world.topology, world_service(&world, "ike"), 0),
                 (int32_t)world_server(&world, "vpn2"));
    refuse("vpn2", SOURCE_ROUTE);
    cr_assert_eq(topology_schedule(world.topology, world_service(&world, "ike"), 0), -1);
}

Test(source_choice, families_are_kept_apart)
{
    static const char text[] = "servers:\n"
                               "  vpn1: { address: 192.0.2.11 }\n"
                               "  vpn2: { address: \"2001:db8::12\" }\n"
                               "pools:\n"
                               "  rras: { servers: [ vpn1, vpn2 ], source: [ 127.0.0.21, \"fd00::21\", 127.0.0.22 ] }\n"
                               "services:\n"
                               "  ike: { listen: \"127.0.0.1:500\", protocol: udp, pool: rras }\n";

    close_world();
    world_open(&world, text);
    worker = process_begin(world.segment, PROCESS_WORKER, 0);
    for (uint32_t i = 0; i < 4; i++) {
        struct record_ref one = record_make(i, "vpn1"), other = record_make(100 + i, "vpn2");

        cr_assert_neq(choose("vpn1", &one, false, -1, 1), 2);
        cr_assert_eq(choose("vpn2", &other, false, -1, 1), 2);
    }
}
