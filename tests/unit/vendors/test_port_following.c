/* SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

#include <criterion/criterion.h>
#include <string.h>

enum { HERE = 1, ELSEWHERE = 2 };
enum { SERVERS = 10, OTHER_SERVERS = 11 };

static struct fake *fake;
static uint32_t ike, natt, sstp;

static void set_up(void)
{
    fake = fake_open("port_following");
    ike = fake_service(fake, "ike", HERE, SERVERS);
    natt = fake_service(fake, "nat-t", HERE, SERVERS);
    sstp = fake_service(fake, "sstp", HERE, SERVERS);
    fake->services[sstp].protocol = 6;
}

static void tear_down(void)
{
    fake_close(fake);
}

/* As the vendor's guide has it, with SSTP in a chain behind. */
static void follow_as_the_guide_says(void)
{
    fake_follow(fake, ike, natt);
    fake_follow(fake, natt, ike);
    fake_follow(fake, sstp, ike);
}

TestSuite(port_following, .init = set_up, .fini = tear_down);

Test(port_following, both_ways_brings_a_client_home_whichever_port_comes_first)
{
    follow_as_the_guide_says();
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.1"));
    cr_assert_eq(fake_decide(fake, natt, "192.0.2.2"), fake_decide(fake, ike, "192.0.2.2"));
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, ike, "192.0.2.2"));
    cr_assert_eq(fake->counted[0], 0);
}

Test(port_following, round_a_longer_cycle_is_one_scope)
{
    fake_follow(fake, ike, natt);
    fake_follow(fake, natt, sstp);
    fake_follow(fake, sstp, ike);
    cr_assert_eq(fake_decide(fake, sstp, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.1"));
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.1"));
    cr_assert_eq(fake->record_count, 1);
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake->problem_count, 0);
}

Test(port_following, a_chain_takes_the_pairs_record)
{
    follow_as_the_guide_says();
    cr_assert_eq(fake_decide(fake, natt, "192.0.2.1"), fake_decide(fake, sstp, "192.0.2.1"));
    cr_assert_eq(fake->record_count, 1);
}

Test(port_following, a_chain_prefers_the_record_at_its_end)
{
    int32_t middle, end;

    fake_follow(fake, sstp, natt);
    fake_follow(fake, natt, ike);
    middle = fake_decide(fake, natt, "192.0.2.1"); /* private: ike has nothing yet */
    cr_assert_eq(fake_decide(fake, sstp, "192.0.2.1"), middle);
    end = fake_decide(fake, ike, "192.0.2.1");
    cr_assert_neq(end, middle);
    cr_assert_eq(fake_decide(fake, sstp, "192.0.2.1"), end);
    cr_assert_eq(fake_decide(fake, natt, "192.0.2.1"), end);
}

Test(port_following, one_way_joins_the_record_that_is_there)
{
    fake_follow(fake, natt, ike);
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.1"));
    cr_assert_eq(fake->record_count, 1);
    cr_assert_eq(fake->counted[0], 0);
}

/* The vendor's own gap, which `check` warns of: the follower came first. */
Test(port_following, one_way_splits_a_client_that_comes_to_the_follower_first)
{
    int32_t private;

    fake_follow(fake, natt, ike);
    private = fake_decide(fake, natt, "192.0.2.1");
    cr_assert_eq(fake->counted[0], 1);
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), private);
    cr_assert_eq(fake_decide(fake, natt, "192.0.2.1"), fake_decide(fake, ike, "192.0.2.1"));
}

Test(port_following, without_follow_services_are_unrelated)
{
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.1"));
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake_warnings(fake), 3);
}

Test(port_following, ends_its_walk_when_a_chain_runs_into_a_cycle)
{
    uint8_t key[HP_KEY_MAX];
    uint32_t services[5] = {ike, natt, sstp};

    for (uint32_t i = 3; i < 5; i++)
        services[i] = fake_service(fake, i == 3 ? "four" : "five", HERE, SERVERS);
    for (uint32_t i = 0; i < 4; i++)
        fake_follow(fake, services[i], services[i + 1]);
    fake_follow(fake, services[4], services[2]); /* ike -> nat-t -> (sstp -> four -> five -> sstp) */
    cr_assert_eq(fake_decide(fake, services[4], "192.0.2.1"), fake_decide(fake, services[2], "192.0.2.1"));
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, services[3], "192.0.2.1"));
    cr_assert_gt(fake_explain(fake, ike, "192.0.2.1", key), 0);
    cr_assert_eq(fake->record_count, 1);
}

/* A reload renumbers services and may turn their order round. */
Test(port_following, scope_does_not_depend_on_the_services_order)
{
    uint8_t here[HP_KEY_MAX], there[HP_KEY_MAX];
    struct fake *other = fake_open("port_following");
    uint32_t other_natt = fake_service(other, "nat-t", HERE, SERVERS),
             other_ike = fake_service(other, "ike", HERE, SERVERS);
    int32_t size;

    follow_as_the_guide_says();
    fake_follow(other, other_natt, other_ike);
    fake_follow(other, other_ike, other_natt);
    size = fake_explain(fake, natt, "192.0.2.1", here);
    cr_assert_eq(fake_explain(other, other_ike, "192.0.2.1", there), size);
    cr_assert_arr_eq(here, there, (size_t)size);
    fake_close(other);
}

Test(port_following, explains_where_a_followers_client_is_found)
{
    uint8_t key[HP_KEY_MAX];
    int32_t size;

    follow_as_the_guide_says();
    fake_decide(fake, ike, "192.0.2.1");
    size = fake_explain(fake, sstp, "192.0.2.1", key);
    cr_assert_eq(fake->claim.key_size, (uint32_t)size);
    cr_assert_arr_eq(fake->claim_key, key, (size_t)size);
}

Test(port_following, refreshes_by_traffic_or_by_new_flows_alone)
{
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.flags, 0);
    cr_assert_eq(fake->claim.ttl_ms, 360000);
    fake_set(fake, "refresh", "new_flows");
    fake_decide(fake, ike, "192.0.2.1");
    cr_assert_eq(fake->claim.flags, HP_CLAIM_NEW_FLOWS);
}

Test(port_following, keeps_ipv4_and_ipv6_clients_apart)
{
    follow_as_the_guide_says();
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, ike, "c000:201::"));
    cr_assert_eq(fake_decide(fake, ike, "2001:db8::1"), fake_decide(fake, natt, "2001:db8::1"));
}

Test(port_following, accepts_a_pair_with_a_chain_without_a_word)
{
    follow_as_the_guide_says();
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake->problem_count, 0, "%s", fake->problems[0].text);
}

Test(port_following, warns_of_following_one_way)
{
    fake_follow(fake, natt, ike);
    fake_follow(fake, sstp, natt);
    cr_assert_eq(fake_check(fake), 0);
    cr_assert_eq(fake_errors(fake), 0);
    cr_assert_eq(fake_warnings(fake), 1);
    cr_assert_eq(fake->problems[0].service, natt);
    cr_assert_eq(fake->problems[0].option, fake_option(fake, "follow"));
}

Test(port_following, refuses_other_servers_at_the_followed_service)
{
    follow_as_the_guide_says();
    fake->services[sstp].servers_identity = OTHER_SERVERS;
    cr_assert_eq(fake_check(fake), -1);
    cr_assert_eq(fake_errors(fake), 1);
    cr_assert_eq(fake->problems[0].service, sstp);
    cr_assert_not_null(strstr(fake->problems[0].text, "different servers"));
}

Test(port_following, refuses_another_address_at_the_followed_service)
{
    follow_as_the_guide_says();
    fake->services[natt].listen_identity = ELSEWHERE;
    cr_assert_eq(fake_check(fake), -1);
    cr_assert_eq(fake_errors(fake), 2); /* each of the pair says so at its own line */
    cr_assert_not_null(strstr(fake->problems[0].text, "different addresses"));
}

Test(port_following, refuses_a_service_that_follows_itself)
{
    follow_as_the_guide_says();
    fake_follow(fake, sstp, sstp);
    cr_assert_eq(fake_check(fake), -1);
    cr_assert_eq(fake_errors(fake), 1);
    cr_assert_eq(fake_decide(fake, sstp, "192.0.2.1"), fake_decide(fake, sstp, "192.0.2.1"));
}
