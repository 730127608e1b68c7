/* SPDX-License-Identifier: Apache-2.0 */
/* From the file to what the plugin gets, and every way in which it can be wrong. */
#include "plugin/plugin.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A table of every kind, without a file behind it. */
enum { BOOLEAN, NUMBER, TIMEOUT, CHOICE, TEXT, MASK, MASK6, FOLLOW, NEEDED, OPEN, OPTIONS };
static const struct hp_option every_kind[OPTIONS] = {
    [BOOLEAN] = {"boolean", HP_OPTION_BOOL, 0, "no", NULL, ""},
    [NUMBER] = {"number", HP_OPTION_INTEGER, 0, "3", "1..64", ""},
    [TIMEOUT] = {"timeout", HP_OPTION_DURATION, 0, "180s", "1s..24h", ""},
    [CHOICE] = {"choice", HP_OPTION_CHOICE, 0, "second", "first|second|third", ""},
    [TEXT] = {"text", HP_OPTION_STRING, 0, NULL, NULL, ""},
    [MASK] = {"mask", HP_OPTION_MASK4, 0, "255.255.255.255", NULL, ""},
    [MASK6] = {"mask6", HP_OPTION_MASK6, 0, "128", NULL, ""},
    [FOLLOW] = {"follow", HP_OPTION_SERVICE, HP_OPTION_PER_SERVICE, NULL, NULL, ""},
    [NEEDED] = {"needed", HP_OPTION_INTEGER, HP_OPTION_PER_SERVICE, "0", NULL, ""},
    [OPEN] = {"open", HP_OPTION_INTEGER, 0, NULL, "5..", ""},
};

static int32_t no_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    (void)self;
    (void)flow;
    (void)key;
    return HP_NOTHING;
}

static struct plugin plugin;
static struct config *config;
static struct diagnostics *diagnostics;
static struct profile_values *values;
static char yaml[4096], said[4096];

static void open_plugin(void)
{
    plugin = (struct plugin){.path = "every.so",
                             .descriptor = {.abi_major = 1,
                                            .size = sizeof(struct hp_plugin),
                                            .name = "every",
                                            .options = every_kind,
                                            .option_count = OPTIONS,
                                            .option_size = sizeof *every_kind,
                                            .ttl_option = TIMEOUT,
                                            .derive_key = no_key}};
}

static void close_all(void)
{
    profile_values_close(values);
    diagnostics_close(diagnostics);
    config_free(config);
}

TestSuite(values, .init = open_plugin, .fini = close_all);

/* options: of the profile; nat_t: of the service nat-t. Returns what was said. */
static const char *read_values(const char *options, const char *nat_t, const char *nat_t_pool)
{
    FILE *out = fmemopen(said, sizeof said, "w");

    snprintf(yaml, sizeof yaml,
             "servers:\n"
             "  vpn1: { address: 192.0.2.11 }\n"
             "  vpn2: { address: 192.0.2.12 }\n"
             "pools:\n"
             "  rras: { servers: [ vpn1, vpn2 ] }\n"
             "  turned: { servers: [ vpn2, vpn1 ] }\n"
             "  small: { servers: [ vpn1 ] }\n"
             "persistence:\n"
             "  other: { plugin: every }\n"
             "  home: { plugin: every%s }\n"
             "services:\n"
             "  stray: { listen: \"127.0.0.2:501\", protocol: udp, pool: rras, persistence: other }\n"
             "  ike:   { listen: \"127.0.0.1:500\", protocol: udp, pool: rras, persistence: home }\n"
             "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: %s, persistence: { profile: home%s } }\n",
             options, nat_t_pool, nat_t);
    cr_assert_eq(diagnostics_open(&diagnostics, "test.yaml", yaml, strlen(yaml)), 0);
    cr_assert_eq(config_read(&config, "test.yaml", yaml, strlen(yaml), diagnostics), 0);
    diagnostics_close(diagnostics); /* what is said of the rest of the file is not asked here */
    cr_assert_eq(diagnostics_open(&diagnostics, "test.yaml", yaml, strlen(yaml)), 0);
    profile_values_open(&values, &plugin, config, 1, diagnostics);
    diagnostics_print(diagnostics, out);
    fclose(out);
    return said;
}

static void expect(const char *text)
{
    cr_expect_not_null(strstr(said, text), "wanted: %s\nsaid: %s", text, said);
}

Test(values, fallbacks_are_parsed_in_the_users_notation)
{
    const struct hp_value *row;

    read_values("", "", "rras");
    cr_assert_not_null(values, "%s", said);
    cr_assert_str_empty(said);
    row = profile_values_view(values)->values;
    cr_assert_eq(row[BOOLEAN].as.integer, 0);
    cr_assert_eq(row[NUMBER].as.integer, 3);
    cr_assert_eq(row[TIMEOUT].as.integer, 180000);
    cr_assert_eq(row[CHOICE].as.integer, 1);
    cr_assert_str_eq(row[TEXT].as.text, "");
    cr_assert_eq(row[TEXT].given, 0);
    cr_assert_eq(row[TIMEOUT].given, 1);
    cr_assert_eq(row[MASK].as.mask[3], 255);
    cr_assert_eq(row[MASK6].as.mask[15], 255);
}

Test(values, what_the_user_wrote_wins_and_services_see_it_too)
{
    const struct hp_profile *view;

    read_values(", options: { boolean: yes, number: 64, timeout: 2h, choice: third, text: hello, mask: 24, open: 900 }",
                ", follow: ike", "rras");
    cr_assert_not_null(values, "%s", said);
    view = profile_values_view(values);
    cr_assert_eq(view->service_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct hp_value *row = view->services[i]->values;

        cr_assert_eq(row[BOOLEAN].as.integer, 1);
        cr_assert_eq(row[NUMBER].as.integer, 64);
        cr_assert_eq(row[TIMEOUT].as.integer, 7200000);
        cr_assert_eq(row[CHOICE].as.integer, 2);
        cr_assert_str_eq(row[TEXT].as.text, "hello");
        cr_assert_eq(row[MASK].as.mask[2], 255);
        cr_assert_eq(row[MASK].as.mask[3], 0);
        cr_assert_eq(row[OPEN].as.integer, 900);
        cr_assert_eq(row[OPEN].given, 2);
    }
    cr_assert_eq(view->services[1]->values[FOLLOW].as.integer, 0, "the id of ike");
    cr_assert_eq(view->services[1]->values[FOLLOW].given, 2);
    cr_assert_eq(view->services[0]->values[FOLLOW].given, 0);
}

Test(values, ids_are_dense_and_count_this_profiles_services_alone)
{
    read_values("", "", "rras");
    cr_assert_eq(profile_values_service(values, 0), -1, "stray has another profile");
    cr_assert_eq(profile_values_service(values, 1), 0);
    cr_assert_eq(profile_values_service(values, 2), 1);
    cr_assert_eq(profile_values_service(values, 77), -1);
}

Test(values, identities_tell_names_sets_and_addresses_apart)
{
    const struct hp_service *ike, *nat_t;

    read_values("", "", "turned");
    cr_assert_not_null(values, "%s", said);
    ike = profile_values_view(values)->services[0];
    nat_t = profile_values_view(values)->services[1];
    cr_assert_neq(ike->identity, nat_t->identity);
    cr_assert_neq(ike->pool_identity, nat_t->pool_identity);
    cr_assert_eq(ike->servers_identity, nat_t->servers_identity, "the order of a pool is nobody's identity");
    cr_assert_eq(ike->listen_identity, nat_t->listen_identity, "ports do not count");
    cr_assert_eq(ike->protocol, 17);
    cr_assert_eq(nat_t->port, 4500);
}

Test(values, a_record_may_live_for_ever_and_nothing_else_may)
{
    read_values(", options: { timeout: never }", "", "rras");
    cr_assert_not_null(values, "%s", said);
    cr_assert_eq(profile_values_view(values)->values[TIMEOUT].as.integer, INT64_MAX);
    cr_assert_str_empty(said);
}

Test(values, each_wrong_value_is_named_with_its_place)
{
    read_values(", options: { boolean: perhaps, number: 65, timeout: 25h, choice: fourth, mask: 255.0.255.0, open: 4 }",
                ", follow: nat-tt", "rras");
    cr_assert_null(values);
    expect("test.yaml:10:46: error: `boolean`: `perhaps` is neither true nor false");
    expect("`number`: `65` is not in 1..64");
    expect("`timeout`: `25h` is not in 1s..24h");
    expect("`choice`: `fourth` is none of first|second|third");
    expect("`mask`: `255.0.255.0` is not a mask: its ones");
    expect("`open`: `4` is not in 5..");
    expect("`follow`: there is no service `nat-tt`: did you mean `nat-t`?");
}

Test(values, numbers_must_be_whole_and_durations_have_units)
{
    read_values(", options: { number: 3x, timeout: 180, open: 99999999999999999999 }", ", needed: ten", "rras");
    expect("`number`: `3x` is not a whole number");
    expect("`timeout`: `180` is a bare number");
    expect("`open`: `99999999999999999999` is too large");
    expect("`needed`: `ten` is not a whole number");
}

Test(values, an_unknown_option_is_met_with_a_guess)
{
    read_values(", options: { timeuot: 3m }", "", "rras");
    expect("plugin every has no option `timeuot`: did you mean `timeout`?");
}

Test(values, an_option_at_the_wrong_place_is_told_its_right_one)
{
    read_values(", options: { follow: ike }", ", timeout: 3m", "rras");
    expect("`follow` is an option per service: write `persistence: { profile: home, follow: ... }` at the service");
    expect("`timeout` is an option of the whole profile: write it under `options` of home");
}

Test(values, a_service_of_another_profile_cannot_be_followed)
{
    read_values("", ", follow: stray", "rras");
    expect("service stray has not the profile home");
}

Test(values, a_required_option_that_lacks_is_missed_at_each_service)
{
    static struct hp_option needing[OPTIONS];

    memcpy(needing, every_kind, sizeof needing);
    needing[NEEDED].flags |= HP_OPTION_REQUIRED;
    needing[NEEDED].fallback = NULL;
    plugin.descriptor.options = needing;
    read_values("", ", needed: 5", "rras");
    expect("ike lacks the option `needed`, which plugin every needs");
    cr_expect_null(strstr(said, "nat-t lacks"), "%s", said);
}

Test(values, a_mask_of_zero_is_warned_about)
{
    read_values(", options: { mask: 0, mask6: 0 }", "", "rras");
    cr_assert_not_null(values, "%s", said);
    expect("warning: `mask` of 0 makes all clients one");
    expect("warning: `mask6` of 0 makes all clients one");
}

Test(values, a_record_that_lives_shorter_than_its_flows_is_warned_about)
{
    read_values(", options: { timeout: 60s }", "", "rras");
    cr_assert_not_null(values, "%s", said);
    expect("warning: `timeout` (60 s) is shorter than the idle time of ike (120 s)");
}

Test(values, unequal_servers_are_warned_about_unless_the_plugin_checks_by_itself)
{
    read_values("", "", "small");
    cr_assert_not_null(values, "%s", said);
    expect("warning: nat-t and ike have the profile home but not the same servers");
}

Test(values, a_plugins_own_damaged_default_is_its_authors_error)
{
    static struct hp_option damaged[OPTIONS];

    memcpy(damaged, every_kind, sizeof damaged);
    damaged[NUMBER].fallback = "99";
    damaged[OPEN].range = "five..";
    plugin.descriptor.options = damaged;
    read_values(", options: { open: 7 }", "", "rras");
    cr_assert_null(values);
    expect("plugin every: its own default of `number`: `99` is not in 1..64");
    expect("the plugin's own range \"five..\" is damaged");
}

/* The plugin's own check(), by the scripted plugin. */
static const char *check_flags(const char *flags)
{
    static const char *const modules[] = {MODULES};
    struct plugin *scripted;
    struct error error = {0};
    char options[64];

    cr_assert_eq(plugin_load(&scripted, "scripted", modules, 1, geteuid() == 0, &error), 0, "%s", error.what);
    plugin = *scripted;
    plugin_free(scripted);
    snprintf(options, sizeof options, ", options: { flags: %s }", flags);
    return read_values(options, "", "rras");
}

Test(values, a_problem_of_the_plugin_stands_where_the_option_is_written)
{
    check_flags("31");
    cr_assert_null(values);
    expect("test.yaml:10:44: error: all flags at once");
}

Test(values, a_problem_that_begins_with_warning_is_one)
{
    check_flags("30");
    cr_assert_not_null(values, "%s", said);
    expect("test.yaml:13:");
    expect("warning: nearly all flags");
}

Test(values, a_problem_of_nowhere_stands_at_the_profile)
{
    check_flags("29");
    cr_assert_null(values);
    expect("test.yaml:10:3: error: a problem without a text");
}

Test(values, a_check_that_fails_without_a_word_is_an_error)
{
    check_flags("28");
    cr_assert_null(values);
    expect("does not accept the options of profile home and does not say why");
}
