/* SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

#include <criterion/criterion.h>
#include <string.h>

enum { HERE = 1, ELSEWHERE = 2 };          /* virtual addresses */
enum { SERVERS = 10, OTHER_SERVERS = 11 }; /* sets of servers */

static struct fake *fake;
static uint32_t ike, natt, sstp, other;

static void set_up(void)
{
    fake = fake_open("match_across_services");
    ike = fake_service(fake, "ike", HERE, SERVERS);
    natt = fake_service(fake, "nat-t", HERE, SERVERS);
    sstp = fake_service(fake, "sstp", HERE, SERVERS);
    other = fake_service(fake, "other", ELSEWHERE, SERVERS);
    fake->services[sstp].protocol = 6;
    fake->services[natt].pool_identity = 99; /* two pools with the same servers: the vendor's normal case */
}

static void tear_down(void)
{
    fake_close(fake);
}

TestSuite(match_across_services, .init = set_up, .fini = tear_down);

Test(match_across_services, joins_services_of_one_address_whatever_pool_and_protocol)
{
    int32_t home = fake_decide(fake, natt, "192.0.2.1");

    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), home);
    cr_assert_eq(fake_decide(fake, sstp, "192.0.2.1"), home);
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.2"), home);
}

Test(match_across_services, starts_afresh_at_another_address)
{
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, other, "192.0.2.1"));
}

Test(match_across_services, joins_all_addresses_across_virtuals)
{
    fake_set(fake, "match_across_virtuals", "true");
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, other, "192.0.2.1"));
    fake_set(fake, "match_across_services", "false");
    cr_assert_eq(fake_decide(fake, natt, "192.0.2.3"), fake_decide(fake, other, "192.0.2.3"));
}

Test(match_across_services, keeps_services_apart_with_nothing_ticked)
{
    fake_set(fake, "match_across_services", "false");
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.1"));
    fake_check(fake);
    cr_assert_eq(fake_errors(fake), 0);
    cr_assert_eq(fake_warnings(fake), 1);
}

Test(match_across_services, claims_with_the_vendors_defaults)
{
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.flags, 0);
    cr_assert_eq(fake->claim.ttl_ms, 180000);
    cr_assert_eq(fake->claim.prefer, HP_NOTHING);
}

Test(match_across_services, lets_any_pool_serve_only_across_pools)
{
    fake_set(fake, "match_across_pools", "true");
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.flags, HP_CLAIM_ANY_POOL);
}

Test(match_across_services, exceeds_the_limit_only_when_told_to_override)
{
    fake_set(fake, "override_connection_limit", "true");
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.flags, HP_CLAIM_OVER_LIMIT);
}

Test(match_across_services, keeps_a_record_for_ever_when_told_never)
{
    fake_set(fake, "timeout", "never");
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.ttl_ms, UINT64_MAX);
    fake->values[FAKE_SERVICES][fake_option(fake, "timeout")].as.integer = -1; /* UINT64_MAX as the value holds it */
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.ttl_ms, UINT64_MAX);
}

Test(match_across_services, keeps_ipv4_and_ipv6_clients_apart)
{
    /* c000:201:: begins with the four octets of 192.0.2.1 */
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, ike, "c000:201::"));
    cr_assert_eq(fake_decide(fake, ike, "2001:db8::1"), fake_decide(fake, natt, "2001:db8::1"));
}

Test(match_across_services, explains_the_key_that_it_claims)
{
    uint8_t key[HP_KEY_MAX];
    int32_t size = fake_explain(fake, natt, "192.0.2.1", key);

    fake_decide(fake, natt, "192.0.2.1");
    cr_assert_eq(fake->claim.key_size, (uint32_t)size);
    cr_assert_arr_eq(fake->claim_key, key, (size_t)size);
}

Test(match_across_services, hands_the_hosts_refusal_on)
{
    fake->next_server = HP_REFUSE;
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), HP_REFUSE);
}

Test(match_across_services, warns_of_services_that_share_records_but_not_servers)
{
    fake->services[natt].servers_identity = OTHER_SERVERS;
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake_errors(fake), 0);
    cr_assert_eq(fake_warnings(fake), 2); /* nat-t against ike, sstp against nat-t */
    cr_assert_eq(fake->problems[0].service, natt);
}

Test(match_across_services, says_nothing_where_unequal_servers_do_no_harm)
{
    fake->services[other].servers_identity = OTHER_SERVERS; /* another address: no shared record */
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake->problem_count, 0);
    fake->services[natt].servers_identity = OTHER_SERVERS;
    fake_set(fake, "match_across_pools", "true");
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake->problem_count, 0);
}

Test(match_across_services, warns_of_across_pools_that_does_nothing)
{
    fake_set(fake, "match_across_services", "false");
    fake_set(fake, "match_across_pools", "true");
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake->problems[0].option, fake_option(fake, "match_across_pools"));
    cr_assert(fake->problems[0].warning);
}
