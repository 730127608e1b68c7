/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/place.h"
#include "cli/demo/wire.h"
#include "ike/ike.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct wire_spis spis = {.initiator = "initiat", .responder = "respond"};
static const struct wire_spis new_spis = {.initiator = "initiat"};

/* The chain of payloads from the header on must end where the message ends. types: out, 0 at its end. */
static void walk(uint8_t types[16], const struct ike_datagram *datagram)
{
    uint8_t next = datagram->data[16];
    uint32_t at = 28, count = 0;

    while (next != 0 && next != IKE_PAYLOAD_SK && count < 15) {
        cr_assert_leq(at + 4, datagram->size, "payload %u begins behind the end", next);
        types[count++] = next;
        next = datagram->data[at];
        at += (uint32_t)datagram->data[at + 2] << 8 | datagram->data[at + 3];
    }
    if (next == IKE_PAYLOAD_SK) { /* the last one: what follows is inside */
        types[count++] = next;
        at += (uint32_t)datagram->data[at + 2] << 8 | datagram->data[at + 3];
    }
    types[count] = 0;
    cr_assert_eq(at, datagram->size, "payloads end at %u of %u", at, datagram->size);
}

static void read_on(struct ike_datagram *datagram, const uint8_t *data, size_t size, uint16_t port)
{
    cr_assert_leq(size, WIRE_SIZE);
    ike_read(datagram, data, size, port);
    cr_assert_eq(datagram->kind, IKE_MESSAGE);
    cr_assert_arr_eq(datagram->header.initiator_spi, spis.initiator, 8);
}

Test(wire, a_request_begins_a_new_ike_sa)
{
    struct ike_datagram datagram;
    uint8_t data[WIRE_SIZE], types[16];

    read_on(&datagram, data, wire_sa_init(data, &new_spis, false), 500);
    cr_assert(ike_is_new_sa(&datagram));
    walk(types, &datagram);
    cr_assert_arr_eq(types, "\x21\x22\x28\x29\x29\x29", 7); /* SA, KE, Nonce and three notifies */
}

Test(wire, its_answer_carries_the_responders_spi_and_the_same_payloads)
{
    struct ike_datagram datagram;
    uint8_t data[WIRE_SIZE], types[16];

    read_on(&datagram, data, wire_sa_init(data, &spis, true), 500);
    cr_assert_not(ike_is_new_sa(&datagram));
    cr_assert_not(ike_is_proof(&datagram), "anybody gets an answer to IKE_SA_INIT");
    cr_assert_eq(datagram.header.flags, IKE_FLAG_RESPONSE);
    cr_assert_arr_eq(datagram.header.responder_spi, spis.responder, 8);
    walk(types, &datagram);
    cr_assert_arr_eq(types, "\x21\x22\x28\x29\x29\x29", 7);
}

Test(wire, a_refusal_keeps_no_spi_and_proves_nothing)
{
    struct ike_datagram datagram;
    uint8_t data[WIRE_SIZE], types[16];

    read_on(&datagram, data, wire_no_proposal_chosen(data, spis.initiator), 500);
    cr_assert_arr_eq(datagram.header.responder_spi, new_spis.responder, 8);
    cr_assert_not(ike_is_proof(&datagram));
    walk(types, &datagram);
    cr_assert_arr_eq(types, "\x29", 2);
}

Test(wire, an_encrypted_answer_proves_that_the_client_knew_its_spi)
{
    static const uint8_t exchanges[] = {IKE_AUTH, IKE_INFORMATIONAL};
    struct ike_datagram datagram;
    uint8_t data[WIRE_SIZE], types[16];

    for (size_t i = 0; i < sizeof exchanges; i++) {
        read_on(&datagram, data, wire_encrypted(data, &spis, exchanges[i], true, 7, true), 4500);
        cr_assert(datagram.marked);
        cr_assert(ike_is_proof(&datagram));
        cr_assert_eq(datagram.header.exchange, exchanges[i]);
        cr_assert_eq(datagram.header.message_id, 7);
        walk(types, &datagram);
        cr_assert_arr_eq(types, "\x2e", 2);
    }
}

Test(wire, without_the_marker_it_is_a_message_of_port_500_alone)
{
    struct ike_datagram datagram;
    uint8_t data[WIRE_SIZE];
    size_t size = wire_encrypted(data, &spis, IKE_AUTH, false, 1, false);

    read_on(&datagram, data, size, 500);
    cr_assert_not(datagram.marked);
    ike_read(&datagram, data, size, 4500);
    cr_assert_eq(datagram.kind, IKE_ESP);
}

Test(wire, an_initiators_spi_says_whose_it_is_and_is_another_each_time)
{
    uint8_t first[8], second[8];

    for (uint32_t client = 1; client <= DEMO_CLIENTS; client++) {
        wire_client_spi(first, client);
        wire_client_spi(second, client);
        cr_assert_eq(wire_client_of(first), client);
        cr_assert_eq(wire_client_of(second), client);
    }
    cr_assert_arr_neq(first, second, 8);
}

Test(wire, spis_of_probes_and_of_strangers_belong_to_no_client)
{
    cr_assert_eq(wire_client_of((const uint8_t *)"12345678"), 0);
    cr_assert_eq(wire_client_of((const uint8_t *)"demoabc\0"), 0);
    cr_assert_eq(wire_client_of((const uint8_t *)"demoabc\xff"), 0, "beyond the last client");
}
