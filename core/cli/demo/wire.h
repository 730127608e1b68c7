/* SPDX-License-Identifier: Apache-2.0 */
/* IKEv2 messages as clients and servers of the demo write them: headers and payloads of the right kind and size, random
 * octets where a real peer has keys, nonces and ciphertext. SPIs decide, cryptography does not. */
#ifndef CLI_DEMO_WIRE_H
#define CLI_DEMO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_SIZE 1024

struct wire_spis {
    uint8_t initiator[8], responder[8];
};

/* An initiator SPI that says whose it is: a responder sees the balancer's address, not the client's. */
void wire_client_spi(uint8_t spi[8], uint32_t client);
uint32_t wire_client_of(const uint8_t spi[8]); /* 0: not one of ours */

/* All return the size. Requests have flags 0x08, responses 0x20. */
size_t wire_sa_init(uint8_t out[WIRE_SIZE], const struct wire_spis *spis, bool response);
size_t wire_no_proposal_chosen(uint8_t out[WIRE_SIZE], const uint8_t initiator[8]);
/* IKE_AUTH or INFORMATIONAL: one SK payload, behind the non-ESP marker where marked. */
size_t wire_encrypted(uint8_t out[WIRE_SIZE], const struct wire_spis *spis, uint8_t exchange, bool response,
                      uint32_t message_id, bool marked);

#endif
