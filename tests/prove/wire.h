/* SPDX-License-Identifier: Apache-2.0 */
/* What the clients say, and what servers answer: IKEv2 of the right shape (RFC 7296 section 3) and ESP, without
 * cryptography. The last octets of each datagram are a trace, which comes back in the answer. SPIs are made of the
 * client's address, so whoever sees a datagram knows them. */
#ifndef PROVE_WIRE_H
#define PROVE_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#define WIRE_SIZE 512u /* octets that every datagram fits in */
#define WIRE_NOBODY UINT32_MAX

enum wire_step { WIRE_INIT, WIRE_AUTH, WIRE_INFORMATIONAL, WIRE_ESP };
enum wire_service { WIRE_IKE, WIRE_NATT }; /* on the second, IKE stands behind the non-ESP marker */

struct wire_trace {
    uint32_t magic;
    uint32_t client;   /* position; WIRE_NOBODY: a flood's, whom nobody remembers */
    uint32_t address;  /* of the client, host order */
    uint32_t sequence; /* of the flow, from 1 */
    uint8_t step, service, answer, steady;
    uint32_t salt; /* in its SPIs */
};

/* Returns the size. Sets magic. */
uint32_t wire_write(uint8_t data[WIRE_SIZE], const struct wire_trace *trace);
/* false: not one of ours. */
bool wire_read(struct wire_trace *out, const uint8_t *data, uint32_t size);
/* A request becomes its answer, of the same size. */
void wire_answer(uint8_t *data, uint32_t size, const struct wire_trace *trace);
/* The same for an IKE_SA_INIT of somebody else, a health check. false: it is none. */
bool wire_answer_probe(uint8_t *data, uint32_t size);

#endif
