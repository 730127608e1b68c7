/* SPDX-License-Identifier: Apache-2.0 */
/* In the place of libsodium, which has no package for a foreign machine on a usual host: hashes that are good enough
 * for programs that choose their keys themselves. */
#include "base/hash.h"
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

uint64_t hash_64(const uint8_t secret[16], const void *data, size_t size)
{
    const uint8_t *octets = data;
    uint64_t hash;

    memcpy(&hash, secret, sizeof hash); /* half of it will do */
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ octets[i]) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    return hash;
}

void hash_128(const uint8_t secret[16], const void *data, size_t size, uint64_t out[2])
{
    uint8_t other[16];

    for (size_t i = 0; i < sizeof other; i++)
        other[i] = secret[i] ^ 0x5a;
    out[0] = hash_64(secret, data, size);
    out[1] = hash_64(other, data, size);
}

uint64_t hash_identity(const char *kind, const char *name)
{
    static const uint8_t secret[16] = "a name's number";

    return (hash_64(secret, kind, strlen(kind)) ^ hash_64(secret, name, strlen(name))) | 1;
}

void hash_random(void *data, size_t size)
{
    if (getrandom(data, size, 0) != (ssize_t)size)
        abort();
}

/* clock.c reads the boot id with it. */
int sodium_hex2bin(unsigned char *const bin, const size_t bin_maxlen, const char *const hex, const size_t hex_len,
                   const char *const ignore, size_t *const bin_len, const char **const hex_end)
{
    size_t used = 0, digits = 0;

    for (size_t i = 0; i < hex_len && used < bin_maxlen; i++) {
        const char *const all = "0123456789abcdef", *digit = strchr(all, hex[i]);

        if (digit == NULL || hex[i] == '\0') {
            if (ignore != NULL && strchr(ignore, hex[i]) != NULL)
                continue;
            break;
        }
        bin[used] = (unsigned char)(bin[used] << 4 | (unsigned char)(digit - all));
        used += ++digits % 2 == 0;
    }
    if (bin_len != NULL)
        *bin_len = used;
    if (hex_end != NULL)
        *hex_end = NULL;
    return 0;
}
