/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker tells of a client that is followed, and what each lane counts of what it does not serve. */
#include "world.h"

#include "base/clock.h"
#include "base/endpoint.h"
#include "segment/trace.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void follow(struct world *world, uint8_t host)
{
    struct hp_endpoint client = world_address(world, host, 0);

    cr_assert(trace_follow(world->segment, &client, clock_now_ms()));
}

static struct trace_event event(struct world *world, uint64_t sequence)
{
    struct trace_event out;

    cr_assert_eq(trace_read(world->segment, sequence, &out), TRACE_HERE, "event %lu", (unsigned long)sequence);
    return out;
}

static uint64_t lost(struct world *world, enum lane_loss loss)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < world->segment->lane_count; i++)
        sum += atomic_load(&world->segment->lanes[i].losses[loss]);
    return sum;
}

Test(trace, nothing_is_told_while_nobody_is_followed_or_another)
{
    struct world world;
    int server, client;

    world_open(&world, &(struct plan){.persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    cr_assert_neq(world_say(&world, client, server, "x"), 0);
    follow(&world, 101);
    cr_assert_neq(world_say(&world, client, server, "y"), 0);
    cr_assert_eq(trace_last(world.segment), 0);
    close(client);
    world_close(&world);
}

Test(trace, a_session_is_told_from_its_begin_to_its_end)
{
    struct world world;
    int server, client;
    uint16_t port;

    world_open(&world, &(struct plan){.persistence = true, .idle = "100ms"});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    follow(&world, 100);
    port = world_say(&world, client, server, "x");
    cr_assert(world_answer(&world, server, port, client, "ab"));
    struct trace_event begun = event(&world, 1);
    cr_assert_eq(begun.kind, TRACE_SESSION_BEGUN);
    cr_assert_str_eq(begun.text, "new client");
    cr_assert_eq(begun.source_port, port);
    cr_assert_eq(begun.worker, 0);
    cr_assert_eq(begun.server, world_server_slot(&world, 0));
    while (trace_last(world.segment) < 2) {
        world_turn(&world);
        usleep(1000);
    }
    struct trace_event ended = event(&world, 2);
    cr_assert_eq(ended.kind, TRACE_SESSION_ENDED);
    cr_assert_str_eq(ended.text, "idle");
    cr_assert_eq(ended.bytes_to_server, 1);
    cr_assert_eq(ended.bytes_to_client, 2);
    close(client);
    world_close(&world);
}

Test(trace, what_is_refused_is_told_and_counted_by_its_lane)
{
    struct world world;
    int server, clients[5];

    world_open(&world, &(struct plan){.rows = 4});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    follow(&world, 104);
    for (uint8_t i = 0; i < 5; i++)
        clients[i] = world_client(&world, (uint8_t)(100 + i));
    for (uint8_t i = 0; i < 4; i++)
        cr_assert_neq(world_say(&world, clients[i], server, "x"), 0);
    cr_assert_eq(send(clients[4], "x", 1, 0), 1);
    cr_assert(world_silent(&world, server));
    cr_assert_eq(trace_last(world.segment), 1);
    cr_assert_eq(event(&world, 1).kind, TRACE_LOSS);
    cr_assert_eq(event(&world, 1).code, LOSS_refused_sessions_full);
    cr_assert_eq(event(&world, 1).client.address[3], 104);
    cr_assert_eq(lost(&world, LOSS_refused_sessions_full), 1);
    for (uint8_t i = 0; i < 5; i++)
        close(clients[i]);
    world_close(&world);
}

Test(trace, what_a_decision_refuses_is_counted_by_its_lane)
{
    struct world world;
    int client;

    world_open(&world, &(struct plan){.persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    server_set_state(world.segment, world_server_slot(&world, 0), SERVER_DISABLED, true);
    client = world_client(&world, 100);
    follow(&world, 100);
    for (uint32_t i = 1; i <= 3; i++) {
        cr_assert_eq(send(client, "x", 1, 0), 1);
        cr_assert(world_silent(&world, client));
        cr_assert_eq(lost(&world, LOSS_refused_no_server), i);
        cr_assert_eq(world_count(&world, COUNTER_refused_no_server), i);
        cr_assert_eq(event(&world, i).code, LOSS_refused_no_server);
    }
    close(client);
    world_close(&world);
}

Test(trace, ike_messages_are_told_both_ways_and_esp_once)
{
    static const uint8_t esp[16] = {1, 2, 3, 4};
    uint8_t init[28] = {[0] = 0x11, [16] = 33, [17] = 0x20, [18] = 34, [19] = 0x08, [27] = 28}, got[64];
    /* COOKIE alone, and the SPIr zero */
    uint8_t answer[36] = {
        [0] = 0x11, [16] = 41, [17] = 0x20, [18] = 34, [19] = 0x20, [27] = 36, [31] = 8, [34] = 0x40, 6};
    struct world world;
    struct hp_endpoint from;
    struct sockaddr_storage name;
    int server, client;

    world_open(&world, &(struct plan){.persistence = true, .ike = true});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    follow(&world, 100);
    cr_assert_eq(send(client, init, sizeof init, 0), (ssize_t)sizeof init);
    cr_assert_eq(world_receive(&world, server, got, sizeof got, &from), (ssize_t)sizeof init);
    cr_assert_eq(sendto(server, answer, sizeof answer, 0, (struct sockaddr *)&name, endpoint_to_sockaddr(&from, &name)),
                 (ssize_t)sizeof answer);
    cr_assert_eq(world_receive(&world, client, got, sizeof got, NULL), (ssize_t)sizeof answer);
    cr_assert_eq(event(&world, 1).kind, TRACE_IKE_TO_SERVER);
    cr_assert_eq(event(&world, 1).exchange, 34);
    cr_assert_eq(event(&world, 2).kind, TRACE_SESSION_BEGUN);
    cr_assert_eq(event(&world, 3).kind, TRACE_IKE_TO_CLIENT);
    cr_assert_eq(event(&world, 3).flags, 0x20);
    cr_assert_eq(event(&world, 3).code, 16390);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(send(client, esp, sizeof esp, 0), (ssize_t)sizeof esp);
        cr_assert_eq(world_receive(&world, server, got, sizeof got, NULL), (ssize_t)sizeof esp);
    }
    cr_assert_eq(event(&world, 4).kind, TRACE_ESP_TO_SERVER);
    cr_assert_eq(trace_last(world.segment), 4);
    close(client);
    world_close(&world);
}
