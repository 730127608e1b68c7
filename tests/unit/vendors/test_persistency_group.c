/* SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

#include <criterion/criterion.h>

enum { HERE = 1, ELSEWHERE = 2 };
enum { SERVERS = 10, OTHER_SERVERS = 11 };

static struct fake *fake;
static uint32_t ike, natt, sstp;

static void set_up(void)
{
    fake = fake_open("persistency_group");
    ike = fake_service(fake, "ike", HERE, SERVERS);
    natt = fake_service(fake, "nat-t", HERE, SERVERS);
    sstp = fake_service(fake, "sstp", ELSEWHERE, SERVERS);
    fake->services[sstp].protocol = 6;
}

static void tear_down(void)
{
    fake_close(fake);
}

TestSuite(persistency_group, .init = set_up, .fini = tear_down);

Test(persistency_group, has_one_record_for_all_members)
{
    int32_t home = fake_decide(fake, natt, "192.0.2.1");

    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), home);
    cr_assert_eq(fake_decide(fake, sstp, "192.0.2.1"), home);
    cr_assert_neq(fake_decide(fake, sstp, "192.0.2.2"), home);
    cr_assert_eq(fake->claim.ttl_ms, 120000);
}

Test(persistency_group, of_type_none_keeps_no_records)
{
    uint8_t key[HP_KEY_MAX];

    fake_set(fake, "persistence_type", "none");
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), HP_NOTHING);
    cr_assert_eq(fake_explain(fake, ike, "192.0.2.1", key), HP_NOTHING);
    cr_assert_eq(fake->claims, 0);
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake_warnings(fake), 1);
}

Test(persistency_group, skips_persistency_at_a_limit_in_the_three_vendors_ways)
{
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.flags, HP_CLAIM_REFUSE);
    fake_set(fake, "skip_persistency", "bypass");
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.flags, HP_CLAIM_KEEP);
    fake_set(fake, "skip_persistency", "relb");
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.flags, 0);
}

Test(persistency_group, takes_masks_by_the_vendors_names)
{
    fake_set(fake, "persist_mask", "255.255.255.0");
    fake_set(fake, "v6_persist_mask_len", "64");
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake->problem_count, 0);
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.77"));
    cr_assert_eq(fake_decide(fake, ike, "2001:db8::1"), fake_decide(fake, natt, "2001:db8::77"));
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "2001:db8::77"));
}

Test(persistency_group, takes_masks_by_our_names)
{
    fake_set(fake, "mask", "255.255.255.0");
    fake_set(fake, "mask6", "64");
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.77"));
    cr_assert_eq(fake_decide(fake, ike, "2001:db8::1"), fake_decide(fake, natt, "2001:db8::77"));
}

Test(persistency_group, refuses_one_mask_under_two_names)
{
    fake_set(fake, "mask", "255.255.255.0");
    fake_set(fake, "persist_mask", "255.255.255.0");
    fake_set(fake, "mask6", "64");
    fake_set(fake, "v6_persist_mask_len", "64");
    cr_assert_eq(fake_check(fake), -1);
    cr_assert_eq(fake_errors(fake), 2);
    cr_assert_eq(fake->problems[0].option, fake_option(fake, "persist_mask"));
    cr_assert_eq(fake->problems[1].option, fake_option(fake, "v6_persist_mask_len"));
}

Test(persistency_group, warns_of_members_with_other_servers)
{
    fake->services[natt].servers_identity = OTHER_SERVERS;
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake_warnings(fake), 1);
    cr_assert_eq(fake->problems[0].service, natt);
}

Test(persistency_group, explains_the_key_that_it_claims)
{
    uint8_t key[HP_KEY_MAX];
    int32_t size = fake_explain(fake, sstp, "2001:db8::1", key);

    fake_decide(fake, sstp, "2001:db8::1");
    cr_assert_eq(fake->claim.key_size, (uint32_t)size);
    cr_assert_arr_eq(fake->claim_key, key, (size_t)size);
}
