/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"
#include "cli/explain.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct usage usage = {
    .verb = "affinity",
    .operands = "[CLIENT]",
    .text = "Lists the persistence records: the client that made each, its server, profile and service,\n"
            "age, time left (held: a live session uses it, so it cannot expire), sessions, and whether the\n"
            "client is proven. With CLIENT, an address, those that it made.\n"
            "--explain CLIENT asks the plugins of FILE, without the daemon, which key the client has at\n"
            "each service, and the daemon which record there is for it.",
    .example = "homeport affinity --explain 198.51.100.7",
    .options = ARGUMENT_CONFIG | ARGUMENT_STATE | ARGUMENT_JSON | ARGUMENT_EXPLAIN,
    .most = 1,
};

static const char *left_text(const json_t *record, char text[32])
{
    const json_t *left = json_object_get(record, "left");

    if (json_is_string(left))
        return json_string_value(left);
    return json_is_integer(left) ? duration_text((uint64_t)json_integer_value(left) * 1000, text) : "never expires";
}

static void add_record(struct table *table, const json_t *record)
{
    char text[32];

    table_cell(table, "%s", answer_text(record, "client"));
    table_cell(table, "%s", answer_text(record, "server"));
    table_cell(table, "%s", answer_text(record, "profile"));
    table_cell(table, "%s", answer_text(record, "service"));
    table_cell(table, "%s", duration_text((uint64_t)answer_number(record, "age_s") * 1000, text));
    table_cell(table, "%s", left_text(record, text));
    table_cell(table, "%d", (int)answer_number(record, "sessions"));
    table_cell(table, "%s", json_is_true(json_object_get(record, "proven")) ? "yes" : "no");
}

static int list(const struct arguments *arguments)
{
    static const char *const heads[] = {"CLIENT", "SERVER", "PROFILE", "SERVICE", "AGE", "LEFT", "SESSIONS", "PROVEN"};
    struct table *table;
    json_t *answer, *record;
    size_t i;
    int status;

    answer = client_read(arguments,
                         json_pack("{s:s, s:s*}", "verb", "affinity", "client",
                                   arguments->operand_count > 0 ? arguments->operands[0] : NULL),
                         &status);
    if (answer == NULL)
        return status;
    table = table_open(heads, sizeof heads / sizeof heads[0]);
    json_array_foreach(json_object_get(answer, "records"), i, record) add_record(table, record);
    table_print(table);
    table_close(table);
    if (json_array_size(json_object_get(answer, "records")) == 0)
        puts("no records");
    json_decref(answer);
    return 0;
}

/* Adds to each service what the daemon knows about its key. An error: nobody answers. */
static int add_records(const struct arguments *arguments, json_t *services, struct error *error)
{
    json_t *service;
    size_t i;

    json_array_foreach(services, i, service)
    {
        const char *key = json_string_value(json_object_get(service, "key"));
        json_t *answer;
        int status;

        if (key == NULL)
            continue;
        status = client_ask(
            arguments,
            json_pack("{s:s, s:s, s:s}", "verb", "record", "profile", answer_text(service, "profile"), "key", key),
            CLIENT_TIMEOUT_MS, &answer, error);
        if (status == 0)
            json_object_set(service, "record", json_object_get(answer, "record"));
        json_decref(answer);
        if (status < 0)
            return status;
    }
    return 0;
}

/* Why the record will not bring the client to its server, or NULL (the rules: core/pool/eligible.c). */
static const char *elsewhere(const json_t *record)
{
    const char *state = answer_text(record, "server_state"), *left = answer_text(record, "left");

    if (strcmp(state, "disabled") == 0)
        return "disabled: elsewhere";
    if (strcmp(state, "offline") == 0 && strcmp(left, "held") != 0)
        return "offline: elsewhere";
    if (strcmp(answer_text(record, "server_health"), "down") == 0)
        return "down: elsewhere with the next IKE_SA, unless all servers of the pool are down";
    return NULL;
}

static void print_outcome(const json_t *service, bool asked)
{
    const json_t *record = json_object_get(service, "record");
    char text[32];

    if (json_object_get(service, "key") == NULL)
        puts("  would get: the pool's scheduler decides, flow by flow");
    else if (!asked)
        puts("  would get: unknown, the daemon does not answer");
    else if (!json_is_object(record))
        puts("  would get: a new record; the scheduler decides");
    else if (elsewhere(record) != NULL)
        printf("  would get: record names %s, which is %s\n", answer_text(record, "server"), elsewhere(record));
    else
        printf("  would get: server %s, by the record that service %s wrote %s ago (left: %s)\n",
               answer_text(record, "server"), answer_text(record, "service"),
               duration_text((uint64_t)answer_number(record, "age_s") * 1000, text), left_text(record, (char[32]){0}));
}

static void print_service(const json_t *service, bool asked)
{
    printf("service %s (%s)\n", answer_text(service, "service"), answer_text(service, "listen"));
    if (json_is_string(json_object_get(service, "profile")))
        printf("  profile %s, plugin %s\n", answer_text(service, "profile"), answer_text(service, "plugin"));
    else
        puts("  no persistence");
    if (json_object_get(service, "key") != NULL)
        printf("  key: %s (%s)\n", answer_text(service, "readable"), answer_text(service, "key"));
    if (json_object_get(service, "note") != NULL)
        printf("  note: %s\n", answer_text(service, "note"));
    print_outcome(service, asked);
}

static int explain(const struct arguments *arguments)
{
    struct error error = {0}, silent = {0};
    json_t *services, *service, *answer;
    bool asked;
    size_t i;

    if (arguments->operand_count == 0) {
        error_set(&error, -EINVAL, "--explain needs a client");
        error_next(&error, "homeport affinity --explain 198.51.100.7");
        cli_failed(arguments->verb, &error);
        return 2;
    }
    if (explain_keys(&services, arguments, arguments->operands[0], &error) < 0)
        return cli_failed(arguments->verb, &error);
    asked = add_records(arguments, services, &silent) == 0;
    if (arguments->json) {
        answer = json_pack("{s:b, s:b, s:s, s:O}", "ok", 1, "asked_daemon", asked, "client", arguments->operands[0],
                           "services", services);
        json_dumpf(answer, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(answer);
    } else {
        json_array_foreach(services, i, service) print_service(service, asked);
    }
    json_decref(services);
    return asked ? 0 : cli_failed(arguments->verb, &silent);
}

int cli_affinity(int argc, char **argv)
{
    struct arguments arguments;
    int status = arguments_read(&arguments, &usage, argc, argv);

    if (status >= 0)
        return status;
    return arguments.explain ? explain(&arguments) : list(&arguments);
}
