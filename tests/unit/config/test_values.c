/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"

#include <criterion/criterion.h>
#include <string.h>

static void expect_duration(const char *text, uint64_t ms)
{
    uint64_t out = 7;
    const char *why = NULL;

    cr_expect(config_duration(&out, text, false, &why), "%s", text);
    cr_expect_eq(out, ms, "%s", text);
}

static void expect_no_duration(const char *text, const char *phrase)
{
    uint64_t out = 7;
    const char *why = NULL;

    cr_expect_not(config_duration(&out, text, false, &why), "%s", text);
    cr_expect_eq(out, 7, "out is untouched: %s", text);
    cr_expect_not_null(strstr(why, phrase), "%s: %s", text, why);
}

Test(duration, has_a_unit)
{
    expect_duration("250ms", 250);
    expect_duration("180s", 180000);
    expect_duration("6m", 360000);
    expect_duration("2h", 7200000);
    expect_duration("0s", 0);
    expect_duration("4320h", 4320ull * 3600000);
}

Test(duration, bare_number_is_asked_about)
{
    expect_no_duration("180", "seconds or milliseconds?");
    expect_no_duration("0", "seconds or milliseconds?");
}

Test(duration, nonsense_is_none)
{
    static const char *const texts[] = {"", "s", "-1s", "1.5s", "1 s", " 1s", "1s ", "1d", "1S", "1min", "0x1s", "1ss"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        expect_no_duration(texts[i], "is not a duration");
}

Test(duration, longer_than_records_can_tell_is_none)
{
    expect_no_duration("4321h", "180 days");
    expect_no_duration("18446744073709551616ms", "180 days");
    expect_no_duration("99999999999999999999999999999h", "180 days");
}

Test(duration, never_only_where_it_may)
{
    uint64_t out = 7;
    const char *why;

    expect_no_duration("never", "not possible here");
    cr_expect(config_duration(&out, "never", true, &why));
    cr_expect_eq(out, CONFIG_NEVER);
}

Test(mask, is_dotted_or_a_length)
{
    static const struct {
        const char *text;
        uint8_t mask[4];
    } masks[] = {{"255.255.255.255", {255, 255, 255, 255}},
                 {"255.255.252.0", {255, 255, 252, 0}},
                 {"0.0.0.0", {0}},
                 {"128.0.0.0", {128}},
                 {"32", {255, 255, 255, 255}},
                 {"22", {255, 255, 252, 0}},
                 {"1", {128}},
                 {"0", {0}}};

    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        uint8_t mask[4] = {1, 2, 3, 4};
        const char *why;

        cr_expect(config_mask4(mask, masks[i].text, &why), "%s", masks[i].text);
        cr_expect_arr_eq(mask, masks[i].mask, 4, "%s", masks[i].text);
    }
}

Test(mask, nonsense_is_none)
{
    static const char *const texts[] = {"",    "33",  "-1",    "/24",         "255.0.255.0", "0.0.0.1",
                                        "24 ", "abc", "255.0", "255.255.255", "256.0.0.0",   "255.255.255.255.0",
                                        "0024"};
    uint8_t mask[4];
    const char *why;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        cr_expect_not(config_mask4(mask, texts[i], &why), "%s", texts[i]);
}

Test(mask6, is_a_length)
{
    static const uint8_t some[16] = {255, 255, 255, 255, 255, 255, 254};
    uint8_t mask[16];
    const char *why;

    cr_expect(config_mask6(mask, "55", &why));
    cr_expect_arr_eq(mask, some, 16);
    cr_expect(config_mask6(mask, "128", &why));
    cr_expect_eq(mask[15], 255);
    cr_expect(config_mask6(mask, "0", &why));
    cr_expect_eq(mask[0], 0);
    cr_expect_not(config_mask6(mask, "129", &why));
    cr_expect_not(config_mask6(mask, "ffff::", &why));
    cr_expect_not(config_mask6(mask, "", &why));
}

Test(truth, has_six_words)
{
    static const char *const yes[] = {"yes", "true", "on"}, *const no[] = {"no", "false", "off"};
    bool out;

    for (size_t i = 0; i < 3; i++) {
        cr_expect(config_bool(&out, yes[i]) && out, "%s", yes[i]);
        cr_expect(config_bool(&out, no[i]) && !out, "%s", no[i]);
    }
    cr_expect_not(config_bool(&out, "1"));
    cr_expect_not(config_bool(&out, "YES"));
    cr_expect_not(config_bool(&out, ""));
}

Test(suggestion, is_the_closest_name)
{
    static const char *const names[] = {"interval", "timeout", "idle_unproven", "idle",
                                        "rise",     "fall",    "vpn1",          "vpn12"};
    static const struct {
        const char *name, *closest;
    } cases[] = {{"intervall", "interval"},
                 {"tiemout", "timeout"},
                 {"idle-unproven", "idle_unproven"},
                 {"IDLE", "idle"},
                 {"vpn13", "vpn1"},
                 {"vpn112", "vpn12"},
                 {"x", NULL},
                 {"", NULL},
                 {"something", NULL}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *closest = config_closest(cases[i].name, names, sizeof names / sizeof names[0]);

        cr_expect(closest == cases[i].closest || strcmp(closest, cases[i].closest) == 0, "%s: %s", cases[i].name,
                  closest);
    }
}

Test(suggestion, names_of_any_length_do_no_harm)
{
    char name[300];
    const char *names[] = {name, "short"};

    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    cr_expect_null(config_closest(name, names, 2));
    for (size_t size = 70; size > 50; size--) {
        name[size] = '\0';
        config_closest("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", names, 2);
    }
    cr_expect_null(config_closest("short", names, 0));
}
