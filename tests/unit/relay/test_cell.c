/* SPDX-License-Identifier: Apache-2.0 */
/* Source ports towards servers: whose they are, in which order, what happens when there are none. */
#include "world.h"

#include "base/endpoint.h"

#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>

Test(cell, ports_are_those_of_the_lane)
{
    struct world world;
    int server;

    world_open(&world, &(struct plan){.lanes = 4, .ports = 40});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    for (uint8_t i = 0; i < 16; i++) {
        int client = world_client(&world, (uint8_t)(100 + i));
        cr_assert_neq(world_say(&world, client, server, "x"), 0);
        close(client);
    }
    for (uint32_t i = 0; i < world.segment->lane_count * world.segment->rows_per_lane; i++) {
        const struct session_row *row = &world.segment->rows[i];
        if (session_is_live(row))
            cr_expect_eq(row->source_port % 4, i / world.segment->rows_per_lane, "port %u", row->source_port);
    }
    world_close(&world);
}

Test(cell, free_longest_is_taken_first)
{
    struct world world;
    int server, clients[5];
    uint16_t ports[5];

    world_open(&world, &(struct plan){.ports = 4, .unproven = "150ms"});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    for (uint8_t i = 0; i < 4; i++) {
        clients[i] = world_client(&world, (uint8_t)(100 + i));
        ports[i] = world_say(&world, clients[i], server, "x");
        cr_expect_eq(ports[i], world.port_first + i, "ports never used come in their order");
        while (world_live(&world) > 0) /* one after the other, so that the order of their ends is known */
            uv_run(&world.loop, UV_RUN_ONCE);
    }
    clients[4] = world_client(&world, 110);
    cr_expect_eq(world_say(&world, clients[4], server, "x"), ports[0]);
    for (uint8_t i = 0; i < 5; i++)
        close(clients[i]);
    world_close(&world);
}

/* The order is in the rows: who takes the lane after a crash knows it too. */
Test(cell, order_outlives_its_worker)
{
    struct world world;
    int server, client;
    uint16_t first, second, third;

    world_open(&world, &(struct plan){.ports = 3, .unproven = "150ms"});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    first = world_say(&world, client, server, "x");
    while (world_live(&world) > 0)
        uv_run(&world.loop, UV_RUN_ONCE);
    second = world_say(&world, client, server, "x");
    while (world_live(&world) > 0)
        uv_run(&world.loop, UV_RUN_ONCE);
    worker_die(&world, &world.workers[0]);
    worker_take_all(&world, world_worker(&world, 1));
    third = world_say(&world, client, server, "x");
    cr_expect(third != first && third != second, "%u, then %u, then %u", first, second, third);
    int other = world_client(&world, 101);
    cr_expect_eq(world_say(&world, other, server, "x"), first);
    close(client);
    close(other);
    world_close(&world);
}

Test(cell, that_a_stranger_holds_is_skipped_and_counted)
{
    struct world world;
    int server, client, stranger;

    world_open(&world, &(struct plan){.ports = 8});
    struct hp_endpoint any = {.family = 4, .port = world.port_first};
    stranger = world_socket(&any); /* without SO_REUSEADDR */
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    cr_expect_eq(world_say(&world, client, server, "x"), world.port_first + 1);
    cr_expect_eq(world_count(&world, COUNTER_cells_unbindable), 1);
    close(stranger);
    close(client);
    world_close(&world);
}

Test(cell, serves_once_per_server)
{
    struct world world;
    int servers[2], clients[4];
    uint16_t ports[4];

    world_open(&world, &(struct plan){.servers = 2, .ports = 2, .persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    servers[0] = world_server(&world, 0, world.port);
    servers[1] = world_server(&world, 1, world.port);
    for (uint8_t i = 0; i < 4; i++) {
        clients[i] = world_client(&world, (uint8_t)(100 + i));
        cr_assert_eq(send(clients[i], "x", 1, 0), 1);
        world_turn(&world);
        ports[i] = world_row(&world, i)->source_port;
    }
    cr_expect_eq(world_live(&world), 4, "two ports and two servers are four cells");
    for (uint8_t i = 0; i < 4; i++) {
        int server = servers[world_row(&world, i)->server == world_server_slot(&world, 0) ? 0 : 1];
        cr_expect(world_answer(&world, server, ports[i], clients[i], "to you alone"), "session %u", i);
        close(clients[i]);
    }
    world_close(&world);
}

Test(cell, none_free_refuses_and_counts)
{
    struct world world;
    int server, clients[3];

    world_open(&world, &(struct plan){.ports = 2});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    for (uint8_t i = 0; i < 3; i++) {
        clients[i] = world_client(&world, (uint8_t)(100 + i));
        if (i < 2)
            cr_assert_neq(world_say(&world, clients[i], server, "x"), 0);
    }
    cr_assert_eq(send(clients[2], "x", 1, 0), 1);
    cr_expect(world_silent(&world, server));
    cr_expect_eq(world_count(&world, COUNTER_refused_no_cell), 1);
    cr_expect_neq(world_say(&world, clients[0], server, "still here"), 0);
    for (uint8_t i = 0; i < 3; i++)
        close(clients[i]);
    world_close(&world);
}
