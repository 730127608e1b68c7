/* SPDX-License-Identifier: Apache-2.0 */
/* What goes in comes out: every size, both ways, in order, from the right address. */
#include "world.h"

#include "base/endpoint.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const uint32_t sizes[] = {0, 1, 2, 7, 100, 1400, 1472, 1473, 2048, 4096, 9000, 32768, 65000, WORLD_DATAGRAM};
#define SIZES (sizeof sizes / sizeof *sizes)

static uint8_t sent[WORLD_DATAGRAM], got[WORLD_DATAGRAM + 1];

static void fill(uint32_t seed)
{
    for (uint32_t i = 0; i < sizeof sent; i++)
        sent[i] = (uint8_t)(i * 31 + seed * 7 + 1);
}

Test(datagram, of_any_size_passes_both_ways_unharmed)
{
    struct world world;
    struct hp_endpoint cell = {0}, from = {0};
    int server, client;

    world_open(&world, &(struct plan){0});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    for (uint32_t i = 0; i < SIZES; i++) {
        fill(i);
        cr_assert_eq(send(client, sent, sizes[i], 0), (ssize_t)sizes[i]);
        cr_assert_eq(world_receive(&world, server, got, sizeof got, &cell), (ssize_t)sizes[i], "size %u", sizes[i]);
        cr_expect_eq(memcmp(sent, got, sizes[i]), 0, "size %u to the server", sizes[i]);
        fill(i + 100);
        struct sockaddr_storage name;
        socklen_t size = endpoint_to_sockaddr(&cell, &name);
        cr_assert_eq(sendto(server, sent, sizes[i], 0, (struct sockaddr *)&name, size), (ssize_t)sizes[i]);
        cr_assert_eq(world_receive(&world, client, got, sizeof got, &from), (ssize_t)sizes[i], "size %u", sizes[i]);
        cr_expect_eq(memcmp(sent, got, sizes[i]), 0, "size %u to the client", sizes[i]);
    }
    cr_expect_eq(world_count(&world, COUNTER_datagrams_to_servers), SIZES);
    cr_expect_eq(world_count(&world, COUNTER_datagrams_to_clients), SIZES);
    cr_expect_eq(world_live(&world), 1);
    close(client);
    world_close(&world);
}

/* 40 equal ones wait in the listener's queue, so that the relay reads them in one vector and makes a run of them. */
Test(datagram, of_a_run_arrives_single_and_in_order)
{
    struct world world;
    struct hp_endpoint cell = {0};
    uint8_t data[2000];
    int server, client;

    world_open(&world, &(struct plan){0});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    memset(data, 0x55, sizeof data);
    for (uint8_t i = 0; i < 40; i++) {
        data[0] = i;
        cr_assert_eq(send(client, data, 1200, 0), 1200);
    }
    for (uint8_t i = 0; i < 40; i++) {
        cr_assert_eq(world_receive(&world, server, got, sizeof got, &cell), 1200);
        cr_expect_eq(got[0], i);
    }
    cr_expect_geq(world_count(&world, COUNTER_gso_runs), 1);
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(&cell, &name);
    for (uint8_t i = 0; i < 100; i++) { /* more than the vector holds */
        data[0] = i;
        cr_assert_eq(sendto(server, data, i == 99 ? 10 : 200, 0, (struct sockaddr *)&name, size), i == 99 ? 10 : 200);
    }
    for (uint8_t i = 0; i < 100; i++) {
        cr_assert_eq(world_receive(&world, client, got, sizeof got, NULL), i == 99 ? 10 : 200);
        cr_expect_eq(got[0], i);
    }
    close(client);
    world_close(&world);
}

/* 150 of them need twice the buffer that a socket has by default. */
Test(datagram, of_a_download_waits_at_its_session)
{
    struct world world;
    int server, client, buffer = 1 << 20;
    uint16_t port;

    world_open(&world, &(struct plan){0});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    cr_assert_eq(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer), 0);
    port = world_say(&world, client, server, "give me much");
    cr_assert_neq(port, 0);
    struct hp_endpoint cell = {.address = {127, 0, 0, 1}, .family = 4, .port = port};
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(&cell, &name);
    for (uint8_t i = 0; i < 150; i++) {
        sent[0] = i;
        cr_assert_eq(sendto(server, sent, 1200, 0, (struct sockaddr *)&name, size), 1200);
    }
    for (uint8_t i = 0; i < 150; i++) {
        cr_assert_eq(world_receive(&world, client, got, sizeof got, NULL), 1200, "datagram %u", i);
        cr_expect_eq(got[0], i);
    }
    close(client);
    world_close(&world);
}

Test(datagram, of_many_clients_in_one_vector_reaches_each_session)
{
    struct world world;
    uint16_t ports[20];
    char text[8];
    int server, clients[20];

    world_open(&world, &(struct plan){0});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    for (uint8_t i = 0; i < 20; i++) {
        clients[i] = world_client(&world, (uint8_t)(100 + i));
        snprintf(text, sizeof text, "c%u", i);
        ports[i] = world_say(&world, clients[i], server, text);
        cr_assert_neq(ports[i], 0);
    }
    for (uint32_t round = 0; round < 3; round++)
        for (uint8_t i = 0; i < 20; i++)
            cr_assert_eq(send(clients[i], &i, 1, 0), 1);
    uint32_t heard[20] = {0};
    for (uint32_t i = 0; i < 60; i++) {
        struct hp_endpoint from = {0};
        cr_assert_eq(world_receive(&world, server, got, sizeof got, &from), 1);
        cr_assert_lt(got[0], 20);
        cr_expect_eq(from.port, ports[got[0]]);
        heard[got[0]]++;
    }
    for (uint8_t i = 0; i < 20; i++) {
        cr_expect_eq(heard[i], 3);
        cr_expect(world_answer(&world, server, ports[i], clients[i], "back"));
        close(clients[i]);
    }
    world_close(&world);
}

Test(datagram, comes_back_from_the_address_it_was_written_to_on_a_wildcard)
{
    struct world world;
    int server, first, second;
    uint16_t to_first, to_second;

    world_open(&world, &(struct plan){.wildcard = true});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.second_port);
    /* Connected sockets: an answer from any other address would not be heard. */
    first = world_client_at(&world, 100, 21, world.port);
    second = world_client_at(&world, 100, 22, world.port);
    to_first = world_say(&world, first, server, "one");
    to_second = world_say(&world, second, server, "two");
    cr_assert(to_first != 0 && to_second != 0);
    cr_expect_neq(to_first, to_second);
    cr_expect(world_answer(&world, server, to_first, first, "uno"));
    cr_expect(world_answer(&world, server, to_second, second, "due"));
    close(first);
    close(second);
    world_close(&world);
}

Test(datagram, in_a_burst_from_a_wildcard_comes_back_from_the_right_address)
{
    struct world world;
    int server, client;
    struct sockaddr_storage name;
    struct hp_endpoint cell = {.address = {127, 0, 0, 1}, .family = 4};

    world_open(&world, &(struct plan){.wildcard = true});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.second_port);
    client = world_client_at(&world, 100, 21, world.port);
    cell.port = world_say(&world, client, server, "one");
    cr_assert_neq(cell.port, 0);
    socklen_t size = endpoint_to_sockaddr(&cell, &name);
    for (int i = 0; i < 30; i++)
        cr_assert_eq(sendto(server, sent, 900, 0, (struct sockaddr *)&name, size), 900);
    for (int i = 0; i < 30; i++)
        cr_assert_eq(world_receive(&world, client, got, sizeof got, NULL), 900);
    cr_expect_geq(world_count(&world, COUNTER_gso_runs), 1);
    close(client);
    world_close(&world);
}
