/* SPDX-License-Identifier: Apache-2.0 */
/* Servers and the other tables of names, their words and probes, and drops. */
#include "fixture.h"

#include "base/hash.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static struct fixture fixture;
static struct segment *segment;
static struct hp_endpoint address;

static void begin(void)
{
    fixture_open(&fixture);
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    segment = fixture.segment;
    address = endpoint_of(11, 500);
}
static void end(void)
{
    fixture_close(&fixture);
}
TestSuite(server, .init = begin, .fini = end);
TestSuite(names, .init = begin, .fini = end);
TestSuite(drop, .init = begin, .fini = end);

Test(server, is_found_again_by_name_with_its_generation_and_down_bits)
{
    uint32_t a = server_assign(segment, "vpn1", &address), b = server_assign(segment, "vpn2", &address);
    uint64_t word;

    cr_assert_neq(a, b);
    server_set_state(segment, a, SERVER_DRAIN, true);
    server_set_down(segment, a, 3, true);
    word = server_word(segment, a);
    cr_assert_neq(word & SERVER_CONFIGURED, 0);
    address = endpoint_of(12, 0);
    cr_assert_eq(server_assign(segment, "vpn1", &address), a);
    cr_assert_eq(server_find(segment, "vpn1"), a);
    cr_assert_eq(server_word(segment, a), word);
    cr_assert_neq(segment->servers[a].address.address[3], 12, "a configuration that may be refused moves nobody");
    server_set_address(segment, a, &address);
    cr_assert_eq(segment->servers[a].address.address[3], 12, "its address may change");
    cr_assert_eq(server_find(segment, "vpn3"), SEGMENT_NO_INDEX);
    cr_assert_eq(server_find(segment, ""), SEGMENT_NO_INDEX);
}

Test(server, address_is_kept_without_a_port)
{
    uint32_t slot = server_assign(segment, "vpn1", &address);

    cr_assert_eq(segment->servers[slot].address.port, 0);
    cr_assert_str_eq(segment->servers[slot].name, "vpn1");
}

static void fill_table(void)
{
    for (uint32_t i = 0; i < SEGMENT_SERVERS; i++) {
        char name[16];

        snprintf(name, sizeof name, "s%u", i);
        cr_assert_eq(server_assign(segment, name, &address), i);
        server_set_state(segment, i, SERVER_ENABLED, true);
    }
}

Test(server, table_full_of_configured_ones_gives_no_slot)
{
    fill_table();
    cr_assert_eq(server_assign(segment, "one more", &address), SEGMENT_NO_INDEX);
    cr_assert_eq(server_assign(segment, "s77", &address), 77);
}

/* Of four that left the configuration, one has a record, one a live session, one a dead session. */
Test(server, slot_is_given_away_only_when_nothing_names_it)
{
    struct session_row content = {.server = 20};
    struct record_key key = key_in_bucket(segment, 3, 1);
    uint64_t before;

    fill_table();
    for (uint32_t i = 10; i <= 40; i += 10)
        server_set_state(segment, i, SERVER_ENABLED, false);
    claim(segment, process_begin(segment, PROCESS_WORKER, 0), &key, 10, 1);
    session_begin(&segment->rows[5], &content, 1);
    content.server = 30;
    session_begin(&segment->rows[6], &content, 1);
    session_end(&segment->rows[6]);
    server_set_down(segment, 30, 2, true);
    server_probe_assign(segment, 30, 17, 500);
    before = server_word(segment, 30);
    cr_assert_eq(server_assign(segment, "new", &address), 30);
    cr_assert_eq(server_word(segment, 30) >> 32, (before >> 32) + 1, "another name, another generation");
    cr_assert_eq(server_word(segment, 30) & SERVER_DOWN_MASK, 0);
    cr_assert_eq(server_probe_find(segment, 30, 17, 500), SEGMENT_NO_INDEX);
    cr_assert_eq(server_find(segment, "s30"), SEGMENT_NO_INDEX);
    cr_assert_eq(server_assign(segment, "newer", &address), 40, "30 is taken from now on");
    cr_assert_eq(server_assign(segment, "newest", &address), SEGMENT_NO_INDEX);
}

Test(server, state_down_and_configured_do_not_disturb_each_other)
{
    uint32_t slot = server_assign(segment, "vpn1", &address);
    uint64_t generation = server_word(segment, slot) >> 32;

    server_set_down(segment, slot, 0, true);
    server_set_down(segment, slot, 15, true);
    server_set_state(segment, slot, SERVER_DISABLED, true);
    cr_assert_eq(server_word(segment, slot) & SERVER_DOWN_MASK, 0x8001);
    cr_assert_eq(server_word_state(server_word(segment, slot)), SERVER_DISABLED);
    server_set_state(segment, slot, SERVER_OFFLINE, false);
    cr_assert_eq(server_word_state(server_word(segment, slot)), SERVER_OFFLINE);
    cr_assert_eq(server_word(segment, slot) & SERVER_CONFIGURED, 0);
    server_set_down(segment, slot, 15, false);
    cr_assert_eq(server_word(segment, slot) & SERVER_DOWN_MASK, 1);
    cr_assert_eq(server_word(segment, slot) >> 32, generation);
    server_set_state(segment, slot, (enum server_state)0xff, true);
    cr_assert_eq(server_word(segment, slot) >> 32, generation, "nonsense stays within its two bits");
    cr_assert_eq(server_word(segment, slot) & SERVER_DOWN_MASK, 1);
}

static void *toggle_states(void *slot)
{
    for (unsigned i = 0; i < 20000; i++)
        server_set_state(segment, *(uint32_t *)slot, (enum server_state)(i % 4), i % 8 < 4);
    server_set_state(segment, *(uint32_t *)slot, SERVER_DRAIN, true);
    return NULL;
}

Test(server, master_and_monitor_write_the_word_at_once_and_lose_nothing)
{
    uint32_t slot = server_assign(segment, "vpn1", &address);
    pthread_t master;

    cr_assert_eq(pthread_create(&master, NULL, toggle_states, &slot), 0);
    for (uint32_t i = 0; i < 20000; i++) {
        server_set_down(segment, slot, i % 16, true);
        cr_assert(server_word(segment, slot) >> i % 16 & 1);
        server_set_down(segment, slot, i % 16, false);
        cr_assert_not(server_word(segment, slot) >> i % 16 & 1);
    }
    pthread_join(master, NULL);
    cr_assert_eq(server_word_state(server_word(segment, slot)), SERVER_DRAIN);
    cr_assert(server_word(segment, slot) & SERVER_CONFIGURED);
}

Test(server, probes_are_found_again_by_protocol_and_port)
{
    uint32_t slot = server_assign(segment, "vpn1", &address);

    for (uint16_t i = 0; i < SEGMENT_PROBES; i++)
        cr_assert_eq(server_probe_assign(segment, slot, i % 2 ? 6 : 17, 500 + i), i);
    cr_assert_eq(server_probe_assign(segment, slot, 17, 4500), SEGMENT_NO_INDEX, "all taken");
    cr_assert_eq(server_probe_assign(segment, slot, 17, 502), 2);
    cr_assert_eq(server_probe_find(segment, slot, 6, 503), 3);
    cr_assert_eq(server_probe_find(segment, slot, 6, 502), SEGMENT_NO_INDEX);
}

Test(server, indices_from_a_hostile_hand_are_checked)
{
    server_set_state(segment, SEGMENT_SERVERS, SERVER_DRAIN, true);
    server_set_state(segment, SEGMENT_NO_INDEX, SERVER_DRAIN, true);
    server_set_down(segment, SEGMENT_NO_INDEX, 0, true);
    server_set_down(segment, 0, SEGMENT_PROBES, true);
    server_set_down(segment, 0, 32, true);
    cr_assert_eq(server_word(segment, 0), 0);
    cr_assert_eq(server_word(segment, SEGMENT_NO_INDEX), server_word(segment, SEGMENT_SERVERS - 1));
    cr_assert_eq(server_probe_find(segment, SEGMENT_SERVERS, 17, 500), SEGMENT_NO_INDEX);
    cr_assert_eq(server_probe_assign(segment, SEGMENT_NO_INDEX, 17, 500), SEGMENT_NO_INDEX);
    cr_assert_eq(server_probe_assign(segment, 0, 0, 0), SEGMENT_NO_INDEX, "that would be a free one's key");
}

Test(names, pool_service_and_profile_of_one_name_are_three_things)
{
    cr_assert_eq(pool_assign(segment, "x"), 0);
    cr_assert_eq(service_find(segment, "x"), SEGMENT_NO_INDEX);
    cr_assert_eq(service_assign(segment, "ike"), 0);
    cr_assert_eq(service_assign(segment, "x"), 1);
    cr_assert_eq(profile_assign(segment, "x"), 0);
    cr_assert_eq(service_assign(segment, "x"), 1);
    cr_assert_eq(service_find(segment, "x"), 1);
    cr_assert_eq(profile_find(segment, "ike"), SEGMENT_NO_INDEX);
    cr_assert_eq(profile_assign(segment, "x"), 0);
    cr_assert_eq(pool_assign(segment, "x"), 0);
    cr_assert_eq(pool_find(segment, "x"), 0);
    cr_assert_str_eq(segment->services[1].name, "x");
}

Test(names, found_again_keep_what_is_in_their_slots)
{
    uint32_t pool = pool_assign(segment, "rras"), profile = profile_assign(segment, "kemp");

    atomic_store(&segment->pools[pool].cursor, 99);
    atomic_store(&segment->profiles[profile].quarantined, 1);
    pool_assign(segment, "rras");
    profile_assign(segment, "kemp");
    cr_assert_eq(atomic_load(&segment->pools[pool].cursor), 99);
    cr_assert_eq(atomic_load(&segment->profiles[profile].quarantined), 1);
}

Test(names, table_full_gives_no_slot)
{
    char name[16];

    for (uint32_t i = 0; i <= SEGMENT_POOLS; i++) {
        snprintf(name, sizeof name, "n%u", i);
        cr_assert_eq(pool_assign(segment, name), i < SEGMENT_POOLS ? i : SEGMENT_NO_INDEX);
        cr_assert_eq(service_assign(segment, name), i < SEGMENT_SERVICES ? i : SEGMENT_NO_INDEX);
        cr_assert_eq(profile_assign(segment, name), i < SEGMENT_PROFILES ? i : SEGMENT_NO_INDEX);
    }
}

Test(names, too_long_are_cut_and_ended)
{
    char name[200];
    uint32_t slot;

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    slot = service_assign(segment, name);
    cr_assert_eq(strlen(segment->services[slot].name), SEGMENT_NAME - 1);
    cr_assert_eq(service_find(segment, name), slot);
}

Test(drop, is_read_back_by_its_sequence)
{
    struct hp_endpoint client = endpoint_of(7, 4500), read;
    uint64_t sequence = drop_post(segment, &client);

    cr_assert_eq(sequence, 1);
    cr_assert_eq(atomic_load(&segment->header->drop_last), 1);
    cr_assert(drop_read(segment, sequence, &read));
    client.port = 0;
    cr_assert_arr_eq(&read, &client, sizeof client);
    cr_assert_not(drop_read(segment, 0, &read));
    cr_assert_not(drop_read(segment, 2, &read));
}

Test(drop, older_than_the_ring_is_gone)
{
    struct hp_endpoint client = endpoint_of(7, 0), read;

    for (uint64_t i = 1; i <= SEGMENT_DROPS + 1; i++) {
        client.address[2] = (uint8_t)i;
        cr_assert_eq(drop_post(segment, &client), i);
        atomic_fetch_add(&segment->drops[i % SEGMENT_DROPS].ended, 3);
    }
    cr_assert_not(drop_read(segment, 1, &read));
    cr_assert(drop_read(segment, 2, &read));
    cr_assert_eq(read.address[2], 2);
    drop_post(segment, &client);
    cr_assert_eq(atomic_load(&segment->drops[2].ended), 0, "a new drop counts from 0");
}

Test(names, that_nobody_keeps_make_room)
{
    const uint64_t kept[] = {hash_identity("profile", "kept")};

    profile_assign(segment, "kept");
    profile_assign(segment, "gone");
    service_assign(segment, "gone");
    pool_assign(segment, "gone");
    names_free_others(segment, kept, 1);
    cr_assert_neq(profile_find(segment, "kept"), SEGMENT_NO_INDEX);
    cr_assert_eq(profile_find(segment, "gone"), SEGMENT_NO_INDEX);
    cr_assert_eq(service_find(segment, "gone"), SEGMENT_NO_INDEX);
    cr_assert_eq(pool_find(segment, "gone"), SEGMENT_NO_INDEX);
}

Test(server, probes_that_nobody_keeps_are_free_and_not_down)
{
    uint32_t slot = server_assign(segment, "vpn1", &address), kept = 17u << 16 | 500;

    server_probe_assign(segment, slot, 17, 500);
    server_set_down(segment, slot, server_probe_assign(segment, slot, 17, 4500), true);
    server_probes_free_others(segment, slot, &kept, 1);
    cr_assert_neq(server_probe_find(segment, slot, 17, 500), SEGMENT_NO_INDEX);
    cr_assert_eq(server_probe_find(segment, slot, 17, 4500), SEGMENT_NO_INDEX);
    cr_assert_eq(server_word(segment, slot) & SERVER_DOWN_MASK, 0);
}
