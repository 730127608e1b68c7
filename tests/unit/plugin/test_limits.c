/* SPDX-License-Identifier: Apache-2.0 */
/* max_clients of servers and services, and who may pass them. */
#include "deciding.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct deciding deciding;

static void close_deciding(void)
{
    deciding_close(&deciding);
}

TestSuite(limits, .fini = close_deciding);

/* flags: of the claim; vpn1 takes one client. Client 1 is at vpn1 and silent for longer than idle, and vpn1 is full. */
static struct decision full_server(uint32_t flags)
{
    char yaml[2048];
    struct decision first;

    snprintf(yaml, sizeof yaml,
             "servers:\n"
             "  vpn1: { address: 192.0.2.11, max_clients: 1 }\n"
             "  vpn2: { address: 192.0.2.12 }\n"
             "pools:\n"
             "  rras: { servers: [ vpn1, vpn2 ] }\n"
             "persistence:\n"
             "  home: { plugin: " MODULES "/scripted.so, options: { flags: %u, server: 0 } }\n"
             "services:\n"
             "  ike:   { listen: \"127.0.0.1:500\",  protocol: udp, pool: rras, persistence: home }\n"
             "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: rras, persistence: home }\n",
             flags);
    deciding_open_yaml(&deciding, yaml, 1600);
    first = ask_new(&deciding, "ike", 1);
    cr_assert_eq(first.server, 0);
    deciding.now_s += 150;
    world_recount(&deciding.world, "vpn1", 1);
    return first;
}

Test(limits, a_full_server_is_not_picked)
{
    full_server(0);
    for (uint32_t i = 2; i < 8; i++)
        cr_assert_eq(ask_new(&deciding, "ike", i).server, 1);
}

Test(limits, without_a_flag_the_record_moves)
{
    struct decision second;

    full_server(0);
    second = ask_new(&deciding, "nat-t", 1);
    cr_assert_eq(second.reason, DECISION_MOVED);
    cr_assert_eq(second.server, 1);
    cr_assert_eq(ask_new(&deciding, "ike", 1).server, 1);
}

Test(limits, keep_serves_elsewhere_once_and_leaves_the_record)
{
    struct decision first = full_server(HP_CLAIM_KEEP), second;

    second = ask_new(&deciding, "nat-t", 1);
    cr_assert_eq(second.server, 1);
    cr_assert_eq(second.reason, DECISION_NO_RECORD);
    cr_assert(watch_holds(&deciding, &first));
    world_recount(&deciding.world, "vpn1", 0);
    cr_assert_eq(ask_new(&deciding, "nat-t", 1).server, 0, "there is room again");
}

Test(limits, refuse_refuses)
{
    struct decision second;

    full_server(HP_CLAIM_REFUSE);
    second = ask_new(&deciding, "nat-t", 1);
    cr_assert_eq(second.server, -1);
    cr_assert_eq(second.reason, DECISION_REFUSED_PLUGIN);
    cr_assert_eq(counted(&deciding, COUNTER_refused_by_plugin), 1);
}

Test(limits, over_limit_lets_a_recorded_client_in)
{
    full_server(HP_CLAIM_OVER_LIMIT);
    cr_assert_eq(ask_new(&deciding, "nat-t", 1).server, 0);
}

Test(limits, a_client_that_is_counted_already_passes)
{
    full_server(0);
    deciding.now_s -= 100; /* heard 50 s ago */
    cr_assert_eq(ask_new(&deciding, "nat-t", 1).reason, DECISION_RECORD);
}

Test(limits, a_live_session_is_never_asked)
{
    struct decision first = full_server(HP_CLAIM_REFUSE);

    cr_assert_eq(ask(&deciding, 0, "ike", 1, first.server, LATER).server, 0);
}

static void open_limited(const char *behaviour)
{
    char yaml[2048];

    snprintf(yaml, sizeof yaml,
             "servers:\n"
             "  vpn1: { address: 192.0.2.11 }\n"
             "pools:\n"
             "  rras: { servers: [ vpn1 ] }\n"
             "persistence:\n"
             "  home: { plugin: " MODULES "/scripted.so, options: { flags: 1, behave: %s, server: 0 } }\n"
             "services:\n"
             "  ike:   { listen: \"127.0.0.1:500\", protocol: udp, pool: rras, persistence: home, max_clients: 2 }\n"
             "  plain: { listen: \"127.0.0.1:501\", protocol: udp, pool: rras, max_clients: 2 }\n",
             behaviour);
    deciding_open_yaml(&deciding, yaml, 1600);
}

Test(limits, a_services_own_limit_refuses_new_clients_whatever_the_flags)
{
    struct decision refused;

    open_limited("claim");
    for (uint32_t i = 1; i <= 2; i++)
        cr_assert_eq(ask_new(&deciding, "ike", i).server, 0);
    refused = ask_new(&deciding, "ike", 3);
    cr_assert_eq(refused.server, -1);
    cr_assert_eq(refused.reason, DECISION_REFUSED_SERVICE_LIMIT);
    cr_assert_eq(counted(&deciding, COUNTER_refused_service_limit), 1);
    cr_assert_eq(counted(&deciding, COUNTER_refused_by_plugin), 0);
    cr_assert_eq(ask_new(&deciding, "ike", 1).server, 0, "a client that is counted is no new one");
    cr_assert_eq(ask(&deciding, 0, "ike", 3, 0, LATER).server, 0, "nor is a live session");
    cr_assert_eq(ask(&deciding, 1, "ike", 3, -1, INIT).server, 0, "another worker learns it at the next recount");
    deciding.now_s += 150;
    cr_assert_eq(ask_new(&deciding, "ike", 1).server, -1, "silent for longer than idle: new again");
}

Test(limits, a_service_without_records_counts_flows)
{
    open_limited("claim");
    for (uint32_t i = 1; i <= 2; i++)
        cr_assert_eq(ask_new(&deciding, "plain", 1).server, 0);
    cr_assert_eq(ask_new(&deciding, "plain", 1).reason, DECISION_REFUSED_SERVICE_LIMIT);
    cr_assert_eq(ask(&deciding, 0, "plain", 1, 0, NO_IKE).server, 0);
}

Test(limits, a_plugin_that_names_servers_by_itself_passes_no_services_limit)
{
    open_limited("stubborn");
    for (uint32_t i = 1; i <= 2; i++)
        cr_assert_eq(ask_new(&deciding, "ike", i).server, 0);
    cr_assert_eq(ask_new(&deciding, "ike", 3).reason, DECISION_REFUSED_SERVICE_LIMIT);
}
