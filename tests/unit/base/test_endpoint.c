/* SPDX-License-Identifier: Apache-2.0 */
#include "base/endpoint.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <string.h>

static struct hp_endpoint parsed(const char *text)
{
    struct hp_endpoint endpoint;

    cr_assert(endpoint_parse(&endpoint, text), "'%s' must parse", text);
    return endpoint;
}

Test(endpoint, text_comes_back_as_it_was)
{
    static const char *const texts[] = {
        "192.0.2.1",
        "192.0.2.1:500",
        "0.0.0.0:65535",
        "255.255.255.255:1",
        "2001:db8::1",
        "[2001:db8::1]:4500",
        "::",
        "[::]:500",
        "fe80::1%1",
        "[fe80::1%1]:500",
        "[2001:db8:1111:2222:3333:4444:5555:6666%4294967295]:65535",
    };
    char out[ENDPOINT_TEXT];

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct hp_endpoint endpoint = parsed(texts[i]);
        cr_assert_str_eq(endpoint_format(&endpoint, out), texts[i]);
    }
}

Test(endpoint, wrong_text_is_refused_and_out_untouched)
{
    static const char *const texts[] = {
        "",
        ":",
        ":500",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1: 500",
        "192.0.2.1:+500",
        "192.0.2.1:500 ",
        "192.0.2.1:500:4500",
        "192.0.2.256:500",
        " 192.0.2.1",
        "vpn1.example:500",
        "[192.0.2.1]:500",
        "[2001:db8::1]",
        "[2001:db8::1]500",
        "[2001:db8::1]:",
        "[2001:db8::1:500",
        "2001:db8::1]:500",
        "[[::1]]:500",
        "[]:500",
        "[::1%]:500",
        "[::1%0]:500",
        "[::1%4294967296]:500",
        "[::1%no-such-device]:500",
        "2001:db8:::1",
        "192.0.2.1:99999999999999999999999999999999999999",
        "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111:500",
    };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct hp_endpoint out, before;
        memset(&out, 0xa5, sizeof out);
        before = out;
        cr_assert_not(endpoint_parse(&out, texts[i]), "'%s' must not parse", texts[i]);
        cr_assert_eq(memcmp(&out, &before, sizeof out), 0);
    }
}

Test(endpoint, zone_that_is_no_interface_here_is_told_from_nonsense)
{
    struct hp_endpoint out;
    bool has_zone;

    cr_assert(endpoint_parse_anywhere(&out, &has_zone, "[fe80::1%no-such-one]:500"));
    cr_assert(has_zone);
    cr_assert_eq(out.scope, 0);
    cr_assert_eq(out.port, 500);
    cr_assert(endpoint_parse_anywhere(&out, &has_zone, "fe80::1%lo"));
    cr_assert(has_zone && out.scope != 0);
    cr_assert(endpoint_parse_anywhere(&out, &has_zone, "fe80::1"));
    cr_assert_not(has_zone);
    cr_assert_not(endpoint_parse_anywhere(&out, &has_zone, "fe80::1%"));
    cr_assert_not(endpoint_parse_anywhere(&out, &has_zone, "fe80::1%0"));
    cr_assert_not(endpoint_parse_anywhere(&out, &has_zone, "fe80::1%longer-than-names-are"));
}

Test(endpoint, name_without_a_zone_means_any)
{
    static const struct {
        const char *name, *address;
        bool named;
    } cases[] = {{"fe80::1", "[fe80::1%3]:500", true},     {"fe80::1%3", "[fe80::1%3]:500", true},
                 {"fe80::1%3", "[fe80::1%4]:500", false},  {"fe80::1%3", "[fe80::1]:500", true},
                 {"fe80::2", "[fe80::1%3]:500", false},    {"192.0.2.1", "192.0.2.1:500", true},
                 {"::ffff:192.0.2.1", "192.0.2.1", false}, {"192.0.2.1", "192.0.2.2", false}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hp_endpoint name = parsed(cases[i].name), address = parsed(cases[i].address);
        cr_assert_eq(endpoint_names(&name, &address), cases[i].named, "%s, %s", cases[i].name, cases[i].address);
    }
}

Test(endpoint, kinds_of_addresses)
{
    static const struct {
        const char *text;
        bool loopback, link_local;
    } cases[] = {{"127.0.0.1", true, false},   {"127.255.0.1", true, false}, {"::1", true, false},
                 {"::2", false, false},        {"fe80::1", false, true},     {"febf::1", false, true},
                 {"fec0::1", false, false},    {"fd00::1", false, false},    {"2001:db8::1", false, false},
                 {"254.128.0.1", false, false}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hp_endpoint address = parsed(cases[i].text);
        cr_assert_eq(endpoint_is_loopback(&address), cases[i].loopback, "%s", cases[i].text);
        cr_assert_eq(endpoint_is_link_local(&address), cases[i].link_local, "%s", cases[i].text);
    }
}

Test(endpoint, sockaddr_comes_back_as_it_was)
{
    static const char *const texts[] = {"192.0.2.1:500", "192.0.2.1", "[2001:db8::1]:500", "[fe80::1%7]:4500"};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct hp_endpoint endpoint = parsed(texts[i]), back;
        struct sockaddr_storage address;
        socklen_t size = endpoint_to_sockaddr(&endpoint, &address);
        cr_assert(endpoint_from_sockaddr(&back, (const struct sockaddr *)&address, size));
        cr_assert(endpoint_equal(&endpoint, &back));
        cr_assert_eq(memcmp(&endpoint, &back, sizeof back), 0, "plugins compare octets: no stray ones");
    }
}

Test(endpoint, ipv4_lies_in_the_first_four_octets)
{
    struct hp_endpoint endpoint = parsed("192.0.2.1:500");

    cr_assert_eq(memcmp(endpoint.address, (uint8_t[16]){192, 0, 2, 1}, 16), 0);
    cr_assert_eq(endpoint.family, 4);
    cr_assert_eq(endpoint.port, 500);
}

Test(endpoint, foreign_or_cut_sockaddr_is_refused)
{
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    struct hp_endpoint out = {.port = 7};

    cr_assert_not(endpoint_from_sockaddr(&out, (const struct sockaddr *)&address, sizeof address));
    address.ss_family = AF_INET;
    cr_assert_not(endpoint_from_sockaddr(&out, (const struct sockaddr *)&address, sizeof(struct sockaddr_in) - 1));
    address.ss_family = AF_INET6;
    cr_assert_not(endpoint_from_sockaddr(&out, (const struct sockaddr *)&address, sizeof(struct sockaddr_in6) - 1));
    cr_assert_not(endpoint_from_sockaddr(&out, (const struct sockaddr *)&address, 0));
    cr_assert_eq(out.port, 7);
}

Test(endpoint, equality_knows_port_scope_and_family)
{
    struct hp_endpoint a = parsed("192.0.2.1:500"), b = parsed("192.0.2.1:4500");
    struct hp_endpoint six = parsed("[fe80::1%1]:500"), other = parsed("[fe80::1%2]:500");
    struct hp_endpoint zero4 = parsed("0.0.0.0:500"), zero6 = parsed("[::]:500");

    cr_assert(endpoint_equal(&a, &a));
    cr_assert_not(endpoint_equal(&a, &b));
    cr_assert(endpoint_same_address(&a, &b));
    cr_assert_not(endpoint_same_address(&six, &other));
    cr_assert_not(endpoint_same_address(&zero4, &zero6));
    cr_assert(endpoint_is_any(&zero4) && endpoint_is_any(&zero6));
    cr_assert_not(endpoint_is_any(&a));
}
