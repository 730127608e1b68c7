/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/wire.h"
#include "base/hash.h"
#include "cli/demo/place.h"
#include "ike/ike.h"

#include <arpa/inet.h>
#include <string.h>

/* RFC 7296 section 3.2 */
enum { PAYLOAD_NONE = 0, PAYLOAD_SA = 33, PAYLOAD_KE = 34, PAYLOAD_IDI = 35, PAYLOAD_IDR = 36, PAYLOAD_NONCE = 40 };
enum { PAYLOAD_NOTIFY = 41 };
enum {
    NOTIFY_NO_PROPOSAL_CHOSEN = 14,
    NOTIFY_NAT_DETECTION_SOURCE_IP = 16388,
    NOTIFY_NAT_DETECTION_DESTINATION_IP = 16389,
    NOTIFY_FRAGMENTATION_SUPPORTED = 16430,
};
enum { HEADER_SIZE = 28, NEXT_PAYLOAD_AT = 16, LENGTH_AT = 24, MARKER_SIZE = 4 };
enum { GROUP_ECP256 = 19 };

/* ENCR_AES_CBC 256, PRF_HMAC_SHA2_256, AUTH_HMAC_SHA2_256_128, ECP256: one proposal of four transforms. */
static const uint8_t proposal[] = {
    0,    0,  0, 44, 1, 1, 0, 4, /* last proposal, number 1, protocol IKE, no SPI, 4 transforms */
    3,    0,  0, 12, 1, 0, 0, 12,
    0x80, 14, 1, 0,                         /* ENCR, key length 256 */
    3,    0,  0, 8,  2, 0, 0, 5,            /* PRF */
    3,    0,  0, 8,  3, 0, 0, 12,           /* INTEG */
    0,    0,  0, 8,  4, 0, 0, GROUP_ECP256, /* KE, the last */
};

static const uint8_t spi_magic[4] = {'d', 'e', 'm', 'o'};

struct message {
    uint8_t *data;
    size_t size;
    size_t next_at; /* where the type of the payload to come is written */
};

static void put(struct message *message, const void *data, size_t size)
{
    memcpy(message->data + message->size, data, size);
    message->size += size;
}

static void put_random(struct message *message, size_t size)
{
    hash_random(message->data + message->size, size);
    message->size += size;
}

static void header(struct message *message, uint8_t *data, const struct wire_spis *spis, uint8_t exchange,
                   bool response, uint32_t message_id)
{
    uint8_t rest[12] = {PAYLOAD_NONE, 0x20, exchange, response ? IKE_FLAG_RESPONSE : IKE_FLAG_INITIATOR};
    uint32_t id = htonl(message_id);

    *message = (struct message){.data = data, .next_at = NEXT_PAYLOAD_AT};
    memcpy(rest + 4, &id, sizeof id);
    put(message, spis->initiator, 8);
    put(message, spis->responder, 8);
    put(message, rest, sizeof rest);
}

/* The four octets before every payload; its body of size octets follows. */
static void payload(struct message *message, uint8_t type, size_t size)
{
    uint16_t length = htons((uint16_t)(size + 4));

    message->data[message->next_at] = type;
    message->next_at = message->size;
    put(message, (const uint8_t[]){PAYLOAD_NONE, 0}, 2);
    put(message, &length, sizeof length);
}

static void notify(struct message *message, uint16_t type, size_t size)
{
    payload(message, PAYLOAD_NOTIFY, 4 + size);
    put(message, (const uint8_t[]){0, 0, (uint8_t)(type >> 8), (uint8_t)type}, 4);
    put_random(message, size);
}

static size_t finish(struct message *message)
{
    uint32_t length = htonl((uint32_t)message->size);

    memcpy(message->data + LENGTH_AT, &length, sizeof length);
    return message->size;
}

void wire_client_spi(uint8_t spi[8], uint32_t client)
{
    memcpy(spi, spi_magic, sizeof spi_magic);
    hash_random(spi + 4, 3); /* each attempt is an IKE_SA of its own */
    spi[7] = (uint8_t)client;
}

uint32_t wire_client_of(const uint8_t spi[8])
{
    if (memcmp(spi, spi_magic, sizeof spi_magic) != 0 || spi[7] > DEMO_CLIENTS)
        return 0;
    return spi[7];
}

size_t wire_sa_init(uint8_t out[WIRE_SIZE], const struct wire_spis *spis, bool response)
{
    struct message message;

    header(&message, out, spis, IKE_SA_INIT, response, 0);
    payload(&message, PAYLOAD_SA, sizeof proposal);
    put(&message, proposal, sizeof proposal);
    payload(&message, PAYLOAD_KE, 4 + 64);
    put(&message, (const uint8_t[]){0, GROUP_ECP256, 0, 0}, 4);
    put_random(&message, 64);
    payload(&message, PAYLOAD_NONCE, 32);
    put_random(&message, 32);
    notify(&message, NOTIFY_NAT_DETECTION_SOURCE_IP, 20); /* random: no hash matches, so there is a NAT: on to 4500 */
    notify(&message, NOTIFY_NAT_DETECTION_DESTINATION_IP, 20);
    notify(&message, NOTIFY_FRAGMENTATION_SUPPORTED, 0);
    return finish(&message);
}

size_t wire_no_proposal_chosen(uint8_t out[WIRE_SIZE], const uint8_t initiator[8])
{
    struct wire_spis spis = {.responder = {0}};
    struct message message;

    memcpy(spis.initiator, initiator, 8);
    header(&message, out, &spis, IKE_SA_INIT, true, 0);
    notify(&message, NOTIFY_NO_PROPOSAL_CHOSEN, 0);
    return finish(&message);
}

size_t wire_encrypted(uint8_t out[WIRE_SIZE], const struct wire_spis *spis, uint8_t exchange, bool response,
                      uint32_t message_id, bool marked)
{
    /* IV, ciphertext and checksum; IKE_AUTH carries identities, proof and traffic selectors, the other nothing. */
    size_t body = exchange == IKE_AUTH ? 16 + 208 + 16 : 16 + 16 + 16;
    size_t marker = marked ? MARKER_SIZE : 0;
    uint8_t inside = exchange != IKE_AUTH ? PAYLOAD_NONE : response ? PAYLOAD_IDR : PAYLOAD_IDI;
    struct message message;

    memset(out, 0, marker);
    header(&message, out + marker, spis, exchange, response, message_id);
    payload(&message, IKE_PAYLOAD_SK, body);
    message.data[message.next_at] = inside;
    put_random(&message, body);
    return finish(&message) + marker;
}
