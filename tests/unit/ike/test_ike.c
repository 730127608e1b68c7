/* SPDX-License-Identifier: Apache-2.0 */
#include "claims.h"

#include <criterion/criterion.h>
#include <string.h>

enum { MESSAGE_SIZE = 60 };

/* A message with a body of one payload; members may be changed before message_write. */
struct message {
    uint8_t initiator[8], responder[8];
    uint8_t next_payload, version, exchange, flags;
    uint32_t length;
};

static struct message auth_request(void)
{
    return (struct message){.initiator = {1, 2, 3, 4, 5, 6, 7, 8},
                            .responder = {9, 10, 11, 12, 13, 14, 15, 16},
                            .next_payload = IKE_PAYLOAD_SK,
                            .version = 0x20,
                            .exchange = IKE_AUTH,
                            .flags = IKE_FLAG_INITIATOR,
                            .length = MESSAGE_SIZE};
}

static struct message first_request(void)
{
    struct message message = auth_request();

    memset(message.responder, 0, sizeof message.responder);
    message.next_payload = 33;
    message.exchange = IKE_SA_INIT;
    return message;
}

static void message_write(const struct message *message, uint8_t out[MESSAGE_SIZE])
{
    memset(out, 0, MESSAGE_SIZE);
    memcpy(out, message->initiator, 8);
    memcpy(out + 8, message->responder, 8);
    out[16] = message->next_payload;
    out[17] = message->version;
    out[18] = message->exchange;
    out[19] = message->flags;
    out[20] = 0xde;
    out[21] = 0xad;
    out[22] = 0xbe;
    out[23] = 0xef;
    for (int i = 0; i < 4; i++)
        out[24 + i] = (uint8_t)(message->length >> (24 - 8 * i));
}

static struct ike_datagram read_octets(const uint8_t *data, size_t size, uint16_t port)
{
    struct ike_datagram read;

    ike_read(&read, data, size, port);
    return read;
}

/* Marked on 4500, plain on 500. The data pointer of the result has no life. */
static struct ike_datagram read_message(const struct message *message, uint16_t port)
{
    uint8_t data[4 + MESSAGE_SIZE] = {0};

    message_write(message, data + 4);
    return port == 4500 ? read_octets(data, sizeof data, port) : read_octets(data + 4, MESSAGE_SIZE, port);
}

Test(message, header_is_read_as_on_the_wire)
{
    struct message message = auth_request();
    uint8_t data[MESSAGE_SIZE];

    message_write(&message, data);
    struct ike_datagram read = read_octets(data, sizeof data, 500);
    cr_assert_eq(read.kind, IKE_MESSAGE);
    cr_assert_eq(memcmp(read.header.initiator_spi, message.initiator, 8), 0);
    cr_assert_eq(memcmp(read.header.responder_spi, message.responder, 8), 0);
    cr_assert_eq(read.header.exchange, IKE_AUTH);
    cr_assert_eq(read.header.flags, IKE_FLAG_INITIATOR);
    cr_assert_eq(read.header.next_payload, IKE_PAYLOAD_SK);
    cr_assert_eq(read.header.version, 0x20);
    cr_assert_eq(read.header.message_id, 0xdeadbeef);
    cr_assert_eq(read.header.length, MESSAGE_SIZE);
    cr_assert_eq(read.header.size, sizeof read.header);
}

Test(message, every_cut_and_every_longer_one_is_not_a_message)
{
    struct message message = auth_request();
    uint8_t data[4 + MESSAGE_SIZE + 1] = {0};

    message_write(&message, data + 4);
    for (size_t size = 0; size <= MESSAGE_SIZE + 1; size++) {
        claims_hold(data + 4, size);
        claims_hold(data, size);
        cr_assert_eq(read_octets(data + 4, size, 500).kind == IKE_MESSAGE, size == MESSAGE_SIZE);
        cr_assert_eq(read_octets(data + 4, size, 15500).kind == IKE_MESSAGE, size == MESSAGE_SIZE);
        cr_assert_eq(read_octets(data, size + 4, 4500).kind == IKE_MESSAGE, size == MESSAGE_SIZE);
        cr_assert_eq(read_octets(data, size + 4, 15500).kind == IKE_MESSAGE, size == MESSAGE_SIZE);
    }
}

Test(message, length_other_than_the_datagrams_is_not_a_message)
{
    static const uint32_t lengths[] = {0,         27, 28, MESSAGE_SIZE - 1, MESSAGE_SIZE + 1, 0x10000 + MESSAGE_SIZE,
                                       UINT32_MAX};
    struct message message = auth_request();

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        message.length = lengths[i];
        cr_assert_eq(read_message(&message, 500).kind, IKE_OTHER);
        cr_assert_eq(read_message(&message, 4500).kind, IKE_OTHER);
    }
}

Test(message, of_another_major_version_is_not_ours)
{
    struct message message = auth_request();

    for (unsigned version = 0; version < 256; version++) {
        message.version = (uint8_t)version;
        cr_assert_eq(read_message(&message, 500).kind == IKE_MESSAGE, version >> 4 == 2, "version %#x", version);
    }
}

Test(message, largest_datagram_is_read)
{
    static uint8_t data[65507];
    struct message message = auth_request();

    message.length = sizeof data;
    message_write(&message, data);
    cr_assert_eq(read_octets(data, sizeof data, 500).kind, IKE_MESSAGE);
    claims_hold(data, sizeof data);
}

Test(nat_t, marker_is_taken_off_and_reported)
{
    struct message message = auth_request();
    uint8_t data[4 + MESSAGE_SIZE] = {0};

    message_write(&message, data + 4);
    struct ike_datagram read = read_octets(data, sizeof data, 4500);
    cr_assert_eq(read.kind, IKE_MESSAGE);
    cr_assert(read.marked);
    cr_assert_eq(read.data, data + 4);
    cr_assert_eq(read.size, MESSAGE_SIZE);
    cr_assert_eq(read.esp_spi, 0);
}

Test(nat_t, unmarked_message_on_4500_is_esp_by_its_first_word)
{
    struct message message = auth_request();
    uint8_t data[MESSAGE_SIZE];

    message_write(&message, data);
    struct ike_datagram read = read_octets(data, sizeof data, 4500);
    cr_assert_eq(read.kind, IKE_ESP);
    cr_assert_eq(read.esp_spi, 0x01020304);
}

Test(nat_t, marked_message_on_500_is_nothing_known)
{
    struct message message = auth_request();
    uint8_t data[4 + MESSAGE_SIZE] = {0};

    message_write(&message, data + 4);
    cr_assert_eq(read_octets(data, sizeof data, 500).kind, IKE_OTHER);
    cr_assert_not(read_octets(data, sizeof data, 500).marked);
}

Test(nat_t, elsewhere_content_decides)
{
    struct message message = auth_request();
    uint8_t data[4 + MESSAGE_SIZE] = {0};

    message_write(&message, data + 4);
    cr_assert(read_octets(data, sizeof data, 15500).marked);
    cr_assert_eq(read_octets(data, sizeof data, 15500).kind, IKE_MESSAGE);
    cr_assert_not(read_octets(data + 4, MESSAGE_SIZE, 15500).marked);
    cr_assert_eq(read_octets(data + 4, MESSAGE_SIZE, 15500).kind, IKE_MESSAGE);
    data[4 + 17] = 0x10;
    cr_assert_eq(read_octets(data + 4, MESSAGE_SIZE, 15500).kind, IKE_ESP);
}

/* RFC 7296 section 3.1 forbids an initiator's SPI of zero, not one that begins like the marker. */
Test(nat_t, spi_that_begins_with_four_zero_octets_is_not_a_marker_elsewhere)
{
    struct message message = auth_request();

    memset(message.initiator, 0, 4);
    cr_assert_eq(read_message(&message, 15500).kind, IKE_MESSAGE);
    cr_assert_not(read_message(&message, 15500).marked);
    memset(message.initiator, 0, 8);
    cr_assert_eq(read_message(&message, 500).kind, IKE_OTHER);
}

Test(nat_t, keepalive_is_one_octet_of_ff_and_never_on_500)
{
    static const uint8_t ff[2] = {0xff, 0xff};
    static const uint8_t fe[1] = {0xfe};

    cr_assert_eq(read_octets(ff, 1, 4500).kind, IKE_KEEPALIVE);
    cr_assert_eq(read_octets(ff, 1, 15500).kind, IKE_KEEPALIVE);
    cr_assert_eq(read_octets(ff, 1, 500).kind, IKE_OTHER);
    cr_assert_eq(read_octets(ff, 2, 4500).kind, IKE_OTHER);
    cr_assert_eq(read_octets(fe, 1, 4500).kind, IKE_OTHER);
}

Test(nat_t, up_to_eight_octets_of_anything)
{
    for (size_t size = 0; size <= 8; size++) {
        uint8_t data[8];
        memset(data, 0, sizeof data);
        claims_hold(data, size);
        cr_assert_eq(read_octets(data, size, 4500).kind, IKE_OTHER);
        memset(data, 0x7f, sizeof data);
        claims_hold(data, size);
        cr_assert_eq(read_octets(data, size, 4500).kind, size == 8 ? IKE_ESP : IKE_OTHER);
        cr_assert_eq(read_octets(data, size, 500).kind, IKE_OTHER);
    }
}

Test(new_sa, is_an_ike_sa_init_request_without_responder_spi)
{
    struct message message = first_request();
    struct ike_datagram read = read_message(&message, 500);

    cr_assert(ike_is_new_sa(&read));
    read = read_message(&message, 4500);
    cr_assert(ike_is_new_sa(&read), "a client may begin on 4500");
}

Test(new_sa, is_not_an_answer_nor_a_later_exchange_nor_with_responder_spi)
{
    struct message response = first_request(), auth = first_request(), known = first_request();
    struct ike_datagram read;

    response.flags = IKE_FLAG_RESPONSE;
    read = read_message(&response, 500);
    cr_assert_not(ike_is_new_sa(&read));
    auth.exchange = IKE_AUTH;
    read = read_message(&auth, 500);
    cr_assert_not(ike_is_new_sa(&read));
    known.responder[7] = 1;
    read = read_message(&known, 500);
    cr_assert_not(ike_is_new_sa(&read));
}

Test(proof, is_sk_skf_or_esp)
{
    struct message message = auth_request();
    struct ike_datagram read = read_message(&message, 4500);

    cr_assert(ike_is_proof(&read));
    message.next_payload = IKE_PAYLOAD_SKF;
    read = read_message(&message, 4500);
    cr_assert(ike_is_proof(&read));
    read = read_octets((const uint8_t[8]){1, 2, 3, 4, 5, 6, 7, 8}, 8, 4500);
    cr_assert(ike_is_proof(&read));
}

/* What anybody can provoke with a spoofed address proves nothing. */
Test(proof, is_not_what_a_stranger_gets)
{
    struct message message = auth_request();
    struct ike_datagram read;

    message.exchange = IKE_SA_INIT;
    message.flags = IKE_FLAG_RESPONSE;
    message.next_payload = 33;
    read = read_message(&message, 500);
    cr_assert_not(ike_is_proof(&read));
    message.next_payload = 41;
    read = read_message(&message, 500);
    cr_assert_not(ike_is_proof(&read));
    message.next_payload = IKE_PAYLOAD_SK;
    memset(message.responder, 0, sizeof message.responder);
    read = read_message(&message, 500);
    cr_assert_not(ike_is_proof(&read));
    read = read_octets((const uint8_t[1]){0xff}, 1, 4500);
    cr_assert_not(ike_is_proof(&read));
}

Test(notify, is_the_first_payload_of_what_is_not_encrypted)
{
    uint8_t octets[28 + 8] = {[0] = 1, [16] = 41, [17] = 0x20, [18] = IKE_SA_INIT, [19] = 0x20, [27] = 36};
    struct ike_datagram read;

    octets[28 + 3] = 8;
    octets[28 + 6] = 16390 >> 8;
    octets[28 + 7] = 16390 & 0xff;
    read = read_octets(octets, sizeof octets, 500);
    cr_assert_eq(ike_notify(&read), 16390);
    octets[16] = 33;
    read = read_octets(octets, sizeof octets, 500);
    cr_assert_eq(ike_notify(&read), 0, "begins with another payload");
}

Test(notify, that_is_cut_is_none)
{
    for (uint8_t size = 28; size < 36; size++) {
        uint8_t octets[36] = {[0] = 1, [16] = 41, [17] = 0x20, [18] = IKE_SA_INIT, [27] = size};
        struct ike_datagram read;

        memset(octets + 28, 0xff, sizeof octets - 28);
        read = read_octets(octets, size, 500);
        cr_assert_eq(read.kind, IKE_MESSAGE);
        cr_assert_eq(ike_notify(&read), 0, "%u octets", size);
    }
    cr_assert_eq(ike_notify(&(struct ike_datagram){.kind = IKE_ESP, .size = 100}), 0);
}

static void probe_is_well_formed(bool marked)
{
    static const uint8_t spi[8] = {8, 7, 6, 5, 4, 3, 2, 1};
    uint8_t out[IKE_PROBE_SIZE];
    size_t size = ike_write_probe(out, spi, marked), at = 28;
    struct ike_datagram read = read_octets(out, size, marked ? 4500 : 500);
    uint8_t payload = read.header.next_payload;

    cr_assert_leq(size, IKE_PROBE_SIZE);
    cr_assert_eq(read.marked, marked);
    cr_assert(ike_is_new_sa(&read));
    cr_assert_eq(memcmp(read.header.initiator_spi, spi, 8), 0);
    cr_assert_eq(read.header.message_id, 0);
    static const uint8_t order[] = {33, 34, 40};
    for (size_t i = 0; i < sizeof order; i++) {
        cr_assert_eq(payload, order[i]);
        payload = read.data[at];
        at += (size_t)(read.data[at + 2] << 8 | read.data[at + 3]);
    }
    cr_assert_eq(payload, 0);
    cr_assert_eq(at, read.size, "the payloads fill the message");
}

Test(probe, is_sa_key_exchange_and_nonce)
{
    probe_is_well_formed(false);
}

Test(probe, for_4500_bears_the_marker)
{
    probe_is_well_formed(true);
}
