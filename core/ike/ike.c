/* SPDX-License-Identifier: Apache-2.0 */
#include "ike/ike.h"

#include <string.h>

enum { HEADER_SIZE = 28, MARKER_SIZE = 4, ESP_SIZE = 8 };
enum { PORT_IKE = 500, PORT_NAT_T = 4500 };

static uint16_t read16(const uint8_t *data)
{
    return (uint16_t)(data[0] << 8 | data[1]);
}

static uint32_t read32(const uint8_t *data)
{
    return (uint32_t)read16(data) << 16 | read16(data + 2);
}

static bool all_zero(const uint8_t *data, size_t size)
{
    while (size > 0 && data[size - 1] == 0)
        size--;
    return size == 0;
}

/* RFC 7296 section 3.1: major version 2, the minor one is ignored; the initiator's SPI is never zero; the length is
 * that of the message, and one message fills one datagram. */
static bool header_valid(const uint8_t *data, size_t size)
{
    return size >= HEADER_SIZE && data[17] >> 4 == 2 && read32(data + 24) == size && !all_zero(data, 8);
}

static void read_header(struct hp_ike *header, const uint8_t *data)
{
    header->size = sizeof *header;
    memcpy(header->initiator_spi, data, 8);
    memcpy(header->responder_spi, data + 8, 8);
    header->next_payload = data[16];
    header->version = data[17];
    header->exchange = data[18];
    header->flags = data[19];
    header->message_id = read32(data + 20);
    header->length = read32(data + 24);
}

static bool read_message(struct ike_datagram *out, const uint8_t *data, size_t size)
{
    if (!header_valid(data, size))
        return false;
    out->kind = IKE_MESSAGE;
    out->data = data;
    out->size = (uint32_t)size;
    read_header(&out->header, data);
    return true;
}

/* RFC 3948 section 2: four zero octets say "not ESP", because no ESP SPI is zero. */
static void read_encapsulated(struct ike_datagram *out, const uint8_t *data, size_t size)
{
    if (size == 1 && data[0] == 0xff) {
        out->kind = IKE_KEEPALIVE;
    } else if (size >= MARKER_SIZE && all_zero(data, MARKER_SIZE)) {
        out->marked = true;
        out->data = data + MARKER_SIZE;
        out->size = (uint32_t)(size - MARKER_SIZE);
        read_message(out, data + MARKER_SIZE, size - MARKER_SIZE);
    } else if (size >= ESP_SIZE) {
        out->kind = IKE_ESP;
        out->esp_spi = read32(data);
    }
}

void ike_read(struct ike_datagram *out, const uint8_t *data, size_t size, uint16_t port)
{
    *out = (struct ike_datagram){.kind = IKE_OTHER, .data = data, .size = (uint32_t)size};
    if (port != PORT_NAT_T && read_message(out, data, size))
        return;
    if (port != PORT_IKE)
        read_encapsulated(out, data, size);
}

bool ike_is_new_sa(const struct ike_datagram *datagram)
{
    return datagram->kind == IKE_MESSAGE && datagram->header.exchange == IKE_SA_INIT &&
           (datagram->header.flags & IKE_FLAG_RESPONSE) == 0 && all_zero(datagram->header.responder_spi, 8);
}

uint16_t ike_notify(const struct ike_datagram *datagram)
{
    enum { TYPE_AT = HEADER_SIZE + 6, TYPE_END = TYPE_AT + 2 };

    if (datagram->kind != IKE_MESSAGE || datagram->header.next_payload != IKE_PAYLOAD_NOTIFY ||
        datagram->size < TYPE_END)
        return 0;
    return read16(datagram->data + TYPE_AT);
}

bool ike_is_proof(const struct ike_datagram *datagram)
{
    if (datagram->kind == IKE_ESP)
        return true;
    return datagram->kind == IKE_MESSAGE && !all_zero(datagram->header.responder_spi, 8) &&
           (datagram->header.next_payload == IKE_PAYLOAD_SK || datagram->header.next_payload == IKE_PAYLOAD_SKF);
}

/* The SA payload comes first and a server chooses a proposal before it looks at the key exchange, so this
 * Diffie-Hellman value (group 2: any number of 1,024 bits below its prime has the right shape) is never computed with.
 */
size_t ike_write_probe(uint8_t out[IKE_PROBE_SIZE], const uint8_t initiator_spi[8], bool marked)
{
    enum { SA = 33, KE = 34, NONCE = 40, KE_SIZE = 128, NONCE_SIZE = 16 };
    static const uint8_t fixed_head[] = {SA, 0x20, IKE_SA_INIT, IKE_FLAG_INITIATOR, 0, 0, 0, 0};
    static const uint8_t sa[] = {
        KE, 0, 0, 44, 0, 0, 0, 40, 1, 1, 0, 4, /* one proposal, for IKE, no SPI, four transforms */
        3,  0, 0, 8,  1, 0, 0, 2,              /* ENCR_DES */
        3,  0, 0, 8,  2, 0, 0, 2,              /* PRF_HMAC_SHA1 */
        3,  0, 0, 8,  3, 0, 0, 2,              /* AUTH_HMAC_SHA1_96 */
        0,  0, 0, 8,  4, 0, 0, 2,              /* 1024-bit MODP group */
    };
    static const uint8_t ke[] = {NONCE, 0, 0, 8 + KE_SIZE, 0, 2, 0, 0};
    static const uint8_t nonce[] = {0, 0, 0, 4 + NONCE_SIZE};
    size_t length = HEADER_SIZE + sizeof sa + sizeof ke + KE_SIZE + sizeof nonce + NONCE_SIZE;
    uint8_t *at = out;

    memset(out, 0, IKE_PROBE_SIZE);
    if (marked)
        at += MARKER_SIZE;
    memcpy(at, initiator_spi, 8);
    memcpy(at + 16, fixed_head, sizeof fixed_head);
    at[27] = (uint8_t)length;
    at += HEADER_SIZE;
    memcpy(at, sa, sizeof sa);
    at += sizeof sa;
    memcpy(at, ke, sizeof ke);
    at += sizeof ke;
    memset(at, 0x5a, KE_SIZE);
    at += KE_SIZE;
    memcpy(at, nonce, sizeof nonce);
    at += sizeof nonce;
    memcpy(at, initiator_spi, 8);
    memcpy(at + 8, initiator_spi, 8);
    return (size_t)(at + NONCE_SIZE - out);
}
