/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include <endian.h>
#include <sodium.h>
#include <string.h>

/* Not a secret: an identity must be the same on every balancer, and names come from the administrator. */
static const uint8_t identity_key[16] = "homeport names 1";

void hash_128(const uint8_t secret[16], const void *data, size_t size, uint64_t out[2])
{
    uint8_t digest[crypto_shorthash_siphashx24_BYTES];

    crypto_shorthash_siphashx24(digest, data, size, secret);
    memcpy(out, digest, sizeof digest);
    out[0] = le64toh(out[0]);
    out[1] = le64toh(out[1]);
}

uint64_t hash_64(const uint8_t secret[16], const void *data, size_t size)
{
    uint8_t digest[crypto_shorthash_siphash24_BYTES];
    uint64_t hash;

    crypto_shorthash_siphash24(digest, data, size, secret);
    memcpy(&hash, digest, sizeof hash);
    return le64toh(hash);
}

uint64_t hash_identity(const char *kind, const char *name)
{
    uint64_t kind_hash = hash_64(identity_key, kind, strlen(kind));
    uint8_t key[16];
    uint64_t identity;

    /* The kind becomes the key's second half: no two (kind, name) pairs are one text. */
    memcpy(key, identity_key, 8);
    kind_hash = htole64(kind_hash);
    memcpy(key + 8, &kind_hash, 8);
    identity = hash_64(key, name, strlen(name));
    return identity == 0 ? 1 : identity;
}

void hash_random(void *data, size_t size)
{
    randombytes_buf(data, size);
}
