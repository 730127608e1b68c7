/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are fine, and what is in the model then. */
#include "reading.h"

#include "base/endpoint.h"
#include <criterion/criterion.h>
#include <string.h>

static void expect_endpoint(const struct hp_endpoint *endpoint, const char *expected)
{
    char text[ENDPOINT_TEXT];

    cr_expect_str_eq(endpoint_format(endpoint, text), expected);
}

static void open_text(struct reading *reading, const char *text)
{
    reading_open(reading, text, strlen(text));
    cr_assert_eq(reading->status, 0, "%s", reading->said);
}

static const char least[] = "servers: { a: { address: 192.0.2.1 } }\n"
                            "pools: { p: { servers: [ a ] } }\n"
                            "services: { s: { listen: 203.0.113.10:500, protocol: udp, pool: p } }\n";

Test(model, defaults_are_the_contracts)
{
    struct reading reading;
    const struct config *config;

    open_text(&reading, least);
    config = reading.config;
    cr_expect_geq(config->workers, 1);
    cr_expect_null(config->user);
    cr_expect_str_eq(config->path, "f");
    cr_expect_str_eq(config->state, "/run/homeport");
    cr_expect_eq(config->plugin_path_count, 1);
    cr_expect_str_eq(config->plugin_path[0], HOMEPORT_PLUGIN_FOLDER);
    cr_expect(config->log_level == LOG_INFO && config->log_format == LOG_TEXT && !config->log_sessions);
    cr_expect(config->affinity_capacity == 65536 && config->when_full == WHEN_FULL_EVICT);
    cr_expect(config->sessions_capacity == 65536 && config->idle_ms == 120000 && config->idle_unproven_ms == 10000);
    cr_expect(config->port_first == 10240 && config->port_last == 29999 && config->ports_at.line == 0);
    reading_close(&reading);
}

Test(model, defaults_of_things_are_the_contracts)
{
    struct reading reading;
    const struct config_pool *pool;
    const struct config_service *service;

    open_text(&reading, least);
    pool = &reading.config->pools[0];
    service = &reading.config->services[0];
    cr_expect(reading.config->servers[0].weight == 1 && reading.config->servers[0].max_clients == 0);
    cr_expect_eq(reading.config->servers[0].state, SERVER_ENABLED);
    cr_expect(pool->scheduler == SCHEDULER_ROUND_ROBIN && pool->port == 0 && pool->all_down == ALL_DOWN_SERVE);
    cr_expect(pool->health.check == CHECK_AUTO && pool->health.interval_ms == 5000 && pool->health.timeout_ms == 2000);
    cr_expect(pool->health.rise == 2 && pool->health.fall == 3 && pool->health.source.family == 0);
    cr_expect(service->profile == -1 && service->idle_ms == 120000 && service->max_clients == 0);
    cr_expect(service->health_group && service->protocol == 17 && service->option_count == 0);
    reading_close(&reading);
}

static const char full[] =
    "services:\n" /* the order of the sections is free */
    "  ike:\n"
    "    listen: [ \"203.0.113.10:500\", 0.0.0.0:500 ]\n"
    "    protocol: udp\n"
    "    pool: second\n"
    "    persistence: { profile: kemp, follow: nat-t, 'x y': \"1\" }\n"
    "    idle: 2h\n"
    "    max_clients: 7\n"
    "    health: { group: no }\n"
    "persistence:\n"
    "  other: { plugin: ./here/other.so }\n"
    "  kemp: { plugin: port_following, on_failure: refuse, options: { mask: 24, timeout: 6m } }\n"
    "pools:\n"
    "  first: { servers: [ a ] }\n"
    "  second:\n"
    "    servers: [ b, a ]\n"
    "    scheduler: maglev\n"
    "    port: 1500\n"
    "    health: { check: none, interval: 1s, rise: 1, fall: 2, source: 192.0.2.9 }\n"
    "    all_down: refuse\n"
    "servers:\n"
    "  a: { address: 192.0.2.1, weight: 3, max_clients: 5000, state: offline }\n"
    "  b: { address: \"192.0.2.2\" }\n"
    "workers: 3\n"
    "user: vpn\n"
    "state: /tmp/state\n"
    "plugin_path: [ /a, b ]\n"
    "log: { level: debug, format: json, sessions: on }\n"
    "affinity: { capacity: 100, when_full: refuse }\n"
    "sessions: { capacity: 200, idle: 30s, idle_unproven: 500ms, ports: 2000-2999 }\n";

Test(model, daemon_is_read_as_written)
{
    struct reading reading;
    const struct config *config;

    open_text(&reading, full);
    config = reading.config;
    cr_expect_eq(config->workers, 3);
    cr_expect_str_eq(config->user, "vpn");
    cr_expect(config->user_at.line == 25 && config->user_at.column == 7);
    cr_expect_str_eq(config->state, "/tmp/state");
    cr_expect_eq(config->plugin_path_count, 2);
    cr_expect_str_eq(config->plugin_path[1], "b");
    cr_expect(config->log_level == LOG_DEBUG && config->log_format == LOG_JSON && config->log_sessions);
    cr_expect(config->affinity_capacity == 100 && config->when_full == WHEN_FULL_REFUSE);
    cr_expect(config->sessions_capacity == 200 && config->idle_ms == 30000 && config->idle_unproven_ms == 500);
    cr_expect(config->port_first == 2000 && config->port_last == 2999 && config->ports_at.line == 30);
    reading_close(&reading);
}

Test(model, servers_and_pools_are_read_as_written)
{
    struct reading reading;
    const struct config_server *server;
    const struct config_pool *pool;

    open_text(&reading, full);
    server = &reading.config->servers[0];
    pool = &reading.config->pools[1];
    cr_expect_str_eq(server->name, "a");
    expect_endpoint(&server->address, "192.0.2.1");
    cr_expect(server->weight == 3 && server->max_clients == 5000 && server->state == SERVER_OFFLINE);
    cr_expect(server->at.line == 22 && server->at.column == 3);
    cr_expect(pool->server_count == 2 && pool->servers[0] == 1 && pool->servers[1] == 0);
    cr_expect(pool->scheduler == SCHEDULER_MAGLEV && pool->port == 1500 && pool->all_down == ALL_DOWN_REFUSE);
    cr_expect(pool->health.check == CHECK_NONE && pool->health.rise == 1 && pool->health.fall == 2);
    expect_endpoint(&pool->health.source, "192.0.2.9");
    reading_close(&reading);
}

Test(model, probes_default_timeout_gives_way_to_a_short_interval)
{
    struct reading reading;

    open_text(&reading, full);
    cr_expect_eq(reading.config->pools[1].health.interval_ms, 1000);
    cr_expect_eq(reading.config->pools[1].health.timeout_ms, 1000);
    reading_close(&reading);
}

Test(model, profiles_and_services_are_read_as_written)
{
    struct reading reading;
    const struct config_profile *profile;
    const struct config_service *service;

    open_text(&reading, full);
    profile = &reading.config->profiles[1];
    service = &reading.config->services[0];
    cr_expect_str_eq(reading.config->profiles[0].plugin, "./here/other.so");
    cr_expect_str_eq(profile->plugin, "port_following");
    cr_expect(profile->on_failure == ON_FAILURE_REFUSE && profile->option_count == 2);
    cr_expect_str_eq(profile->options[0].name, "mask");
    cr_expect_str_eq(profile->options[0].text, "24");
    cr_expect(profile->options[1].text_at.line == 12 && profile->options[1].text_at.column == 85);
    cr_expect(service->profile == 1 && service->pool == 1 && service->listen_count == 2);
    expect_endpoint(&service->listen[0], "203.0.113.10:500");
    expect_endpoint(&service->listen[1], "0.0.0.0:500");
    cr_expect(service->listen_at[1].line == 3 && service->listen_at[1].column == 35);
    cr_expect_eq(service->option_count, 2);
    cr_expect_str_eq(service->options[1].name, "x y");
    cr_expect_str_eq(service->options[1].text, "1");
    cr_expect(service->idle_ms == 7200000 && service->max_clients == 7 && !service->health_group);
    reading_close(&reading);
}

static void expect_derived(const char *pool, const char *port, uint16_t server_port, enum config_check check, bool ike)
{
    char text[512];
    struct reading reading;

    snprintf(text, sizeof text,
             "servers: { a: { address: 192.0.2.1 } }\npools: { p: { servers: [ a ]%s } }\n"
             "services: { s: { listen: 203.0.113.10:%s, protocol: udp, pool: p } }\n",
             pool, port);
    open_text(&reading, text);
    cr_expect_eq(reading.config->services[0].server_port, server_port, "%s", text);
    cr_expect_eq(reading.config->services[0].check, check, "%s", text);
    cr_expect_eq(reading.config->services[0].ike, ike, "%s", text);
    reading_close(&reading);
}

Test(model, what_follows_from_pool_and_port_is_derived)
{
    expect_derived("", "500", 500, CHECK_IKE, true);
    expect_derived("", "5353", 5353, CHECK_IKE, true);
    expect_derived(", port: 4501", "4500", 4501, CHECK_IKE, true);
    expect_derived(", health: { check: ike }", "5353", 5353, CHECK_IKE, true);
    expect_derived(", health: { check: none }", "5353", 5353, CHECK_NONE, false);
    expect_derived(", health: { check: none }", "4500", 4500, CHECK_NONE, true);
}

Test(samples, all_are_fine_and_have_three_servers_and_two_services)
{
    char text[SAMPLE_MAX];
    struct reading reading;

    for (const char *const *name = sample_names; *name != NULL; name++) {
        reading_open(&reading, text, sample_read(text, *name));
        cr_assert_eq(reading.status, 0, "%s: %s", *name, reading.said);
        cr_expect_eq(reading.config->server_count, 3, "%s", *name);
        cr_expect_eq(reading.config->service_count, 2, "%s", *name);
        expect_endpoint(&reading.config->services[0].listen[0], "203.0.113.10:500");
        expect_endpoint(&reading.config->services[1].listen[0], "203.0.113.10:4500");
        expect_endpoint(&reading.config->servers[2].address, "192.0.2.13");
        reading_close(&reading);
    }
}

Test(samples, yardstick_shares_neither_profile_nor_pool)
{
    char text[SAMPLE_MAX];
    struct reading reading;

    reading_open(&reading, text, sample_read(text, "source_address.yaml"));
    cr_assert_eq(reading.status, 0);
    cr_expect_neq(reading.config->services[0].profile, reading.config->services[1].profile);
    cr_expect_neq(reading.config->services[0].pool, reading.config->services[1].pool);
    reading_close(&reading);
}

Test(model, file_from_windows_is_as_good)
{
    struct reading reading;

    open_text(&reading, "\xef\xbb\xbfservers: { a: { address: 192.0.2.1 } }\r\npools: { p: { servers: [ a ] } }\r\n"
                        "services: { s: { listen: 203.0.113.10:500, protocol: udp, pool: p } }\r\n");
    cr_expect_eq(reading.config->services[0].at.line, 3);
    reading_close(&reading);
}
