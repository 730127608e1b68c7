/* SPDX-License-Identifier: Apache-2.0 */
/* A server: IKE_SA_INIT on either port -> an IKE_SA with a random SPIr, answered; IKE_AUTH and INFORMATIONAL with the
 * SPIs of that IKE_SA -> answered; each new thing is reported.
 * Else: SPIs that it does not know    -> silence (RFC 7296 section 2.21.4), reported for IKE_AUTH
 *       an initiator that is no client of the demo, a health probe -> NO_PROPOSAL_CHOSEN: alive, nothing kept
 *       ESP, keepalives, garbage      -> nothing
 *       the answer does not go out    -> as lost on the way: the client repeats
 *       the demo ends                 -> the report socket says so, and this process ends */
#include "cli/demo/responder.h"
#include "base/hash.h"
#include "cli/demo/place.h"
#include "cli/demo/wire.h"
#include "ike/ike.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct responder {
    int report;
    struct wire_spis sas[DEMO_CLIENTS + 1]; /* a client's latest; all zero: none */
};

struct asked { /* a request and what its answer needs */
    const struct ike_datagram *datagram;
    uint32_t client;
    uint8_t *answer;
};

static void report(struct responder *self, uint32_t client, enum responder_saw saw)
{
    struct responder_report packet = {.client = client, .saw = saw};

    (void)send(self->report, &packet, sizeof packet, MSG_NOSIGNAL);
}

static size_t answer_sa_init(struct responder *self, const struct asked *asked)
{
    const uint8_t *initiator = asked->datagram->header.initiator_spi;
    struct wire_spis *sa = &self->sas[asked->client];

    if (asked->client == 0)
        return wire_no_proposal_chosen(asked->answer, initiator);
    if (memcmp(sa->initiator, initiator, 8) != 0) { /* not a repeat */
        memcpy(sa->initiator, initiator, 8);
        hash_random(sa->responder, 8);
    }
    report(self, asked->client, SAW_SA_INIT);
    return wire_sa_init(asked->answer, sa, true);
}

static bool has_sa(const struct responder *self, const struct asked *asked)
{
    const struct hp_ike *header = &asked->datagram->header;
    const struct wire_spis *sa = &self->sas[asked->client];

    return asked->client != 0 && memcmp(sa->initiator, header->initiator_spi, 8) == 0 &&
           memcmp(sa->responder, header->responder_spi, 8) == 0;
}

static size_t answer_encrypted(struct responder *self, const struct asked *asked)
{
    const struct hp_ike *header = &asked->datagram->header;
    bool known = has_sa(self, asked);

    if (header->exchange == IKE_AUTH && asked->client != 0)
        report(self, asked->client, known ? SAW_HOME : SAW_STRANGER);
    if (!known)
        return 0;
    return wire_encrypted(asked->answer, &self->sas[asked->client], header->exchange, true, header->message_id,
                          asked->datagram->marked);
}

static size_t answer(struct responder *self, const struct ike_datagram *datagram, uint8_t out[WIRE_SIZE])
{
    struct asked asked = {
        .datagram = datagram,
        .client = wire_client_of(datagram->header.initiator_spi),
        .answer = out,
    };
    size_t marker = datagram->marked ? 4 : 0;

    if (datagram->kind != IKE_MESSAGE || (datagram->header.flags & IKE_FLAG_RESPONSE) != 0)
        return 0;
    if (!ike_is_new_sa(datagram))
        return answer_encrypted(self, &asked);
    memset(out, 0, marker);
    asked.answer = out + marker;
    return marker + answer_sa_init(self, &asked);
}

/* port: 500 or 4500, the socket's role, whatever number it has here. */
static void serve(struct responder *self, int fd, uint16_t port)
{
    uint8_t in[2048], out[WIRE_SIZE + 4];
    struct sockaddr_storage from;
    struct ike_datagram datagram;

    for (;;) {
        socklen_t from_size = sizeof from;
        ssize_t size = recvfrom(fd, in, sizeof in, MSG_DONTWAIT, (struct sockaddr *)&from, &from_size);
        if (size < 0)
            return;
        ike_read(&datagram, in, (size_t)size, port);
        size_t answer_size = answer(self, &datagram, out);
        if (answer_size > 0)
            (void)sendto(fd, out, answer_size, MSG_DONTWAIT, (struct sockaddr *)&from, from_size);
    }
}

void responder_run(int ike, int nat_t, int report_socket)
{
    struct responder self = {.report = report_socket};
    struct pollfd watched[3] = {
        {.fd = report_socket, .events = POLLIN}, {.fd = ike, .events = POLLIN}, {.fd = nat_t, .events = POLLIN}};

    for (;;) {
        (void)poll(watched, 3, -1);
        if (watched[0].revents != 0) /* nothing is ever sent here: the other end is gone */
            _exit(0);
        if (watched[1].revents != 0)
            serve(&self, ike, 500);
        if (watched[2].revents != 0)
            serve(&self, nat_t, 4500);
    }
}
