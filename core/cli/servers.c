/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

static const struct usage usage = {
    .verb = "servers",
    .operands = "",
    .text = "Lists the servers: state by configuration, health by probe with since when and why, clients\n"
            "and sessions, weight and pools. A server that has left the file drains, and is listed until\n"
            "its last session has ended. Where the configuration lists source addresses: the clients that\n"
            "each server sees from each of them, how many of those are not proven yet, and whether new\n"
            "ones go there.",
    .example = "homeport servers",
    .options = ARGUMENT_CONFIG | ARGUMENT_STATE | ARGUMENT_JSON,
};

static void append(char *text, size_t size, const char *separator, const char *more)
{
    size_t used = strlen(text);

    snprintf(text + used, size - used, "%s%s", used > 0 ? separator : "", more);
}

/* "udp/500 up 3m 2s, udp/4500 down 12s (port unreachable (ICMP))" */
static void probes_text(const json_t *probes, char *text, size_t size)
{
    const json_t *probe;
    size_t i;

    text[0] = '\0';
    json_array_foreach(probes, i, probe)
    {
        const json_t *since = json_object_get(probe, "since_ms");
        const char *health = answer_text(probe, "health");
        char one[160], ago[32] = "";

        snprintf(one, sizeof one, "%s/%d %s", answer_text(probe, "protocol"), (int)answer_number(probe, "port"),
                 health);
        if (json_is_integer(since))
            append(one, sizeof one, " ", duration_text((uint64_t)json_integer_value(since), ago));
        if (strcmp(health, "down") == 0)
            snprintf(one + strlen(one), sizeof one - strlen(one), " (%s)", answer_text(probe, "reason"));
        append(text, size, ", ", one);
    }
}

static void add_server(struct table *table, const json_t *server)
{
    const json_t *pool, *weight = json_object_get(server, "weight"), *limit = json_object_get(server, "max_clients");
    char pools[TABLE_CELL] = "", probes[TABLE_CELL];
    size_t i;

    json_array_foreach(json_object_get(server, "pools"), i, pool)
        append(pools, sizeof pools, ",", json_string_value(pool));
    probes_text(json_object_get(server, "probes"), probes, sizeof probes);
    table_cell(table, "%s", answer_text(server, "name"));
    table_cell(table, "%s", answer_text(server, "address"));
    table_cell(table, "%s%s", answer_text(server, "state"),
               json_is_true(json_object_get(server, "configured")) ? "" : " (left the file)");
    table_cell(table, "%s", answer_text(server, "health"));
    if (json_is_integer(limit))
        table_cell(table, "%d of %d", (int)answer_number(server, "clients"), (int)json_integer_value(limit));
    else
        table_cell(table, "%d", (int)answer_number(server, "clients"));
    table_cell(table, "%d", (int)answer_number(server, "sessions"));
    if (json_is_integer(weight))
        table_cell(table, "%d", (int)json_integer_value(weight));
    else
        table_cell(table, "-");
    table_cell(table, "%s", pools[0] != '\0' ? pools : "-");
    table_cell(table, "%s", probes[0] != '\0' ? probes : "not probed");
}

static void add_sources(struct table *table, const json_t *server)
{
    const json_t *source;
    size_t i;

    json_array_foreach(json_object_get(server, "sources"), i, source)
    {
        const json_t *refuses = json_object_get(source, "refuses");
        char left[32];

        table_cell(table, "%s", answer_text(server, "name"));
        table_cell(table, "%s",
                   json_is_string(json_object_get(source, "address")) ? answer_text(source, "address") : "our own");
        table_cell(table, "%d", (int)answer_number(source, "clients"));
        table_cell(table, "%d", (int)answer_number(source, "unproven"));
        if (!json_is_true(json_object_get(source, "here")))
            table_cell(table, "no: not an address of this machine");
        else if (json_is_object(refuses))
            table_cell(table, "not for %s: %s", duration_text((uint64_t)answer_number(refuses, "left_ms"), left),
                       answer_text(refuses, "reason"));
        else
            table_cell(table, "yes");
    }
}

/* Nothing to say of addresses where nobody has listed any. */
static bool lists_sources(const json_t *servers)
{
    const json_t *server, *source;
    size_t i, j;

    json_array_foreach(servers, i, server)
    {
        json_array_foreach(json_object_get(server, "sources"), j, source)
        {
            if (json_is_string(json_object_get(source, "address")))
                return true;
        }
    }
    return false;
}

static void print_sources(const json_t *servers)
{
    static const char *const heads[] = {"SERVER", "OWN ADDRESS", "CLIENTS", "NOT PROVEN", "TAKES NEW CLIENTS"};
    struct table *table;
    const json_t *server;
    size_t i;

    if (!lists_sources(servers))
        return;
    table = table_open(heads, sizeof heads / sizeof heads[0]);
    json_array_foreach(servers, i, server) add_sources(table, server);
    putchar('\n');
    table_print(table);
    table_close(table);
}

int cli_servers(int argc, char **argv)
{
    static const char *const heads[] = {"SERVER",   "ADDRESS", "STATE", "HEALTH", "CLIENTS",
                                        "SESSIONS", "WEIGHT",  "POOLS", "PROBES"};
    struct arguments arguments;
    int status = arguments_read(&arguments, &usage, argc, argv);
    struct table *table;
    json_t *answer, *server, *note;
    size_t i;

    if (status >= 0)
        return status;
    answer = client_read(&arguments, json_pack("{s:s}", "verb", "servers"), &status);
    if (answer == NULL)
        return status;
    table = table_open(heads, sizeof heads / sizeof heads[0]);
    json_array_foreach(json_object_get(answer, "servers"), i, server) add_server(table, server);
    table_print(table);
    table_close(table);
    print_sources(json_object_get(answer, "servers"));
    json_array_foreach(json_object_get(answer, "notes"), i, note) puts(json_string_value(note));
    json_decref(answer);
    return 0;
}
