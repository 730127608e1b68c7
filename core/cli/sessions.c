/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct usage usage = {
    .verb = "sessions",
    .operands = "[CLIENT]",
    .text = "Lists the live flows: client, service, server, our own port towards the server (behind our\n"
            "own address where the configuration lists some), age, time since the last datagram, octets\n"
            "both ways, and whether the client is proven (its server has sent it something encrypted).\n"
            "With CLIENT, an address, those of one client.",
    .example = "homeport sessions 198.51.100.7",
    .options = ARGUMENT_CONFIG | ARGUMENT_STATE | ARGUMENT_JSON,
    .most = 1,
};

/* Without the port. */
static size_t address_size(const char *client)
{
    const char *colon = strrchr(client, ':');

    return colon != NULL ? (size_t)(colon - client) : strlen(client);
}

/* By address, then by service: what belongs to one client stands together. */
static int by_client(const void *a, const void *b)
{
    const json_t *const *left = a, *const *right = b;
    const char *one = answer_text(*left, "client"), *other = answer_text(*right, "client");
    size_t size = address_size(one), other_size = address_size(other);
    int order = strncmp(one, other, size < other_size ? size : other_size);

    if (order == 0 && size != other_size)
        return size < other_size ? -1 : 1;
    return order != 0 ? order : strcmp(answer_text(*left, "service"), answer_text(*right, "service"));
}

/* An array of the borrowed sessions, from malloc; NULL: no memory. */
static json_t **sorted(const json_t *sessions)
{
    size_t count = json_array_size(sessions);
    json_t **array = malloc((count + 1) * sizeof(json_t *));

    for (size_t i = 0; array != NULL && i < count; i++)
        array[i] = json_array_get(sessions, i);
    if (array != NULL)
        qsort(array, count, sizeof *array, by_client);
    return array;
}

static void add_session(struct table *table, const json_t *session)
{
    char text[32];

    table_cell(table, "%s", answer_text(session, "client"));
    table_cell(table, "%s", answer_text(session, "service"));
    table_cell(table, "%s:%u", answer_text(session, "server"), (unsigned)answer_number(session, "server_port"));
    if (json_is_string(json_object_get(session, "source_address")))
        table_cell(table, "%s %u", answer_text(session, "source_address"),
                   (unsigned)answer_number(session, "source_port"));
    else
        table_cell(table, "%u", (unsigned)answer_number(session, "source_port"));
    table_cell(table, "%s", duration_text((uint64_t)answer_number(session, "age_ms"), text));
    table_cell(table, "%s", duration_text((uint64_t)answer_number(session, "idle_ms"), text));
    table_cell(table, "%s", amount_text((uint64_t)answer_number(session, "bytes_to_server"), text));
    table_cell(table, "%s", amount_text((uint64_t)answer_number(session, "bytes_to_client"), text));
    table_cell(table, "%s",
               json_is_true(json_object_get(session, "proven"))     ? "yes"
               : json_is_true(json_object_get(session, "answered")) ? "no"
                                                                    : "no answer yet");
}

int cli_sessions(int argc, char **argv)
{
    static const char *const heads[] = {"CLIENT", "SERVICE",   "SERVER",    "OWN PORT", "AGE",
                                        "IDLE",   "TO SERVER", "TO CLIENT", "PROVEN"};
    struct arguments arguments;
    int status = arguments_read(&arguments, &usage, argc, argv);
    struct table *table;
    json_t *answer, **rows;
    size_t count;

    if (status >= 0)
        return status;
    answer = client_read(&arguments,
                         json_pack("{s:s, s:s*}", "verb", "sessions", "client",
                                   arguments.operand_count > 0 ? arguments.operands[0] : NULL),
                         &status);
    if (answer == NULL)
        return status;
    table = table_open(heads, sizeof heads / sizeof heads[0]);
    count = json_array_size(json_object_get(answer, "sessions"));
    rows = sorted(json_object_get(answer, "sessions"));
    for (size_t i = 0; rows != NULL && i < count; i++)
        add_session(table, rows[i]);
    free(rows);
    table_print(table);
    table_close(table);
    if (count == 0)
        puts("no sessions");
    json_decref(answer);
    return 0;
}
