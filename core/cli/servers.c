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
            "its last session has ended.",
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
    json_array_foreach(json_object_get(answer, "notes"), i, note) puts(json_string_value(note));
    json_decref(answer);
    return 0;
}
