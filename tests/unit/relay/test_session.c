/* SPDX-License-Identifier: Apache-2.0 */
/* The life of sessions: capacities, ends, and that records and sessions never disagree. */
#include "world.h"

#include "base/clock.h"
#include "base/endpoint.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static bool nobody_left(void *arg)
{
    return world_live(arg) == 0;
}

static bool one_left(void *arg)
{
    return world_live(arg) == 1;
}

/* Only the header counts: SPIi, SPIr, next payload, version, exchange, flags, id, length. */
static void ike_message(uint8_t out[28], uint8_t exchange, bool response, uint8_t next_payload, uint8_t responder)
{
    memset(out, 0, 28);
    memset(out, 0x11, 8);
    memset(out + 8, responder, 8);
    out[16] = next_payload;
    out[17] = 0x20;
    out[18] = exchange;
    out[19] = response ? 0x20 : 0x08;
    out[27] = 28;
}

static uint32_t server_of(const struct world *world, uint32_t row)
{
    return world_row(world, row)->server;
}

static void set_state(struct world *world, uint32_t server, enum server_state state)
{
    server_set_state(world->segment, world_server_slot(world, server), state, true);
}

Test(session, beyond_the_rows_is_refused_and_counted)
{
    struct world world;
    int server, clients[5];

    world_open(&world, &(struct plan){.rows = 4});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    for (uint8_t i = 0; i < 5; i++) {
        clients[i] = world_client(&world, (uint8_t)(100 + i));
        if (i < 4)
            cr_assert_neq(world_say(&world, clients[i], server, "x"), 0);
    }
    cr_assert_eq(send(clients[4], "x", 1, 0), 1);
    cr_expect(world_silent(&world, server));
    cr_expect_eq(world_count(&world, COUNTER_refused_sessions_full), 1);
    for (uint8_t i = 0; i < 5; i++)
        close(clients[i]);
    world_close(&world);
}

Test(session, without_a_descriptor_is_refused_and_counted)
{
    struct world world;
    int server, client, other;
    struct rlimit limit, none;

    world_open(&world, &(struct plan){0});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    other = world_client(&world, 101);
    cr_assert_neq(world_say(&world, client, server, "x"), 0);
    getrlimit(RLIMIT_NOFILE, &limit);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    cr_assert_eq(send(other, "x", 1, 0), 1);
    cr_expect(world_silent(&world, server));
    setrlimit(RLIMIT_NOFILE, &limit);
    cr_expect_eq(world_count(&world, COUNTER_refused_no_descriptor), 1);
    cr_expect_neq(world_say(&world, other, server, "again"), 0);
    cr_expect_eq(world_row(&world, 1)->source_port, world.port_first + 1, "the refused one's port was not used up");
    close(client);
    close(other);
    world_close(&world);
}

Test(session, ends_when_idle)
{
    struct world world;
    int server, client;
    uint64_t begun;

    world_open(&world, &(struct plan){.idle = "500ms", .unproven = "500ms"});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    begun = clock_now_ms();
    cr_assert_neq(world_say(&world, client, server, "x"), 0);
    cr_assert(world_wait(&world, nobody_left, &world, 3000));
    cr_expect_geq(clock_now_ms() - begun, 500);
    cr_expect_eq(world_count(&world, COUNTER_sessions_ended_idle), 1);
    close(client);
    world_close(&world);
}

/* Without IKE: proven is who speaks again after the server's answer. */
Test(session, that_is_not_proven_ends_sooner)
{
    struct world world;
    int server, proven, unproven;
    uint16_t port;

    world_open(&world, &(struct plan){.idle = "60s", .unproven = "200ms", .persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    proven = world_client(&world, 100);
    unproven = world_client(&world, 101);
    port = world_say(&world, proven, server, "x");
    cr_assert(world_answer(&world, server, port, proven, "y"));
    cr_assert_eq(world_say(&world, proven, server, "z"), port);
    cr_assert_neq(world_say(&world, unproven, server, "x"), 0);
    cr_assert(world_wait(&world, one_left, &world, 3000));
    cr_expect_eq(world_row(&world, 0)->source_port, port);
    cr_expect(atomic_load(&world_row(&world, 0)->flags) & SESSION_PROVEN);
    cr_assert_eq(world_say(&world, proven, server, "z"), port);
    cr_expect(RECORD_PROVEN(record_value(world.segment, atomic_load(&world_row(&world, 0)->record))));
    close(proven);
    close(unproven);
    world_close(&world);
}

Test(session, of_ike_is_proven_by_an_encrypted_answer_alone)
{
    struct world world;
    int server, client;
    uint8_t message[28], got[64];
    struct hp_endpoint cell = {0};
    struct sockaddr_storage name;

    world_open(&world, &(struct plan){.ike = true, .persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    ike_message(message, 34, false, 33, 0);
    for (uint32_t round = 0; round < 3; round++) { /* IKE_SA_INIT, as often as it likes */
        ike_message(message, 34, false, 33, 0);
        cr_assert_eq(send(client, message, 28, 0), 28);
        cr_assert_eq(world_receive(&world, server, got, sizeof got, &cell), 28);
        ike_message(message, 34, true, 33, 0x22);
        socklen_t size = endpoint_to_sockaddr(&cell, &name);
        cr_assert_eq(sendto(server, message, 28, 0, (struct sockaddr *)&name, size), 28);
        cr_assert_eq(world_receive(&world, client, got, sizeof got, NULL), 28);
    }
    cr_expect_eq(atomic_load(&world_row(&world, 0)->flags) & SESSION_PROVEN, 0);
    ike_message(message, 35, true, 46, 0x22);
    socklen_t size = endpoint_to_sockaddr(&cell, &name);
    cr_assert_eq(sendto(server, message, 28, 0, (struct sockaddr *)&name, size), 28);
    cr_assert_eq(world_receive(&world, client, got, sizeof got, NULL), 28);
    cr_expect(atomic_load(&world_row(&world, 0)->flags) & SESSION_PROVEN);
    cr_expect(RECORD_PROVEN(record_value(world.segment, atomic_load(&world_row(&world, 0)->record))));
    cr_expect_eq(world_count(&world, COUNTER_ike_new_sa), 3);
    close(client);
    world_close(&world);
}

/* Two services, two lanes, two workers; one client, one record. */
Test(session, follows_its_record_to_another_server)
{
    struct world world;
    int client, second;
    uint32_t first_server;

    world_open(&world, &(struct plan){.servers = 2, .persistence = true, .two_services = true});
    worker_take_all(&world, world_worker(&world, 0));
    for (uint32_t i = 0; i < 2; i++)
        world_server(&world, i, world.port);
    client = world_client(&world, 100);
    second = world_client_at(&world, 100, 1, world.second_port);
    cr_assert_eq(send(client, "x", 1, 0), 1);
    cr_assert_eq(send(second, "x", 1, 0), 1);
    world_turn(&world);
    cr_assert_eq(world_live(&world), 2);
    first_server = server_of(&world, 0);
    cr_expect_eq(server_of(&world, 1), first_server);

    uint32_t other = first_server == world_server_slot(&world, 0) ? 1 : 0;
    cr_assert(world_move_record(&world, 0, other));
    cr_expect_neq(world_say(&world, client, world.servers[other], "follow me"), 0);
    cr_assert_eq(send(second, "x", 1, 0), 1);
    world_turn(&world);
    cr_assert_eq(world_live(&world), 2);
    cr_expect_eq(server_of(&world, 0), world_server_slot(&world, other));
    cr_expect_eq(server_of(&world, 1), world_server_slot(&world, other));
    cr_expect_eq(world_count(&world, COUNTER_sessions_moved), 2);
    close(client);
    close(second);
    world_close(&world);
}

/* Expiry and eviction move nobody: the live session puts its record back, with its own server and source port. */
Test(session, whose_record_is_gone_puts_it_back)
{
    struct world world;
    int client, server;
    uint16_t port;

    world_open(&world, &(struct plan){.servers = 3, .persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    for (uint32_t i = 0; i < 3; i++)
        world_server(&world, i, world.port);
    client = world_client(&world, 100);
    cr_assert_eq(send(client, "x", 1, 0), 1);
    world_turn(&world);
    server = world.servers[0];
    for (uint32_t i = 1; i < 3; i++)
        if (server_of(&world, 0) == world_server_slot(&world, i))
            server = world.servers[i];
    cr_assert_eq(world_receive(&world, server, (char[8]){0}, 8, NULL), 1);
    port = world_row(&world, 0)->source_port;
    for (uint32_t i = 0; i < 6; i++) { /* the round robin would pick another one */
        struct record_ref ref = {.index = atomic_load(&world_row(&world, 0)->record)};
        ref.value = record_value(world.segment, ref.index);
        cr_assert(record_delete(world.segment, &ref));
        cr_expect_eq(world_say(&world, client, server, "still me"), port);
    }
    cr_expect_eq(world_count(&world, COUNTER_records_put_back), 6);
    cr_expect_eq(world_count(&world, COUNTER_sessions_moved), 0);
    close(client);
    world_close(&world);
}

/* A record lives as long as a session watches it, though nobody says a word. */
Test(session, keeps_its_record_from_expiring)
{
    struct world world;
    int client, server;
    uint32_t record;
    uint64_t value, end;

    world_open(&world, &(struct plan){.persistence = true, .timeout = "2s"});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    cr_assert_neq(world_say(&world, client, server, "x"), 0);
    record = atomic_load(&world_row(&world, 0)->record);
    value = record_value(world.segment, record);
    for (end = clock_now_ms() + 4000; clock_now_ms() < end;) {
        struct record_ref ref = {.index = record, .value = record_value(world.segment, record)};
        cr_assert(!record_expired(world.segment, &ref, (uint32_t)clock_now_s()));
        uv_run(&world.loop, UV_RUN_ONCE);
    }
    cr_expect_eq(RECORD_DECISION(record_value(world.segment, record)), RECORD_DECISION(value));
    close(client);
    world_close(&world);
}

Test(session, of_a_disabled_server_is_decided_anew)
{
    struct world world;
    int client;
    uint32_t other;

    world_open(&world, &(struct plan){.servers = 2, .persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    for (uint32_t i = 0; i < 2; i++)
        world_server(&world, i, world.port);
    client = world_client(&world, 100);
    cr_assert_eq(send(client, "x", 1, 0), 1);
    world_turn(&world);
    other = server_of(&world, 0) == world_server_slot(&world, 0) ? 1 : 0;
    set_state(&world, 1 - other, SERVER_DISABLED);
    cr_expect_neq(world_say(&world, client, world.servers[other], "anybody"), 0);
    cr_expect_eq(world_live(&world), 1);
    cr_expect_eq(world_count(&world, COUNTER_sessions_moved), 1);
    close(client);
    world_close(&world);
}

Test(session, of_a_disabled_server_with_ike_waits_for_a_new_ike_sa)
{
    struct world world;
    int client;
    uint8_t message[28], got[64];
    uint32_t other;

    world_open(&world, &(struct plan){.servers = 2, .persistence = true, .ike = true});
    worker_take_all(&world, world_worker(&world, 0));
    for (uint32_t i = 0; i < 2; i++)
        world_server(&world, i, world.port);
    client = world_client(&world, 100);
    ike_message(message, 34, false, 33, 0);
    cr_assert_eq(send(client, message, 28, 0), 28);
    world_turn(&world);
    other = server_of(&world, 0) == world_server_slot(&world, 0) ? 1 : 0;
    cr_assert_eq(world_receive(&world, world.servers[1 - other], got, sizeof got, NULL), 28);
    set_state(&world, 1 - other, SERVER_DISABLED);
    ike_message(message, 35, false, 46, 0x22);
    cr_assert_eq(send(client, message, 28, 0), 28);
    cr_expect(world_silent(&world, world.servers[0]) && world_silent(&world, world.servers[1]));
    cr_expect_eq(world_count(&world, COUNTER_dropped_server_disabled), 1);
    ike_message(message, 34, false, 33, 0);
    cr_assert_eq(send(client, message, 28, 0), 28);
    cr_expect_eq(world_receive(&world, world.servers[other], got, sizeof got, NULL), 28);
    close(client);
    world_close(&world);
}

/* Down is a state, not an event: only an IKE_SA_INIT moves; up again before that: nobody noticed. */
Test(session, of_a_down_server_with_ike_moves_with_a_new_ike_sa_only)
{
    struct world world;
    int client;
    uint8_t message[28], got[64];
    uint32_t other, probe;

    world_open(&world, &(struct plan){.servers = 2, .persistence = true, .ike = true});
    worker_take_all(&world, world_worker(&world, 0));
    for (uint32_t i = 0; i < 2; i++)
        world_server(&world, i, world.port);
    client = world_client(&world, 100);
    ike_message(message, 34, false, 33, 0);
    cr_assert_eq(send(client, message, 28, 0), 28);
    world_turn(&world);
    other = server_of(&world, 0) == world_server_slot(&world, 0) ? 1 : 0;
    cr_assert_eq(world_receive(&world, world.servers[1 - other], got, sizeof got, NULL), 28);
    probe = server_probe_find(world.segment, world_server_slot(&world, 1 - other), 17, world.port);
    server_set_down(world.segment, world_server_slot(&world, 1 - other), probe, true);
    ike_message(message, 35, false, 46, 0x22);
    cr_assert_eq(send(client, message, 28, 0), 28);
    cr_expect_eq(world_receive(&world, world.servers[1 - other], got, sizeof got, NULL), 28);
    ike_message(message, 34, false, 33, 0);
    cr_assert_eq(send(client, message, 28, 0), 28);
    cr_expect_eq(world_receive(&world, world.servers[other], got, sizeof got, NULL), 28);
    cr_expect_eq(world_count(&world, COUNTER_sessions_moved), 1);
    close(client);
    world_close(&world);
}

/* Both wait in one vector: the first is for the old server, the second moves the session. */
Test(session, that_moves_sends_first_what_came_before)
{
    struct world world;
    int client;
    uint8_t message[28], got[64];
    uint32_t other, probe;

    world_open(&world, &(struct plan){.servers = 2, .persistence = true, .ike = true});
    worker_take_all(&world, world_worker(&world, 0));
    for (uint32_t i = 0; i < 2; i++)
        world_server(&world, i, world.port);
    client = world_client(&world, 100);
    ike_message(message, 34, false, 33, 0);
    cr_assert_eq(send(client, message, 28, 0), 28);
    world_turn(&world);
    other = server_of(&world, 0) == world_server_slot(&world, 0) ? 1 : 0;
    cr_assert_eq(world_receive(&world, world.servers[1 - other], got, sizeof got, NULL), 28);
    probe = server_probe_find(world.segment, world_server_slot(&world, 1 - other), 17, world.port);
    server_set_down(world.segment, world_server_slot(&world, 1 - other), probe, true);
    ike_message(message, 37, false, 46, 0x22);
    cr_assert_eq(send(client, message, 28, 0), 28);
    ike_message(message, 34, false, 33, 0);
    cr_assert_eq(send(client, message, 28, 0), 28);
    cr_expect_eq(world_receive(&world, world.servers[1 - other], got, sizeof got, NULL), 28);
    cr_expect_eq(got[18], 37);
    cr_expect_eq(world_receive(&world, world.servers[other], got, sizeof got, NULL), 28);
    cr_expect_eq(got[18], 34);
    close(client);
    world_close(&world);
}

Test(session, of_a_dropped_client_ends_and_its_record_with_it)
{
    struct world world;
    int server, client, other;
    uint32_t record;
    struct hp_endpoint address;

    world_open(&world, &(struct plan){.persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    other = world_client(&world, 101);
    cr_assert_neq(world_say(&world, client, server, "x"), 0);
    cr_assert_neq(world_say(&world, other, server, "x"), 0);
    record = atomic_load(&world_row(&world, 0)->record);
    address = world_address(&world, 100, 0);
    uint64_t sequence = drop_post(world.segment, &address);
    cr_assert(world_wait(&world, one_left, &world, 2000));
    cr_expect_eq(world_row(&world, 0)->client.address[3], 101);
    cr_expect_eq(RECORD_SERVER(record_value(world.segment, record)), RECORD_DEAD);
    cr_expect_eq(atomic_load(&world.segment->drops[sequence % SEGMENT_DROPS].ended), 1);
    cr_expect_eq(world_count(&world, COUNTER_sessions_dropped), 1);
    cr_expect_neq(world_say(&world, client, server, "as new"), 0);
    close(client);
    close(other);
    world_close(&world);
}

Test(session, log_says_who_where_and_why_when_it_is_on)
{
    struct world world;
    int server, client;
    char text[2048] = "";

    world_open(&world, &(struct plan){.log = true, .unproven = "150ms"});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    cr_assert_neq(world_say(&world, client, server, "four"), 0);
    cr_assert(world_wait(&world, nobody_left, &world, 3000));
    world_turn(&world);
    cr_assert_gt(pread(world.log.fd, text, sizeof text - 1, 0), 0);
    cr_expect_not_null(strstr(text, "session begun"), "%s", text);
    cr_expect_not_null(strstr(text, "server=vpn1"), "%s", text);
    cr_expect_not_null(strstr(text, "session ended"), "%s", text);
    cr_expect_not_null(strstr(text, "reason=idle"), "%s", text);
    cr_expect_not_null(strstr(text, "bytes_to_server=4"), "%s", text);
    close(client);
    world_close(&world);
}
