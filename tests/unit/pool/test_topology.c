/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <criterion/criterion.h>
#include <errno.h>

static const char grouped[] = "servers:\n"
                              "  vpn1: { address: 192.0.2.11 }\n"
                              "  vpn2: { address: 192.0.2.12 }\n"
                              "pools:\n"
                              "  both: { servers: [ vpn1, vpn2 ] }\n"
                              "persistence:\n"
                              "  home: { plugin: source_address }\n"
                              "  other: { plugin: source_address }\n"
                              "services:\n"
                              "  ike:   { listen: \"127.0.0.1:500\",  protocol: udp, pool: both, persistence: home }\n"
                              "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: both, persistence: home }\n"
                              "  loner: { listen: \"127.0.0.1:501\", protocol: udp, pool: both, persistence: home,\n"
                              "           health: { group: no } }\n"
                              "  third: { listen: \"127.0.0.1:502\", protocol: udp, pool: both, persistence: other }\n"
                              "  plain: { listen: \"127.0.0.1:503\", protocol: udp, pool: both }\n";

static struct world world;

static void open_world(void)
{
    world_open(&world, grouped);
}

static void close_world(void)
{
    world_close(&world);
}

TestSuite(topology, .init = open_world, .fini = close_world);

static bool is_up(const char *service, const char *server)
{
    return topology_is_up(world.topology,
                          topology_member(world_service(&world, service), world_server(&world, server)));
}

Test(topology, a_server_that_was_never_probed_is_up)
{
    cr_assert(is_up("ike", "vpn1"));
    cr_assert(is_up("nat-t", "vpn2"));
}

/* 4500 dead and 500 alive is error 809 just as well. */
Test(topology, a_server_is_up_only_when_it_is_up_on_each_service_of_the_group)
{
    world_down(&world, "vpn1", 4500, true);
    cr_assert_not(is_up("ike", "vpn1"));
    cr_assert_not(is_up("nat-t", "vpn1"));
    cr_assert(is_up("ike", "vpn2"));
    world_down(&world, "vpn1", 4500, false);
    cr_assert(is_up("ike", "vpn1"));
}

Test(topology, a_service_outside_the_group_neither_counts_for_it_nor_by_it)
{
    world_down(&world, "vpn1", 4500, true);
    cr_assert(is_up("loner", "vpn1"));
    cr_assert(is_up("third", "vpn1"));
    cr_assert(is_up("plain", "vpn1"));
    world_down(&world, "vpn2", 501, true);
    cr_assert_not(is_up("loner", "vpn2"));
    cr_assert(is_up("ike", "vpn2"));
    cr_assert(is_up("plain", "vpn2"));
}

Test(topology, a_tcp_service_is_in_no_group)
{
    struct topology *topology;
    struct error error;

    world.config->services[2].protocol = 6; /* loner */
    world.config->services[2].health_group = true;
    server_probe_assign(world.segment, world_server(&world, "vpn1"), 6, 501);
    server_set_down(world.segment, world_server(&world, "vpn1"),
                    server_probe_find(world.segment, world_server(&world, "vpn1"), 6, 501), true);
    cr_assert_eq(topology_open(&topology, world.config, world.segment, &error), 0);
    cr_assert(topology_is_up(topology, &topology->services[0].members[0]));
    cr_assert_not(topology_is_up(topology, &topology->services[2].members[0]));
    topology_close(topology);
}

Test(topology, all_down_asks_the_enabled_servers_alone)
{
    struct topology_service *service = world_service(&world, "plain");

    cr_assert_not(topology_all_down(world.topology, service));
    world_down(&world, "vpn1", 503, true);
    cr_assert_not(topology_all_down(world.topology, service));
    world_state(&world, "vpn2", SERVER_DRAIN);
    cr_assert(topology_all_down(world.topology, service));
}

Test(topology, a_name_without_a_slot_is_an_error_that_names_it)
{
    struct topology *topology = NULL;
    struct error error = {0};

    world.segment->servers[world_server(&world, "vpn2")].identity = 77;
    cr_assert_eq(topology_open(&topology, world.config, world.segment, &error), -ENOENT);
    cr_assert_str_eq(error.what, "server vpn2 has no slot in the segment");
    cr_assert_null(topology);
}

Test(topology, a_member_of_another_pool_is_found_anywhere_alone)
{
    struct topology_service *service = world_service(&world, "ike");
    uint32_t slot = service->members[1].slot;

    service->member_count = 1; /* as if its pool named vpn1 alone */
    cr_assert_null(topology_member(service, slot));
    cr_assert_not_null(topology_member_anywhere(world.topology, service, slot));
    cr_assert_null(topology_member_anywhere(world.topology, service, SEGMENT_SERVERS + 5));
    service->member_count = 2;
}
