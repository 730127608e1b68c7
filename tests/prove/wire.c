/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <arpa/inet.h>
#include <string.h>

enum { MARKER = 4, HEADER = 28, MAGIC = 0x70726f76 };
enum { RESPONDER = 8, NEXT_PAYLOAD = 16, VERSION = 17, EXCHANGE = 18, FLAGS = 19, ID = 20, LENGTH = 24 };
enum { NEXT_SA = 33, NEXT_KE = 34, NEXT_NONCE = 40, NEXT_SK = 46 };
enum { FROM_INITIATOR = 0x08, RESPONSE = 0x20 };
enum { ENCRYPTED = 64, NONCE = 32, KEY = 256 };

static const uint8_t exchanges[] = {[WIRE_INIT] = 34, [WIRE_AUTH] = 35, [WIRE_INFORMATIONAL] = 37};

/* One proposal, as strongSwan and Windows offer it: AES-CBC-128, PRF and integrity with SHA-256, group 14. */
static const uint8_t proposal[] = {NEXT_KE, 0, 0, 48, 0,    0,    0, 44,  1, 1, 0, 4, 3, 0, 0, 12,
                                   1,       0, 0, 12, 0x80, 0x0e, 0, 128, 3, 0, 0, 8, 2, 0, 0, 5,
                                   3,       0, 0, 8,  3,    0,    0, 12,  0, 0, 0, 8, 4, 0, 0, 14};
_Static_assert(sizeof proposal == 48, "the lengths in it are right");

static void write32(uint8_t *data, uint32_t value)
{
    value = htonl(value);
    memcpy(data, &value, sizeof value);
}

static uint8_t *write_payload(uint8_t *at, uint8_t following, uint32_t size)
{
    write32(at, (uint32_t)following << 24 | (size + 4));
    return at + 4;
}

/* SA, KE and nonce. Returns the end. */
static uint8_t *write_init_body(uint8_t *at)
{
    memcpy(at, proposal, sizeof proposal);
    at = write_payload(at + sizeof proposal, NEXT_NONCE, 4 + KEY);
    write32(at, 14u << 16);
    memset(at + 4, 0x5a, KEY);
    at = write_payload(at + 4 + KEY, 0, NONCE);
    memset(at, 0xa5, NONCE);
    return at + NONCE;
}

static uint8_t *write_encrypted_body(uint8_t *at)
{
    at = write_payload(at, 0, ENCRYPTED);
    memset(at, 0x3c, ENCRYPTED);
    return at + ENCRYPTED;
}

static void write_responder(uint8_t *message)
{
    for (int i = 0; i < RESPONDER; i++)
        message[RESPONDER + i] = (uint8_t)~message[i];
}

static uint8_t *write_message(uint8_t *message, const struct wire_trace *trace)
{
    uint8_t *end;

    memset(message, 0, HEADER);
    write32(message, trace->address);
    write32(message + 4, trace->salt);
    if (trace->step != WIRE_INIT)
        write_responder(message);
    message[NEXT_PAYLOAD] = trace->step == WIRE_INIT ? NEXT_SA : NEXT_SK;
    message[VERSION] = 0x20;
    message[EXCHANGE] = exchanges[trace->step];
    message[FLAGS] = FROM_INITIATOR;
    write32(message + ID, trace->step == WIRE_INIT ? 0 : trace->step == WIRE_AUTH ? 1 : trace->sequence + 1);
    end = trace->step == WIRE_INIT ? write_init_body(message + HEADER) : write_encrypted_body(message + HEADER);
    write32(message + LENGTH, (uint32_t)(end - message));
    return end;
}

uint32_t wire_write(uint8_t data[WIRE_SIZE], const struct wire_trace *trace)
{
    struct wire_trace own = *trace;
    uint8_t *at = data;

    own.magic = MAGIC;
    if (trace->step == WIRE_ESP) {
        write32(at, trace->address);
        write32(at + 4, trace->sequence);
        memset(at + 8, 0x45, ENCRYPTED);
        at += 8 + ENCRYPTED;
    } else {
        if (trace->service == WIRE_NATT) {
            memset(at, 0, MARKER);
            at += MARKER;
        }
        at = write_message(at, trace);
    }
    memcpy(at - sizeof own, &own, sizeof own);
    return (uint32_t)(at - data);
}

bool wire_read(struct wire_trace *out, const uint8_t *data, uint32_t size)
{
    if (size < HEADER + sizeof *out)
        return false;
    memcpy(out, data + size - sizeof *out, sizeof *out);
    return out->magic == MAGIC && out->step <= WIRE_ESP && out->service <= WIRE_NATT;
}

void wire_answer(uint8_t *data, uint32_t size, const struct wire_trace *trace)
{
    struct wire_trace own = *trace;

    own.answer = 1;
    memcpy(data + size - sizeof own, &own, sizeof own);
    if (trace->step == WIRE_ESP)
        return;
    if (trace->service == WIRE_NATT)
        data += MARKER;
    write_responder(data);
    data[FLAGS] = RESPONSE;
}

bool wire_answer_probe(uint8_t *data, uint32_t size)
{
    static const uint8_t marker[MARKER];

    if (size > MARKER && memcmp(data, marker, MARKER) == 0) {
        data += MARKER;
        size -= MARKER;
    }
    if (size < HEADER || data[VERSION] != 0x20 || data[EXCHANGE] != exchanges[WIRE_INIT] ||
        data[FLAGS] != FROM_INITIATOR)
        return false;
    write_responder(data);
    data[FLAGS] = RESPONSE;
    return true;
}
