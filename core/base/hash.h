/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash (libsodium) where the key comes from the network, and stable identities of names. Any process. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* SipHash-2-4 with 128 bits of output, keyed by a secret. */
void hash_128(const uint8_t secret[16], const void *data, size_t size, uint64_t out[2]);
/* SipHash-2-4 with 64 bits of output. */
uint64_t hash_64(const uint8_t secret[16], const void *data, size_t size);
/* The identity of a named thing: the same after a reload, a restart and on another balancer; never 0. kind keeps a
 * pool and a service of one name apart: "server", "pool", "service", "profile", "counter", "listener". */
uint64_t hash_identity(const char *kind, const char *name);
/* Fills with random octets from the kernel. */
void hash_random(void *data, size_t size);

#endif
