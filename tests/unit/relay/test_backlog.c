/* SPDX-License-Identifier: Apache-2.0 */
/* One client fills its listener: the others do not wait for it, and nothing of its own is lost, doubled or turned
 * round, whatever becomes of its session meanwhile. */
#include "world.h"

#include "base/endpoint.h"
#include "relay/private.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLOOD 150u  /* datagrams of the heavy one */
#define BURST 63u   /* with one of the light one a vector */
#define ROUNDS 300u /* of bursts: more than fits */
#define OTHERS 24u

struct scene {
    struct world world;
    struct worker *worker;
    int server, heavy, light;
    uint64_t said;
};

static void world_of(struct scene *scene, const struct plan *plan)
{
    scene->said = 0;
    world_open(&scene->world, plan);
    scene->worker = world_worker(&scene->world, 0);
    worker_take_all(&scene->world, scene->worker);
    scene->server = world_server(&scene->world, 0, scene->world.port);
    scene->heavy = world_client(&scene->world, 100);
    scene->light = world_client(&scene->world, 101);
}

static void scene_open(struct scene *scene)
{
    world_of(scene, &(struct plan){0});
    cr_assert_neq(world_say(&scene->world, scene->heavy, scene->server, "heavy"), 0);
    cr_assert_neq(world_say(&scene->world, scene->light, scene->server, "light"), 0);
}

static void scene_close(struct scene *scene)
{
    close(scene->heavy);
    close(scene->light);
    world_close(&scene->world);
}

static void say(struct scene *scene, int client, const void *data, size_t size)
{
    cr_assert_eq(send(client, data, size, 0), (ssize_t)size);
    scene->said++;
}

/* The light one speaks first: the lane has others. */
static void flood(struct scene *scene, uint16_t from, uint16_t count)
{
    uint8_t data[200] = {0};

    say(scene, scene->light, "x", 2);
    for (uint16_t i = from; i < from + count; i++) {
        memcpy(data, &i, sizeof i);
        say(scene, scene->heavy, data, sizeof data);
    }
}

static bool is_sent(void *arg)
{
    const struct scene *scene = arg;

    return world_count(&scene->world, COUNTER_datagrams_to_servers) >= scene->said + 2; /* by which they began */
}

static void wait_for_all(struct scene *scene)
{
    cr_assert(world_wait(&scene->world, is_sent, scene, 2000));
}

/* One turn: something has been read, and waits. */
static void begin_to_wait(struct scene *scene)
{
    uv_run(&scene->world.loop, UV_RUN_NOWAIT);
    cr_assert_gt(scene->worker->relay->backlog_count, 0, "nothing waits");
}

/* What the server has got so far, in order: the number of each, or UINT16_MAX for the light one's. */
static uint16_t next(const struct scene *scene)
{
    uint8_t data[256];
    ssize_t size = recv(scene->server, data, sizeof data, MSG_DONTWAIT);
    uint16_t number = 0;

    cr_assert_geq(size, 2, "nothing is there");
    memcpy(&number, data, sizeof number);
    return size == 200 ? number : UINT16_MAX;
}

/* What the server has got, whatever it is. */
static uint64_t drain(const struct scene *scene)
{
    uint8_t data[256];
    uint64_t count = 0;

    while (recv(scene->server, data, sizeof data, MSG_DONTWAIT) >= 0)
        count++;
    return count;
}

/* The light one's may come between. */
static void expect_flood(const struct scene *scene, uint16_t from, uint16_t to)
{
    uint16_t number;

    while (from < to) {
        number = next(scene);
        cr_assert(number == UINT16_MAX || number == from++, "%u, not %u", number, from);
    }
}

Test(backlog, of_a_heavy_client_lets_a_light_one_pass)
{
    struct scene scene;
    uint16_t before = 0, number;

    scene_open(&scene);
    flood(&scene, 0, FLOOD);
    say(&scene, scene.light, "x", 2); /* behind all of it, in the same queue */
    wait_for_all(&scene);
    cr_assert_eq(next(&scene), UINT16_MAX);
    while ((number = next(&scene)) != UINT16_MAX)
        cr_assert_eq(number, before++);
    cr_expect_lt(before, FLOOD * 4 / 5, "the light client's datagram came behind %u", before);
    expect_flood(&scene, before, FLOOD);
    cr_expect(world_silent(&scene.world, scene.server));
    scene_close(&scene);
}

Test(backlog, is_not_made_for_a_client_that_is_alone)
{
    struct scene scene;
    uint8_t data[100] = {0};

    scene_open(&scene);
    for (uint32_t i = 0; i < FLOOD; i++)
        say(&scene, scene.heavy, data, sizeof data);
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    cr_expect_eq(scene.worker->relay->backlog_count, 0);
    wait_for_all(&scene);
    scene_close(&scene);
}

/* Light again, it does not overtake itself. */
Test(backlog, is_left_in_order)
{
    struct scene scene;

    scene_open(&scene);
    flood(&scene, 0, FLOOD);
    begin_to_wait(&scene);
    flood(&scene, FLOOD, 1);
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    flood(&scene, FLOOD + 1, FLOOD);
    wait_for_all(&scene);
    expect_flood(&scene, 0, 2 * FLOOD + 1);
    scene_close(&scene);
}

Test(backlog, leaves_before_its_lane_is_given_away)
{
    struct scene scene;
    struct worker *successor;
    int pair[2];

    scene_open(&scene);
    successor = world_worker(&scene.world, 1);
    flood(&scene, 0, FLOOD);
    begin_to_wait(&scene);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    worker_take(&scene.world, successor, 0, pair[0]);
    worker_give(&scene.world, scene.worker, 0, pair[1]);
    flood(&scene, FLOOD, 1); /* for the successor */
    cr_assert(world_wait(&scene.world, worker_has_given, scene.worker, 2000));
    wait_for_all(&scene);
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
    begin_to_wait(&scene);
    drop_post(scene.world.segment, &client);
    (void)poll(NULL, 0, 30); /* a tick is due */
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    cr_assert_eq(world_count(&scene.world, COUNTER_sessions_dropped), 1);
    wait_for_all(&scene); /* the rest begins a session anew */
    expect_flood(&scene, 0, FLOOD);
    scene_close(&scene);
}

Test(backlog, of_a_session_that_moves_leaves_for_its_old_server)
{
    struct scene scene;
    uint64_t read;
    uint32_t home, other;

    world_of(&scene, &(struct plan){.servers = 2, .persistence = true});
    world_server(&scene.world, 1, scene.world.port);
    cr_assert_eq(send(scene.heavy, "x", 2, 0), 2);
    world_turn(&scene.world);
    home = world_row(&scene.world, 0)->server == world_server_slot(&scene.world, 0) ? 0 : 1;
    other = 1 - home;
    cr_assert_eq(send(scene.light, "x", 2, 0), 2);
    world_turn(&scene.world);
    scene.server = scene.world.servers[home];
    (void)drain(&scene);

    flood(&scene, 0, FLOOD);
    begin_to_wait(&scene);
    read = world_count(&scene.world, COUNTER_datagrams_from_clients) - 3; /* the first two, and the light one's */
    cr_assert_lt(read, FLOOD);
    cr_assert(world_move_record(&scene.world, 0, other));
    wait_for_all(&scene);
    cr_assert_eq(world_count(&scene.world, COUNTER_sessions_moved), 1);
    expect_flood(&scene, 0, (uint16_t)read);
    scene.server = scene.world.servers[other];
    while (next(&scene) == UINT16_MAX) /* the light one's; behind them stands the first of the flood */
        ;
    expect_flood(&scene, (uint16_t)(read + 1), FLOOD);
    scene_close(&scene);
}

Test(backlog, of_a_relay_that_closes_leaves_before)
{
    struct scene scene;
    uint64_t sent;

    scene_open(&scene);
    flood(&scene, 0, FLOOD);
    begin_to_wait(&scene);
    worker_die(&scene.world, scene.worker); /* the rest is in the listener still */
    sent = world_count(&scene.world, COUNTER_datagrams_to_servers) - 2;
    cr_expect_eq(sent, world_count(&scene.world, COUNTER_datagrams_from_clients) - 2);
    expect_flood(&scene, 0, (uint16_t)(sent - 1)); /* one was the light one's */
    scene_close(&scene);
}

/* Flows that flood by turns with sizes of all kinds; never more than the limit, and every datagram is accounted for. */
Test(backlog, that_is_full_drops_of_its_own_and_says_so)
{
    static const uint8_t data[256];
    struct scene scene;
    uint64_t arrived = 0, dropped;
    int others[OTHERS];

    scene_open(&scene);
    for (uint32_t i = 0; i < OTHERS; i++)
        others[i] = world_client(&scene.world, (uint8_t)(110 + i));
    for (uint32_t round = 0; round < ROUNDS * 3; round++) {
        int one = round < ROUNDS ? scene.heavy : others[round % OTHERS];
        say(&scene, scene.light, "x", 2);
        for (uint32_t i = 0; i < BURST; i++)
            say(&scene, one, data, (round * 31 + i * 15) % sizeof data);
        uv_run(&scene.world.loop, UV_RUN_NOWAIT);
        cr_assert_leq(scene.worker->relay->backlog_octets, 8u << 20);
        arrived += drain(&scene);
    }
    dropped = world_count(&scene.world, COUNTER_dropped_send_to_server);
    cr_expect_gt(dropped, 0);
    for (uint32_t turns = 0; turns < 10000 && scene.worker->relay->backlog_count > 0; turns++) {
        uv_run(&scene.world.loop, UV_RUN_NOWAIT);
        arrived += drain(&scene);
    }
    cr_expect(world_silent(&scene.world, scene.server));
    dropped = world_count(&scene.world, COUNTER_dropped_send_to_server);
    cr_expect_eq(world_count(&scene.world, COUNTER_datagrams_from_clients), scene.said + 2);
    cr_expect_eq(arrived + dropped, scene.said);
    cr_expect_eq(atomic_load(&scene.world.segment->lanes[0].losses[LOSS_dropped_send_to_server]), dropped);
    cr_expect_eq(scene.worker->relay->backlog_octets, 0);
    for (uint32_t i = 0; i < OTHERS; i++)
        close(others[i]);
    scene_close(&scene);
}

/* Two floods share the turns, beside a light one: neither waits for the end of the other. */
Test(backlog, of_two_sends_in_turns)
{
    struct scene scene;
    uint8_t data[200] = {0};
    int second;
    uint32_t of_first = 0, of_second = 0, between = 0, each = 2 * BURST;

    scene_open(&scene);
    second = world_client(&scene.world, 102);
    for (uint32_t i = 0; i < each; i++) {
        if (i % 31 == 0)
            say(&scene, scene.light, "x", 2);
        say(&scene, scene.heavy, data, 200);
        say(&scene, second, data, 100);
    }
    wait_for_all(&scene);
    for (uint64_t i = 0; i < scene.said; i++) {
        ssize_t size = recv(scene.server, data, sizeof data, MSG_DONTWAIT);
        cr_assert_gt(size, 0);
        of_first += size == 200;
        of_second += size == 100;
        between += size == 100 && of_first > 0 && of_first < each;
    }
    cr_expect_eq(of_first, each);
    cr_expect_eq(of_second, each);
    cr_expect_gt(between, each / 2);
    close(second);
    scene_close(&scene);
}
