/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

static const struct usage usage = {
    .verb = "status",
    .operands = "",
    .text = "Says whether every process is there and turns its loop, which addresses are listened on, how\n"
            "full the tables are, and what has been counted. Exit status 1 when something is missing or\n"
            "nobody answers: fit for a container's health check.",
    .example = "homeport status",
    .options = ARGUMENT_CONFIG | ARGUMENT_STATE | ARGUMENT_JSON,
};

static void print_processes(const json_t *processes)
{
    static const char *const heads[] = {"PROCESS", "PID", "UP", "LAST TURN"};
    struct table *table = table_open(heads, 4);
    const json_t *process;
    char text[32];
    size_t i;

    json_array_foreach(processes, i, process)
    {
        if (strcmp(answer_text(process, "role"), "worker") == 0)
            table_cell(table, "worker %d", (int)answer_number(process, "number"));
        else
            table_cell(table, "%s", answer_text(process, "role"));
        table_cell(table, "%d", (int)answer_number(process, "pid"));
        table_cell(table, "%s", duration_text((uint64_t)answer_number(process, "age_ms"), text));
        table_cell(table, "%s ago", duration_text((uint64_t)answer_number(process, "loop_age_ms"), text));
    }
    table_print(table);
    table_close(table);
}

static void print_listeners(const json_t *listeners)
{
    static const char *const heads[] = {"SERVICE", "LISTENS ON", "ADDRESS IS HERE"};
    struct table *table = table_open(heads, 3);
    const json_t *listener;
    size_t i;

    json_array_foreach(listeners, i, listener)
    {
        table_cell(table, "%s", answer_text(listener, "service"));
        table_cell(table, "%s/%s", answer_text(listener, "protocol"), answer_text(listener, "address"));
        table_cell(table, "%s", json_is_true(json_object_get(listener, "here")) ? "yes" : "not yet");
    }
    putchar('\n');
    table_print(table);
    table_close(table);
}

static void print_counters(const json_t *counters)
{
    static const char *const heads[] = {"COUNTED", ""};
    struct table *table = table_open(heads, 2);
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)counters, name, value)
    {
        if (json_integer_value(value) == 0)
            continue;
        table_cell(table, "%s", name);
        table_cell(table, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    }
    putchar('\n');
    table_print(table);
    table_close(table);
}

/* Only what was lost, and where. */
static void print_lanes(const json_t *lanes)
{
    static const char *const heads[] = {"LANE", "REFUSED OR DROPPED", ""};
    struct table *table = table_open(heads, 3);
    const json_t *lane;
    const char *name;
    json_t *value;
    size_t i;

    json_array_foreach(lanes, i, lane)
    {
        json_object_foreach(json_object_get(lane, "lost"), name, value)
        {
            table_cell(table, "%d", (int)answer_number(lane, "lane"));
            table_cell(table, "%s", name);
            table_cell(table, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        }
    }
    if (json_array_size(lanes) > 0)
        putchar('\n');
    table_print(table);
    table_close(table);
}

static void print_status(const json_t *answer, bool healthy)
{
    const json_t *segment = json_object_get(answer, "segment"), *item;
    char text[32];
    size_t i;

    printf("homeport %s: %s, up %s, %d reloads\n", answer_text(answer, "version"), healthy ? "healthy" : "NOT HEALTHY",
           duration_text((uint64_t)answer_number(answer, "uptime_ms"), text), (int)answer_number(answer, "reloads"));
    json_array_foreach(json_object_get(answer, "reasons"), i, item) printf("  %s\n", json_string_value(item));
    json_array_foreach(json_object_get(answer, "quarantined"), i, item) printf(
        "  profile %s is quarantined until the next reload: its plugin crashed or hung\n", json_string_value(item));
    printf("records %d of %d, sessions %d of %d, lanes %d of %d held\n\n", (int)answer_number(segment, "records"),
           (int)answer_number(segment, "records_capacity"), (int)answer_number(segment, "sessions"),
           (int)answer_number(segment, "sessions_capacity"), (int)answer_number(segment, "lanes_held"),
           (int)answer_number(segment, "lanes"));
    print_processes(json_object_get(answer, "processes"));
    print_listeners(json_object_get(answer, "listeners"));
    print_counters(json_object_get(answer, "counters"));
    print_lanes(json_object_get(answer, "lanes"));
}

int cli_status(int argc, char **argv)
{
    struct arguments arguments;
    int status = arguments_read(&arguments, &usage, argc, argv);
    json_t *answer;

    if (status >= 0)
        return status;
    answer = client_read(&arguments, json_pack("{s:s}", "verb", "status"), &status);
    if (answer == NULL)
        return status;
    status = json_is_true(json_object_get(answer, "healthy")) ? 0 : 1;
    print_status(answer, status == 0);
    json_decref(answer);
    return status;
}
