/* SPDX-License-Identifier: Apache-2.0 */
/* Regression tests: an ICMP error from a dead server once made a flow deaf for ever (libuv stops a watcher on POLLERR),
 * and it eats the next datagram (the kernel reports it instead of sending). */
#include "world.h"

#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>

struct icmp {
    struct world *world;
    uint64_t before;
};

static bool came(void *arg)
{
    struct icmp *icmp = arg;

    return world_count(icmp->world, COUNTER_icmp_errors) > icmp->before;
}

static void die_and_speak(struct world *world, int client)
{
    struct icmp icmp = {world, world_count(world, COUNTER_icmp_errors)};

    close(world->servers[0]);
    world->servers[0] = -1;
    cr_assert_eq(send(client, "anyone?", 7, 0), 7);
    cr_assert(world_wait(world, came, &icmp, 2000), "no ICMP error was seen");
}

Test(dead_server, never_makes_a_flow_deaf)
{
    struct world world;
    int server, client;
    uint16_t port;

    world_open(&world, &(struct plan){0});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    port = world_say(&world, client, server, "hello");
    cr_assert_neq(port, 0);
    die_and_speak(&world, client);
    server = world_server(&world, 0, world.port);
    /* The server speaks first: nothing but the socket's own watcher can notice. */
    cr_expect(world_answer(&world, server, port, client, "I am back"));
    cr_expect(world_answer(&world, server, port, client, "and here"));
    close(client);
    world_close(&world);
}

Test(dead_server, does_not_eat_the_next_datagram)
{
    struct world world;
    int server, client;
    uint16_t port;

    world_open(&world, &(struct plan){0});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    port = world_say(&world, client, server, "hello");
    for (int i = 0; i < 5; i++) {
        die_and_speak(&world, client);
        server = world_server(&world, 0, world.port);
        cr_expect_eq(world_say(&world, client, server, "are you there?"), port, "round %d", i);
    }
    close(client);
    world_close(&world);
}

/* Several datagrams of one vector go to the dead port: each provokes an error that meets the next. */
Test(dead_server, in_the_middle_of_a_burst_costs_nothing_once_it_is_back)
{
    struct world world;
    char data[16];
    int server, client;

    world_open(&world, &(struct plan){0});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    cr_assert_neq(world_say(&world, client, server, "hello"), 0);
    die_and_speak(&world, client);
    for (size_t i = 1; i <= 10; i++) /* of different sizes: no run */
        cr_assert_eq(send(client, "0123456789", i, 0), (ssize_t)i);
    world_turn(&world);
    cr_expect_eq(world_count(&world, COUNTER_dropped_send_to_server), 0);
    server = world_server(&world, 0, world.port);
    for (size_t i = 1; i <= 10; i++)
        cr_assert_eq(send(client, "0123456789", i, 0), (ssize_t)i);
    for (ssize_t i = 1; i <= 10; i++)
        cr_expect_eq(world_receive(&world, server, data, sizeof data, NULL), i);
    close(client);
    world_close(&world);
}
