/* SPDX-License-Identifier: Apache-2.0 */
#include "pool/scheduler.h"
#include "world.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct world world;

static void close_world(void)
{
    world_close(&world);
}

TestSuite(scheduler, .fini = close_world);

static void open_with(const char *scheduler, const char *weights[3])
{
    char yaml[2048];

    snprintf(yaml, sizeof yaml,
             "servers:\n"
             "  vpn1: { address: 192.0.2.11, weight: %s }\n"
             "  vpn2: { address: 192.0.2.12, weight: %s }\n"
             "  vpn3: { address: 192.0.2.13, weight: %s }\n"
             "pools:\n"
             "  rras: { servers: [ vpn1, vpn2, vpn3 ], scheduler: %s }\n"
             "  turned: { servers: [ vpn3, vpn1, vpn2 ], scheduler: %s }\n"
             "services:\n"
             "  ike:   { listen: \"127.0.0.1:500\",  protocol: udp, pool: rras }\n"
             "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: rras }\n"
             "  other: { listen: \"127.0.0.1:501\", protocol: udp, pool: turned }\n",
             weights[0], weights[1], weights[2], scheduler, scheduler);
    world_open(&world, yaml);
}

static const char *equal[3] = {"1", "1", "1"};

static uint32_t schedule(const char *service, uint64_t hash)
{
    int32_t slot = topology_schedule(world.topology, world_service(&world, service), hash);

    cr_assert_geq(slot, 0);
    return (uint32_t)slot;
}

static void spread(uint32_t counts[3], uint32_t picks)
{
    memset(counts, 0, 3 * sizeof *counts);
    for (uint32_t i = 0; i < picks; i++) {
        uint32_t slot = schedule(i % 2 == 0 ? "ike" : "nat-t", i * 0x9e3779b97f4a7c15ull);

        cr_assert_lt(slot, 3);
        counts[slot]++;
    }
}

/* The cursor lies in the segment: two workers, two services, one pool. */
Test(scheduler, round_robin_gives_sixty_clients_of_two_workers_twenty_each)
{
    struct topology *other;
    struct error error;
    uint32_t counts[3] = {0};

    open_with("round_robin", equal);
    cr_assert_eq(topology_open(&other, world.config, world.segment, &error), 0);
    for (uint32_t i = 0; i < 60; i++) {
        struct topology *topology = i % 7 < 3 ? world.topology : other;
        int32_t slot = topology_schedule(topology, &topology->services[i % 2], 0);

        cr_assert_geq(slot, 0);
        counts[slot]++;
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(counts[i], 20);
    topology_close(other);
}

Test(scheduler, round_robin_passes_over_a_server_that_may_not_be_picked)
{
    uint32_t counts[3];

    open_with("round_robin", equal);
    world_state(&world, "vpn2", SERVER_DRAIN);
    spread(counts, 60);
    cr_assert_eq(counts[0], 30);
    cr_assert_eq(counts[1], 0);
    cr_assert_eq(counts[2], 30);
}

Test(scheduler, nobody_to_pick_takes_no_turn)
{
    open_with("round_robin", equal);
    for (int i = 1; i <= 3; i++)
        world_state(&world, i == 1 ? "vpn1" : i == 2 ? "vpn2" : "vpn3", SERVER_DRAIN);
    cr_assert_eq(topology_schedule(world.topology, world_service(&world, "ike"), 1), -1);
    cr_assert_eq(topology_maglev(world.topology, world_service(&world, "ike"), 1), -1);
    cr_assert_eq(atomic_load(&world.segment->pools[world_service(&world, "ike")->pool_slot].cursor), 0);
}

Test(scheduler, weighted_round_robin_keeps_weights_and_is_smooth)
{
    const char *weights[3] = {"500", "100", "100"};
    uint32_t counts[3], in_a_row = 0;

    open_with("weighted_round_robin", weights);
    cr_assert_eq(world_service(&world, "ike")->scheduler->sequence_length, 7);
    spread(counts, 70);
    cr_assert_eq(counts[0], 50);
    cr_assert_eq(counts[1], 10);
    cr_assert_eq(counts[2], 10);
    for (int i = 0; i < 70; i++) {
        in_a_row = schedule("ike", 0) == 0 ? in_a_row + 1 : 0;
        cr_assert_leq(in_a_row, 4, "5 : 1 : 1 never needs more than the turns between two others");
    }
}

Test(scheduler, weighted_round_robin_keeps_the_weights_of_who_is_left)
{
    const char *weights[3] = {"3", "2", "1"};
    uint32_t counts[3];

    open_with("weighted_round_robin", weights);
    world_state(&world, "vpn1", SERVER_OFFLINE);
    spread(counts, 30);
    cr_assert_eq(counts[0], 0);
    cr_assert_eq(counts[1], 20);
    cr_assert_eq(counts[2], 10);
}

Test(scheduler, weights_without_a_common_factor_stay_short_of_a_huge_sequence)
{
    const char *weights[3] = {"1000", "999", "1"};

    open_with("weighted_round_robin", weights);
    cr_assert_leq(world_service(&world, "ike")->scheduler->sequence_length, SEQUENCE_MAX + 3);
}

Test(scheduler, least_clients_picks_the_server_with_the_fewest)
{
    open_with("least_clients", equal);
    world_recount(&world, "vpn1", 10);
    world_recount(&world, "vpn2", 4);
    world_recount(&world, "vpn3", 7);
    for (int i = 0; i < 3; i++) {
        uint32_t slot = schedule("ike", 0);

        cr_assert_eq(slot, world_server(&world, "vpn2"));
        topology_count_client(world.topology, world_service(&world, "ike"), slot);
    }
    world_recount(&world, "vpn2", 8);
    cr_assert_eq(schedule("ike", 0), world_server(&world, "vpn3"));
}

Test(scheduler, least_clients_measures_by_weight)
{
    const char *weights[3] = {"1", "4", "1"};

    open_with("least_clients", weights);
    world_recount(&world, "vpn1", 2);
    world_recount(&world, "vpn2", 7);
    world_recount(&world, "vpn3", 2);
    cr_assert_eq(schedule("ike", 0), world_server(&world, "vpn2"));
    world_recount(&world, "vpn2", 9);
    cr_assert_neq(schedule("ike", 0), world_server(&world, "vpn2"));
}

Test(scheduler, least_clients_of_equals_takes_turns)
{
    uint32_t counts[3];

    open_with("least_clients", equal);
    spread(counts, 30);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(counts[i], 10);
}

Test(scheduler, random_goes_by_weight)
{
    const char *weights[3] = {"1", "2", "1"};
    uint32_t counts[3];

    open_with("random", weights);
    spread(counts, 4000);
    cr_assert(counts[0] > 850 && counts[0] < 1150, "%u", counts[0]);
    cr_assert(counts[1] > 1850 && counts[1] < 2150, "%u", counts[1]);
    world_state(&world, "vpn2", SERVER_DISABLED);
    spread(counts, 400);
    cr_assert_eq(counts[1], 0);
}

Test(scheduler, maglev_gives_one_key_one_server_in_every_service)
{
    open_with("maglev", equal);
    for (uint64_t hash = 1; hash != 0 && hash < UINT64_MAX / 3; hash *= 3) {
        uint32_t slot = schedule("ike", hash);

        cr_assert_eq(schedule("nat-t", hash), slot);
        cr_assert_eq(schedule("other", hash), slot, "the order of a pool's servers is nobody's hash");
    }
    cr_assert_eq(atomic_load(&world.segment->pools[world_service(&world, "ike")->pool_slot].cursor), 0);
}

Test(scheduler, maglev_shares_by_weight)
{
    const char *weights[3] = {"1", "2", "1"};
    uint32_t entries[3] = {0};
    const struct scheduler *scheduler;

    open_with("maglev", weights);
    scheduler = world_service(&world, "ike")->scheduler;
    for (uint32_t i = 0; i < MAGLEV_SIZE; i++)
        entries[scheduler->maglev[i]]++;
    cr_assert_leq(entries[0], MAGLEV_SIZE / 4 + 2);
    cr_assert_geq(entries[0], MAGLEV_SIZE / 4 - 2);
    cr_assert_geq(entries[1], MAGLEV_SIZE / 2 - 4);
}

Test(scheduler, maglev_moves_the_keys_of_a_dead_server_alone)
{
    uint32_t before[1000], to[3] = {0};

    open_with("maglev", equal);
    for (uint32_t i = 0; i < 1000; i++)
        before[i] = schedule("ike", (i + 1) * 0x9e3779b97f4a7c15ull);
    world_down(&world, "vpn2", 500, true);
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t after = schedule("ike", (i + 1) * 0x9e3779b97f4a7c15ull);

        if (before[i] != world_server(&world, "vpn2"))
            cr_assert_eq(after, before[i]);
        else
            to[after]++;
    }
    cr_assert_eq(to[1], 0);
    cr_assert(to[0] > 100 && to[2] > 100, "the dead one's keys are spread: %u %u", to[0], to[2]);
}

Test(scheduler, any_pool_can_be_asked_for_maglev)
{
    open_with("round_robin", equal);
    cr_assert_not(world_service(&world, "ike")->scheduler->maglev_filled, "nobody pays before it is needed");
    cr_assert_eq(topology_maglev(world.topology, world_service(&world, "ike"), 42),
                 topology_maglev(world.topology, world_service(&world, "other"), 42));
    cr_assert_eq(world_service(&world, "ike")->scheduler, world_service(&world, "nat-t")->scheduler);
}
