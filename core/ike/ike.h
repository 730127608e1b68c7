/* SPDX-License-Identifier: Apache-2.0 */
/* What a datagram is to a balancer of IKEv2: RFC 7296 section 3.1 (header), RFC 3948 sections 2.1-2.3 (UDP
 * encapsulation), RFC 7383 section 2.5 (encrypted fragments). No state, no allocation, never reads outside
 * (data, size). Any process. */
#ifndef IKE_IKE_H
#define IKE_IKE_H

#include <homeport/plugin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ike_kind {
    IKE_OTHER,     /* none of the below: garbage, IKEv1, a cut header */
    IKE_MESSAGE,   /* a valid IKEv2 header whose length is the datagram's */
    IKE_ESP,       /* first word not zero, at least 8 octets */
    IKE_KEEPALIVE, /* one octet 0xff */
};

enum { IKE_SA_INIT = 34, IKE_AUTH = 35, IKE_CREATE_CHILD_SA = 36, IKE_INFORMATIONAL = 37, IKE_SESSION_RESUME = 38 };
enum { IKE_FLAG_INITIATOR = 0x08, IKE_FLAG_RESPONSE = 0x20 };
enum { IKE_PAYLOAD_NOTIFY = 41, IKE_PAYLOAD_SK = 46, IKE_PAYLOAD_SKF = 53 };

struct ike_datagram {
    enum ike_kind kind;
    bool marked;         /* the non-ESP marker (four zero octets) stood before the message */
    uint32_t esp_spi;    /* host order; IKE_ESP only, else 0 */
    const uint8_t *data; /* the datagram without the marker */
    uint32_t size;
    struct hp_ike header; /* IKE_MESSAGE only */
};

/* port: the service's port towards clients. 500: an IKE message from octet 0. 4500: marker, ESP or keepalive. Any
 * other: content decides (a valid header with or without the marker is IKE, one octet 0xff a keepalive, the rest ESP).
 */
void ike_read(struct ike_datagram *out, const uint8_t *data, size_t size, uint16_t port);

/* A client's first message of a new IKE_SA: IKE_SA_INIT request, SPIr zero (repeats, with a cookie or another KE, too).
 */
bool ike_is_new_sa(const struct ike_datagram *datagram);

/* From a server: something that only a client that knew SPIr can have asked for: SK, SKF or ESP. */
bool ike_is_proof(const struct ike_datagram *datagram);

/* The type of the notify that an unencrypted message begins with (RFC 7296 section 3.10). 0: it begins with none. */
uint16_t ike_notify(const struct ike_datagram *datagram);

#define IKE_PROBE_SIZE 256
/* Writes a well-formed IKE_SA_INIT request that no server accepts (a proposal of ENCR_DES alone), so that the answer is
 * NO_PROPOSAL_CHOSEN and costs it no Diffie-Hellman and no half-open IKE_SA. marked: with the non-ESP marker, for 4500.
 * Returns its size. */
size_t ike_write_probe(uint8_t out[IKE_PROBE_SIZE], const uint8_t initiator_spi[8], bool marked);

#endif
