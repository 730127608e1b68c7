/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include <criterion/criterion.h>
#include <string.h>

/* The vectors of the SipHash paper's reference code: key 00..0f, input 00..0e. */
static void reference(uint8_t key[16], uint8_t input[15])
{
    for (uint8_t i = 0; i < 16; i++)
        key[i] = i;
    for (uint8_t i = 0; i < 15; i++)
        input[i] = i;
}

Test(hash, is_siphash_2_4)
{
    uint8_t key[16], input[15];

    reference(key, input);
    cr_assert_eq(hash_64(key, input, sizeof input), 0xa129ca6149be45e5u);
}

Test(hash, of_128_bits_is_siphash_2_4_too)
{
    static const uint8_t wanted[16] = {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6,
                                       0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93};
    uint8_t key[16], input[15];
    uint64_t out[2];

    reference(key, input);
    hash_128(key, input, 0, out);
    cr_assert_eq(memcmp(out, wanted, sizeof wanted), 0);
}

Test(hash, differs_with_every_bit_of_the_secret)
{
    uint8_t key[16] = {0};
    uint64_t plain = hash_64(key, "client", 6);

    for (int bit = 0; bit < 128; bit++) {
        key[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_neq(hash_64(key, "client", 6), plain, "bit %d", bit);
        key[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* Records on disk and other balancers hold these numbers: a change here loses every client. */
Test(identity, stays_the_same_for_ever)
{
    cr_assert_eq(hash_identity("server", "vpn1"), 0x79ebb380bd469f4eu);
    cr_assert_eq(hash_identity("pool", ""), 0x68fc976c64b62709u);
}

Test(identity, keeps_kinds_and_names_apart)
{
    cr_assert_neq(hash_identity("pool", "a"), hash_identity("service", "a"));
    cr_assert_neq(hash_identity("pool", "a"), hash_identity("poola", ""));
    cr_assert_neq(hash_identity("po", "ola"), hash_identity("pool", "a"));
    cr_assert_neq(hash_identity("server", "vpn1"), hash_identity("server", "vpn2"));
}

Test(random, fills_all_octets_and_no_more)
{
    uint8_t seen[66] = {0};

    for (int round = 0; round < 64; round++) {
        uint8_t octets[66] = {0};
        hash_random(octets + 1, 64);
        cr_assert_eq(octets[0] | octets[65], 0);
        for (size_t i = 0; i < sizeof seen; i++)
            seen[i] |= octets[i];
    }
    for (size_t i = 1; i < 65; i++)
        cr_assert_neq(seen[i], 0, "octet %zu was zero 64 times", i);
    hash_random(seen, 0);
}
