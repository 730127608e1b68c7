/* SPDX-License-Identifier: Apache-2.0 */
/* One client fills its listener: the others do not wait for it, and nothing of its own is lost, doubled or turned
 * round, whatever becomes of its session meanwhile. */
#include "world.h"

#include "base/endpoint.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLOOD 250u   /* datagrams: read in one turn of the loop */
#define LARGE 60000u /* octets */
#define ROUNDS 8u    /* of a vector of large ones */
#define VECTOR 64u

struct scene {
    struct world world;
    struct worker *worker;
    int server, heavy, light;
    uint64_t expected; /* datagrams to the server */
};

static void scene_open(struct scene *scene)
{
    world_open(&scene->world, &(struct plan){0});
    scene->worker = world_worker(&scene->world, 0);
    worker_take_all(&scene->world, scene->worker);
    scene->server = world_server(&scene->world, 0, scene->world.port);
    scene->heavy = world_client(&scene->world, 100);
    scene->light = world_client(&scene->world, 101);
    cr_assert_neq(world_say(&scene->world, scene->heavy, scene->server, "heavy"), 0);
    cr_assert_neq(world_say(&scene->world, scene->light, scene->server, "light"), 0);
}

static void scene_close(struct scene *scene)
{
    close(scene->heavy);
    close(scene->light);
    world_close(&scene->world);
}

static void flood(const struct scene *scene, uint16_t from, uint16_t count)
{
    uint8_t data[200] = {0};

    for (uint16_t i = from; i < from + count; i++) {
        memcpy(data, &i, sizeof i);
        cr_assert_eq(send(scene->heavy, data, sizeof data, 0), (ssize_t)sizeof data);
    }
}

static bool is_sent(void *arg)
{
    const struct scene *scene = arg;

    return world_count(&scene->world, COUNTER_datagrams_to_servers) >= scene->expected;
}

/* All that was said, and the two with which the sessions began. */
static void wait_for(struct scene *scene, uint64_t said)
{
    scene->expected = said + 2;
    cr_assert(world_wait(&scene->world, is_sent, scene, 2000));
}

/* What the server has got so far, in order: the number of each, or UINT16_MAX for the light one's. */
static uint16_t next(const struct scene *scene)
{
    uint8_t data[LARGE];
    ssize_t size = recv(scene->server, data, sizeof data, MSG_DONTWAIT);
    uint16_t number = 0;

    cr_assert_geq(size, 2, "nothing is there");
    memcpy(&number, data, sizeof number);
    return size == 200 ? number : UINT16_MAX;
}

static void expect_flood(const struct scene *scene, uint16_t from, uint16_t to)
{
    for (uint16_t i = from; i < to; i++)
        cr_assert_eq(next(scene), i);
}

Test(backlog, of_a_heavy_client_lets_a_light_one_pass)
{
    struct scene scene;
    uint16_t before = 0, number;

    scene_open(&scene);
    flood(&scene, 0, FLOOD);
    cr_assert_eq(send(scene.light, "x", 2, 0), 2); /* behind all of it, in the same queue */
    wait_for(&scene, FLOOD + 1);
    while ((number = next(&scene)) != UINT16_MAX)
        cr_assert_eq(number, before++);
    cr_expect_lt(before, FLOOD / 2, "the light client's datagram came behind %u", before);
    expect_flood(&scene, before, FLOOD);
    cr_expect(world_silent(&scene.world, scene.server));
    scene_close(&scene);
}

/* Light again, it does not overtake itself. */
Test(backlog, is_left_in_order)
{
    struct scene scene;

    scene_open(&scene);
    flood(&scene, 0, FLOOD);
    uv_run(&scene.world.loop, UV_RUN_NOWAIT); /* read, hardly sent */
    flood(&scene, FLOOD, 1);
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    flood(&scene, FLOOD + 1, FLOOD);
    wait_for(&scene, 2 * FLOOD + 1);
    expect_flood(&scene, 0, 2 * FLOOD + 1);
    cr_expect(world_silent(&scene.world, scene.server));
    scene_close(&scene);
}

static bool is_given(void *arg)
{
    return ((struct worker *)arg)->given > 0;
}

Test(backlog, leaves_before_its_lane_is_given_away)
{
    struct scene scene;
    struct worker *successor;
    int pair[2];

    scene_open(&scene);
    successor = world_worker(&scene.world, 1);
    flood(&scene, 0, FLOOD);
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    worker_take(&scene.world, successor, 0, pair[0]);
    worker_give(&scene.world, scene.worker, 0, pair[1]);
    flood(&scene, FLOOD, 1); /* for the successor */
    cr_assert(world_wait(&scene.world, is_given, scene.worker, 2000));
    wait_for(&scene, FLOOD + 1);
    expect_flood(&scene, 0, FLOOD + 1);
    cr_expect(world_silent(&scene.world, scene.server));
    scene_close(&scene);
}

Test(backlog, leaves_before_its_session_ends)
{
    struct scene scene;
    struct hp_endpoint client;

    scene_open(&scene);
    client = world_address(&scene.world, 100, 0);
    flood(&scene, 0, FLOOD);
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    cr_assert_lt(world_count(&scene.world, COUNTER_datagrams_to_servers), FLOOD, "nothing waits");
    drop_post(scene.world.segment, &client);
    (void)poll(NULL, 0, 30); /* a tick is due: timers come before the backlog's turn */
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    cr_assert_eq(world_count(&scene.world, COUNTER_sessions_dropped), 1);
    expect_flood(&scene, 0, FLOOD);
    scene_close(&scene);
}

Test(backlog, of_a_relay_that_closes_is_forgotten)
{
    struct scene scene;

    scene_open(&scene);
    flood(&scene, 0, FLOOD);
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    worker_die(&scene.world, scene.worker); /* leaks and handles left behind are found by the world */
    scene_close(&scene);
}

/* The limit is half of 8 MiB for a client alone: more than that comes in before it goes out. */
Test(backlog, that_is_full_drops_of_its_own_and_says_so)
{
    static uint8_t data[LARGE];
    struct scene scene;
    uint64_t arrived = 0, dropped;
    ssize_t size;

    scene_open(&scene);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < VECTOR; i++)
            cr_assert_eq(send(scene.heavy, data, sizeof data, 0), (ssize_t)sizeof data);
        cr_assert_eq(send(scene.light, "x", 2, 0), 2);
        uv_run(&scene.world.loop, UV_RUN_NOWAIT);
        while ((size = recv(scene.server, data, sizeof data, MSG_DONTWAIT)) >= 0)
            arrived++;
    }
    while (!world_silent(&scene.world, scene.server))
        while (recv(scene.server, data, sizeof data, MSG_DONTWAIT) >= 0)
            arrived++;
    dropped = world_count(&scene.world, COUNTER_dropped_send_to_server);
    cr_expect_gt(dropped, 0);
    cr_expect_eq(arrived + dropped, ROUNDS * (VECTOR + 1));
    cr_expect_eq(atomic_load(&scene.world.segment->lanes[0].losses[LOSS_dropped_send_to_server]), dropped);
    scene_close(&scene);
}
