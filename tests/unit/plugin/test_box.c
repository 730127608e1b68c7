/* SPDX-License-Identifier: Apache-2.0 */
/* The plugins in the box, in the real host: clients whose two ports arrive mixed, at two workers. */
#include "deciding.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define CLIENTS 60u

static struct deciding deciding;

static void close_deciding(void)
{
    deciding_close(&deciding);
}

TestSuite(box, .fini = close_deciding);

static void open_box(const char *plugin, const char *ike_extra, const char *nat_t_extra)
{
    char yaml[2048];

    snprintf(yaml, sizeof yaml,
             "plugin_path: [ " PLUGINS " ]\n"
             "servers:\n"
             "  vpn1: { address: 192.0.2.11 }\n"
             "  vpn2: { address: 192.0.2.12 }\n"
             "  vpn3: { address: 192.0.2.13 }\n"
             "pools:\n"
             "  rras: { servers: [ vpn1, vpn2, vpn3 ] }\n"
             "persistence:\n"
             "  home: { plugin: %s }\n"
             "services:\n"
             "  ike:   { listen: \"127.0.0.1:500\",  protocol: udp, pool: rras, persistence: { profile: home%s } }\n"
             "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: rras, persistence: { profile: home%s } }\n",
             plugin, ike_extra, nat_t_extra);
    deciding_open_yaml(&deciding, yaml, 1600);
}

/* All clients come with 500 in one order and with 4500 in another. How many were split; at: clients by server. */
static uint32_t splits(uint32_t at[3])
{
    int32_t first[CLIENTS];
    uint32_t split = 0;

    memset(at, 0, 3 * sizeof *at);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        first[i] = ask(&deciding, i % 2, "ike", i, -1, INIT).server;
        cr_assert_geq(first[i], 0);
        at[first[i]]++;
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        uint32_t client = i * 11 % CLIENTS; /* 7 would keep both cursors in step: they have three places */

        split += ask(&deciding, i % 3 == 0, "nat-t", client, -1, LATER).server != first[client];
    }
    return split;
}

static void expect_home(const char *plugin, const char *ike_extra, const char *nat_t_extra)
{
    uint32_t at[3];

    open_box(plugin, ike_extra, nat_t_extra);
    cr_assert_eq(splits(at), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(at[i], 20);
}

Test(box, port_following_brings_every_client_home)
{
    expect_home("port_following", ", follow: nat-t", ", follow: ike");
}

Test(box, match_across_services_brings_every_client_home)
{
    expect_home("match_across_services", "", "");
}

Test(box, persistency_group_brings_every_client_home)
{
    expect_home("persistency_group", "", "");
}

/* What they are measured against; else this test could not fail. */
Test(box, source_address_splits_clients)
{
    uint32_t at[3];

    open_box("source_address", "", "");
    cr_assert_gt(splits(at), CLIENTS / 3);
}
