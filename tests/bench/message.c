/* SPDX-License-Identifier: Apache-2.0 */
#include "message.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

/* RFC 7296 section 3.1, behind the four zero octets of RFC 3948 section 2.2, which say that this is not ESP. */
enum {
    INITIATOR = 4,
    RESPONDER = 12,
    NEXT_PAYLOAD = 20,
    VERSION = 21,
    EXCHANGE = 22,
    FLAGS = 23,
    ID = 27,
    LENGTH = 28
};
enum { MARKER_SIZE = 4, SPI_SIZE = 8 };
enum { TIME = 8, SILENT = 31 }; /* in ESP, behind SPI and sequence number: for the peer alone */
enum { NEXT_SA = 33, NEXT_SK = 46, IKE_SA_INIT = 34, IKE_AUTH = 35, FROM_INITIATOR = 0x08, RESPONSE = 0x20 };

static void write32(uint8_t *data, uint32_t value)
{
    value = htonl(value);
    memcpy(data, &value, sizeof value);
}

static bool is_ike(const uint8_t *data, uint32_t size)
{
    static const uint8_t marker[MARKER_SIZE];

    return size >= MESSAGE_HEAD && memcmp(data, marker, sizeof marker) == 0;
}

static void write_responder(uint8_t *data)
{
    for (int i = 0; i < SPI_SIZE; i++)
        data[RESPONDER + i] = (uint8_t)~data[INITIATOR + i];
}

void message_write(uint8_t *data, uint32_t size, uint32_t client, enum message_step step)
{
    if (step == MESSAGE_ESP) {
        memset(data, 0x45, MESSAGE_HEAD);
        write32(data, client);
        return;
    }
    memset(data, 0, MESSAGE_HEAD);
    write32(data + INITIATOR, client);
    write32(data + INITIATOR + 4, ~client);
    if (step == MESSAGE_AUTH)
        write_responder(data);
    data[NEXT_PAYLOAD] = step == MESSAGE_INIT ? NEXT_SA : NEXT_SK;
    data[VERSION] = 0x20;
    data[EXCHANGE] = step == MESSAGE_INIT ? IKE_SA_INIT : IKE_AUTH;
    data[FLAGS] = FROM_INITIATOR;
    data[ID] = step == MESSAGE_INIT ? 0 : 1;
    write32(data + LENGTH, size - MARKER_SIZE);
}

void message_silence(uint8_t *data)
{
    data[SILENT] = 1;
}

bool message_is_silent(const uint8_t *data, uint32_t size)
{
    return size >= MESSAGE_HEAD && !is_ike(data, size) && data[SILENT] == 1;
}

void message_stamp(uint8_t *data, uint64_t time_ns)
{
    memcpy(data + TIME, &time_ns, sizeof time_ns);
}

uint64_t message_time(const uint8_t *data)
{
    uint64_t time_ns;

    memcpy(&time_ns, data + TIME, sizeof time_ns);
    return time_ns;
}

void message_answer(uint8_t *data, uint32_t size)
{
    if (!is_ike(data, size))
        return;
    write_responder(data);
    data[FLAGS] = RESPONSE;
}

enum message_step message_step(const uint8_t *data, uint32_t size)
{
    if (!is_ike(data, size))
        return MESSAGE_ESP;
    return data[EXCHANGE] == IKE_SA_INIT ? MESSAGE_INIT : MESSAGE_AUTH;
}
