/* SPDX-License-Identifier: Apache-2.0 */
/* The table "Server states" of config.md, cell by cell, and limits. */
#include "pool/scheduler.h"
#include "world.h"

#include <criterion/criterion.h>
#include <string.h>

static struct world world;
static char yaml[2048];

static void open_world(void)
{
    static const char text[] = "servers:\n"
                               "  vpn1: { address: 192.0.2.11, max_clients: 10 }\n"
                               "  vpn2: { address: 192.0.2.12 }\n"
                               "  vpn3: { address: 192.0.2.13 }\n"
                               "pools:\n"
                               "  rras: { servers: [ vpn1, vpn2 ] }\n"
                               "  wide: { servers: [ vpn1, vpn2, vpn3 ] }\n"
                               "  strict: { servers: [ vpn1, vpn2 ], all_down: refuse }\n"
                               "services:\n"
                               "  ike:    { listen: \"127.0.0.1:500\",  protocol: udp, pool: rras, max_clients: 5 }\n"
                               "  syslog: { listen: \"127.0.0.1:514\",  protocol: udp, pool: rras }\n"
                               "  stream: { listen: \"127.0.0.1:443\",  protocol: tcp, pool: rras }\n"
                               "  wide:   { listen: \"127.0.0.1:4500\", protocol: udp, pool: wide }\n"
                               "  strict: { listen: \"127.0.0.2:4500\", protocol: udp, pool: strict }\n";

    memcpy(yaml, text, sizeof text);
    world_open(&world, yaml);
    world.config->services[1].ike = false; /* what another UDP service is, until its check can be written */
}

static void close_world(void)
{
    world_close(&world);
}

TestSuite(eligible, .init = open_world, .fini = close_world);

enum { NEW_SA = 1, HEARD = 2, OVER = 4, ANY_POOL = 8, TAKEN_OUT = 16 };

static enum topology_answer ask(const char *service, const char *server, unsigned what)
{
    const struct topology_question question = {.new_sa = (what & NEW_SA) != 0,
                                               .heard = (what & HEARD) != 0,
                                               .over_limit = (what & OVER) != 0,
                                               .any_pool = (what & ANY_POOL) != 0,
                                               .taken_out = (what & TAKEN_OUT) != 0};

    return topology_ask(world.topology, world_service(&world, service), world_server(&world, server), &question);
}

static enum topology_pass datagram(const char *service, const char *server, bool new_sa)
{
    const struct topology_service *of = world_service(&world, service);

    return topology_datagram(world.topology, of, topology_member(of, world_server(&world, server)), new_sa);
}

static bool takes_new(const char *service, const char *server)
{
    const struct topology_service *of = world_service(&world, service);

    return topology_takes_new(world.topology, of, topology_member(of, world_server(&world, server)));
}

struct row { /* of the table: administrative states do not ask what kind of service or datagram it is */
    enum server_state state;
    bool takes_new;
    enum topology_answer not_heard, heard;
    enum topology_pass ike_other, ike_new_sa, udp;
};

Test(eligible, administrative_states_are_as_the_table_says)
{
    static const struct row rows[] = {
        {SERVER_ENABLED, true, TOPOLOGY_HONOUR, TOPOLOGY_HONOUR, TOPOLOGY_PASS, TOPOLOGY_PASS, TOPOLOGY_PASS},
        {SERVER_DRAIN, false, TOPOLOGY_HONOUR, TOPOLOGY_HONOUR, TOPOLOGY_PASS, TOPOLOGY_PASS, TOPOLOGY_PASS},
        {SERVER_OFFLINE, false, TOPOLOGY_MOVE, TOPOLOGY_HONOUR_STILL, TOPOLOGY_PASS, TOPOLOGY_PASS, TOPOLOGY_PASS},
        {SERVER_DISABLED, false, TOPOLOGY_MOVE, TOPOLOGY_MOVE, TOPOLOGY_DROP, TOPOLOGY_DECIDE_ANEW,
         TOPOLOGY_DECIDE_ANEW},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world_state(&world, "vpn1", rows[i].state);
        cr_expect_eq(takes_new("ike", "vpn1"), rows[i].takes_new, "row %zu", i);
        for (unsigned new_sa = 0; new_sa <= NEW_SA; new_sa++) {
            cr_expect_eq(ask("ike", "vpn1", new_sa), rows[i].not_heard, "row %zu", i);
            cr_expect_eq(ask("ike", "vpn1", new_sa | HEARD), rows[i].heard, "row %zu", i);
        }
        cr_expect_eq(datagram("ike", "vpn1", false), rows[i].ike_other, "row %zu", i);
        cr_expect_eq(datagram("ike", "vpn1", true), rows[i].ike_new_sa, "row %zu", i);
        cr_expect_eq(datagram("syslog", "vpn1", false), rows[i].udp, "row %zu", i);
    }
}

Test(eligible, down_moves_an_ike_client_at_its_next_ike_sa_init_alone)
{
    world_down(&world, "vpn1", 500, true);
    cr_assert_not(takes_new("ike", "vpn1"));
    for (unsigned heard = 0; heard <= HEARD; heard += HEARD) {
        cr_assert_eq(ask("ike", "vpn1", heard | NEW_SA), TOPOLOGY_MOVE);
        cr_assert_eq(ask("ike", "vpn1", heard), TOPOLOGY_HONOUR);
    }
    cr_assert_eq(datagram("ike", "vpn1", false), TOPOLOGY_PASS);
    cr_assert_eq(datagram("ike", "vpn1", true), TOPOLOGY_DECIDE_ANEW);
}

Test(eligible, down_moves_clients_of_other_udp_services_at_once)
{
    uint32_t slot = world_server(&world, "vpn1");

    /* check auto gives such a service no probe of its own in this version: the bit is set by hand */
    world_service(&world, "syslog")->members[0].down_mask = 1ull << 9;
    server_set_down(world.segment, slot, 9, true);
    cr_assert_not(takes_new("syslog", "vpn1"));
    cr_assert_eq(ask("syslog", "vpn1", 0), TOPOLOGY_MOVE);
    cr_assert_eq(ask("syslog", "vpn1", HEARD), TOPOLOGY_MOVE);
    cr_assert_eq(datagram("syslog", "vpn1", false), TOPOLOGY_DECIDE_ANEW);
}

Test(eligible, down_sends_a_stream_elsewhere_and_leaves_its_record)
{
    world_service(&world, "stream")->members[0].down_mask = 1ull << 9;
    server_set_down(world.segment, world_server(&world, "vpn1"), 9, true);
    cr_assert_not(takes_new("stream", "vpn1"));
    cr_assert_eq(ask("stream", "vpn1", 0), TOPOLOGY_FOREIGN);
    cr_assert_eq(ask("stream", "vpn1", HEARD), TOPOLOGY_FOREIGN);
    cr_assert_eq(datagram("stream", "vpn1", false), TOPOLOGY_PASS);
}

Test(eligible, offline_and_down_together_are_the_harder_of_the_two)
{
    world_state(&world, "vpn1", SERVER_OFFLINE);
    world_down(&world, "vpn1", 500, true);
    cr_assert_eq(ask("ike", "vpn1", 0), TOPOLOGY_MOVE);
    cr_assert_eq(ask("ike", "vpn1", HEARD), TOPOLOGY_HONOUR_STILL);
    cr_assert_eq(ask("ike", "vpn1", HEARD | NEW_SA), TOPOLOGY_MOVE);
}

Test(eligible, a_pool_that_is_down_as_a_whole_serves_as_if_it_were_up)
{
    world_down(&world, "vpn1", 500, true);
    world_down(&world, "vpn2", 500, true);
    cr_assert(takes_new("ike", "vpn1"));
    cr_assert_eq(ask("ike", "vpn1", NEW_SA), TOPOLOGY_HONOUR);
    cr_assert_eq(datagram("ike", "vpn1", true), TOPOLOGY_PASS);
    world_state(&world, "vpn2", SERVER_DISABLED); /* does not count */
    cr_assert(takes_new("ike", "vpn1"));
    cr_assert_not(takes_new("ike", "vpn2"));
}

Test(eligible, a_pool_that_is_down_as_a_whole_refuses_when_it_is_told_to)
{
    world_down(&world, "vpn1", 4500, true);
    world_down(&world, "vpn2", 4500, true);
    cr_assert_not(takes_new("strict", "vpn1"));
    cr_assert_eq(ask("strict", "vpn1", NEW_SA), TOPOLOGY_MOVE);
    cr_assert_eq(ask("strict", "vpn1", 0), TOPOLOGY_HONOUR);
    cr_assert_eq(topology_schedule(world.topology, world_service(&world, "strict"), 1), -1);
}

Test(eligible, a_server_that_this_pool_never_named_is_foreign)
{
    cr_assert_eq(ask("ike", "vpn3", HEARD), TOPOLOGY_FOREIGN);
    cr_assert_eq(ask("ike", "vpn3", ANY_POOL), TOPOLOGY_HONOUR);
    world_state(&world, "vpn3", SERVER_DISABLED);
    cr_assert_eq(ask("ike", "vpn3", ANY_POOL), TOPOLOGY_MOVE);
}

Test(eligible, a_server_that_was_taken_out_of_the_pool_drains_there)
{
    cr_assert_eq(ask("ike", "vpn3", TAKEN_OUT), TOPOLOGY_HONOUR);
    world_state(&world, "vpn3", SERVER_DISABLED);
    cr_assert_eq(ask("ike", "vpn3", TAKEN_OUT | HEARD), TOPOLOGY_MOVE);
    cr_assert_eq(topology_datagram(world.topology, world_service(&world, "ike"), NULL, false), TOPOLOGY_PASS);
}

Test(eligible, a_record_with_nonsense_for_a_server_moves)
{
    const struct topology_question question = {.any_pool = true, .heard = true, .taken_out = true};

    for (uint32_t slot = SEGMENT_SERVERS; slot <= RECORD_DEAD; slot++)
        cr_assert_eq(topology_ask(world.topology, world_service(&world, "ike"), slot, &question), TOPOLOGY_MOVE);
}

Test(eligible, a_full_server_takes_nobody_new)
{
    world_recount(&world, "vpn1", 9);
    cr_assert(takes_new("ike", "vpn1"));
    topology_count_client(world.topology, world_service(&world, "ike"), world_server(&world, "vpn1"));
    cr_assert_not(takes_new("ike", "vpn1"));
    cr_assert_eq(ask("ike", "vpn1", 0), TOPOLOGY_FULL);
    cr_assert_eq(ask("ike", "vpn1", HEARD), TOPOLOGY_HONOUR, "it is counted there already");
    cr_assert_eq(ask("ike", "vpn1", OVER), TOPOLOGY_HONOUR);
}

Test(eligible, what_this_process_has_added_is_forgotten_at_the_next_recount)
{
    for (int i = 0; i < 10; i++)
        topology_count_client(world.topology, world_service(&world, "ike"), world_server(&world, "vpn1"));
    cr_assert_eq(server_clients(world.topology, world_server(&world, "vpn1")), 10);
    world_recount(&world, "vpn1", 3);
    cr_assert_eq(server_clients(world.topology, world_server(&world, "vpn1")), 3);
    cr_assert(takes_new("ike", "vpn1"));
}

Test(eligible, a_service_is_full_at_its_own_max_clients)
{
    struct topology_service *service = world_service(&world, "ike");

    for (int i = 0; i < 5; i++) {
        cr_assert_not(topology_service_full(world.topology, service));
        topology_count_client(world.topology, service, world_server(&world, "vpn2"));
    }
    cr_assert(topology_service_full(world.topology, service));
    cr_assert_not(topology_service_full(world.topology, world_service(&world, "wide")), "no limit is none");
}
