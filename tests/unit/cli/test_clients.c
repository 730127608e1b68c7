/* SPDX-License-Identifier: Apache-2.0 */
/* Clients against a service of our own, which hears them and says nothing. */
#include "cli/demo/client.h"
#include "cli/demo/wire.h"
#include "ike/ike.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct order {
    uint32_t count;
    uint8_t clients[DEMO_CLIENTS];
    bool seen[DEMO_CLIENTS + 1];
};

static void nothing(void *arg)
{
    (void)arg;
}

/* Whom the service hears for the first time, as it goes. */
static void hear(struct order *order, int service)
{
    uint8_t data[2048];
    struct ike_datagram datagram;
    ssize_t size;

    while ((size = recv(service, data, sizeof data, MSG_DONTWAIT)) >= 0) {
        uint32_t client;

        ike_read(&datagram, data, (size_t)size, 500);
        cr_assert(ike_is_new_sa(&datagram));
        client = wire_client_of(datagram.header.initiator_spi);
        cr_assert_geq(client, 1);
        if (!order->seen[client])
            order->clients[order->count++] = (uint8_t)client;
        order->seen[client] = true;
    }
}

static void play(struct order *order, uint64_t seed)
{
    struct clients *clients = NULL;
    struct error error = {0};
    struct sockaddr_in at;
    struct place place;
    uv_loop_t loop;
    int service;

    *order = (struct order){.count = 0};
    cr_assert_eq(place_choose(&place, &error), 0, "%s", error.what);
    at = place_service(place.ike);
    service = place_bind(&at, &error);
    cr_assert_geq(service, 0, "%s", error.what);
    uv_loop_init(&loop);
    cr_assert_eq(clients_open(&clients, &loop, &place, seed, nothing, NULL, &error), 0, "%s", error.what);
    clients_connect(clients);
    while (order->count < DEMO_CLIENTS) {
        uv_run(&loop, UV_RUN_ONCE);
        hear(order, service);
    }
    clients_close(clients);
    cr_assert_eq(uv_loop_close(&loop), 0, "a handle is left over");
    close(service);
    place_release(&place);
}

Test(clients, begin_in_an_order_that_the_seed_repeats)
{
    struct order first, again, other;

    play(&first, 7);
    play(&again, 7);
    play(&other, 8);
    cr_assert_arr_eq(first.clients, again.clients, DEMO_CLIENTS);
    cr_assert_arr_neq(first.clients, other.clients, DEMO_CLIENTS);
}

Test(clients, that_nobody_answers_give_up_with_error_809)
{
    struct clients *clients = NULL;
    struct error error = {0};
    struct place place;
    uv_loop_t loop;

    cr_assert_eq(place_choose(&place, &error), 0, "%s", error.what);
    uv_loop_init(&loop);
    cr_assert_eq(clients_open(&clients, &loop, &place, 1, nothing, NULL, &error), 0, "%s", error.what);
    clients_connect(clients);
    while (clients_count(clients).failed < DEMO_CLIENTS)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert_eq(clients_count(clients).connected, 0);
    cr_assert_not(clients_at_home(clients, 1));
    clients_close(clients);
    cr_assert_eq(uv_loop_close(&loop), 0, "a handle is left over");
    place_release(&place);
}

Test(place, ports_that_a_demo_has_are_passed_over_by_the_next)
{
    struct place first, second;
    struct error error = {0};

    cr_assert_eq(place_choose(&first, &error), 0, "%s", error.what);
    cr_assert_eq(place_choose(&second, &error), 0, "%s", error.what);
    cr_assert_neq(first.ike, second.ike);
    cr_assert_neq(first.nat_t, second.nat_t);
    cr_assert(second.high);
    cr_assert_neq(second.error.code, 0, "it says why not 500 and 4500");
    place_release(&first);
    place_release(&second);
    place_release(&second);
}
