/* SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

#include <criterion/criterion.h>
#include <string.h>

static struct fake *fake;
static uint32_t ike, natt;

static void set_up(void)
{
    fake = fake_open("source_address");
    ike = fake_service(fake, "ike", 1, 1);
    natt = fake_service(fake, "nat-t", 1, 1);
}

static void tear_down(void)
{
    fake_close(fake);
}

TestSuite(source_address, .init = set_up, .fini = tear_down);

/* This is what breaks IKEv2, and what the vendors' ways are measured against. */
Test(source_address, keeps_each_service_by_itself)
{
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, natt, "192.0.2.1"));
}

Test(source_address, brings_a_client_back_from_any_port)
{
    int32_t home = fake_decide(fake, ike, "192.0.2.1");

    fake_decide(fake, ike, "192.0.2.2");
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), home);
}

Test(source_address, joins_the_clients_under_one_mask)
{
    fake_set(fake, "mask", "255.255.255.0");
    fake_set(fake, "mask6", "64");
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, ike, "192.0.2.254"));
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, ike, "192.0.3.1"));
    cr_assert_eq(fake_decide(fake, ike, "2001:db8::1"), fake_decide(fake, ike, "2001:db8::ffff:1"));
    cr_assert_neq(fake_decide(fake, ike, "2001:db8::1"), fake_decide(fake, ike, "2001:db8:0:1::1"));
}

Test(source_address, keeps_families_apart_even_under_a_mask_of_zero)
{
    fake_set(fake, "mask", "0");
    fake_set(fake, "mask6", "0");
    cr_assert_eq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, ike, "198.51.100.1"));
    cr_assert_neq(fake_decide(fake, ike, "192.0.2.1"), fake_decide(fake, ike, "2001:db8::1"));
}

/* A reload renumbers services; records must be found all the same. */
Test(source_address, key_does_not_hold_the_services_number)
{
    uint8_t before[HP_KEY_MAX], after[HP_KEY_MAX];
    int32_t size = fake_explain(fake, natt, "192.0.2.1", before);

    fake->services[natt].id = 7;
    cr_assert_eq(fake_explain(fake, natt, "192.0.2.1", after), size);
    cr_assert_arr_eq(before, after, (size_t)size);
}

/* What every plugin in the box owes to the host and to `homeport plugins`. */
Test(descriptor, is_whole_in_every_plugin_of_the_box)
{
    const char *const names[] = {"source_address", "port_following", "match_across_services", "persistency_group"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct fake *one = fake_open(names[i]);
        const struct hp_plugin *plugin = one->plugin;
        cr_expect_eq(plugin->abi_major, HP_ABI_MAJOR);
        cr_expect_eq(plugin->size, sizeof *plugin);
        cr_expect_eq(plugin->option_size, sizeof(struct hp_option));
        cr_expect_str_eq(plugin->name, names[i]);
        cr_expect(plugin->version[0] != '\0' && plugin->summary[0] != '\0' && plugin->author[0] != '\0');
        cr_expect_not_null(plugin->derive_key, "%s cannot be explained", names[i]);
        cr_expect_eq(plugin->options[plugin->ttl_option].kind, HP_OPTION_DURATION);
        for (uint32_t o = 0; o < plugin->option_count; o++)
            cr_expect(plugin->options[o].help != NULL && strchr(plugin->options[o].help, '.') != NULL,
                      "%s: %s needs help", names[i], plugin->options[o].name);
        fake_close(one);
    }
}
