/* SPDX-License-Identifier: Apache-2.0 */
/* What is about the daemon as a whole: workers, user, state, plugin_path, log, affinity, sessions. */
#include "config/machine.h"
#include "config/reader.h"

#include <stdlib.h>
#include <string.h>

#define CAPACITY_MAX (1u << 24)
#define MINUTE_MS 60000ull
#define DAY_MS (24 * 60 * MINUTE_MS)

void read_workers(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    uint32_t *out = member;

    if (node->kind == NODE_TEXT && strcmp(node->text, "auto") == 0) {
        *out = machine_cpus();
        *out = *out > CONFIG_WORKERS_MAX ? CONFIG_WORKERS_MAX : *out;
        return;
    }
    read_u32(reader, key, node, member);
}

void read_user(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    reader->config->user_at = node->at;
    read_text(reader, key, node, member);
}

void read_state(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    if (node->kind == NODE_TEXT && *node->text != '\0' && *node->text != '/')
        reader_error(reader, node, "`state` wants a path from the root, such as /run/homeport");
    else if (node->kind == NODE_TEXT && strlen(node->text) > CONFIG_STATE_MAX)
        reader_error(reader, node, "`state` is longer than %u octets: the paths of its sockets would be too long",
                     CONFIG_STATE_MAX);
    else
        read_text(reader, key, node, member);
}

static void free_plugin_path(struct config *config)
{
    for (uint32_t i = 0; i < config->plugin_path_count; i++)
        free(config->plugin_path[i]);
    free(config->plugin_path);
    config->plugin_path = NULL;
    config->plugin_path_count = 0;
}

void read_plugin_path(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct config *config = reader->config;

    (void)key;
    (void)member;
    if (!reader_wants(reader, node, NODE_LIST, "a list of folders"))
        return;
    free_plugin_path(config); /* the default */
    if (node->count == 0)
        return;
    config->plugin_path = reader_array(reader, node->count, sizeof *config->plugin_path);
    if (config->plugin_path == NULL)
        return;
    for (const struct node *folder = node->first; folder != NULL; folder = folder->next) {
        char *copy;

        if (!reader_wants(reader, folder, NODE_TEXT, "a folder"))
            continue;
        if (*folder->text == '\0')
            reader_error(reader, folder, "a folder without a name");
        copy = reader_copy(reader, folder->text);
        if (copy == NULL)
            return;
        config->plugin_path[config->plugin_path_count++] = copy;
    }
}

void read_log(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const char *const levels[] = {"error", "warning", "info", "debug", NULL};
    static const char *const formats[] = {"text", "json", NULL};
    static const struct key keys[] = {
        {"level", read_choice, offsetof(struct config, log_level), .choices = levels},
        {"format", read_choice, offsetof(struct config, log_format), .choices = formats},
        {"sessions", .read = read_bool, .offset = offsetof(struct config, log_sessions)},
        {.name = NULL},
    };

    (void)key;
    reader_mapping(reader, node, keys, member);
}

void read_affinity(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const char *const when_full[] = {"evict", "refuse", NULL};
    static const struct key keys[] = {
        {"capacity", read_u32, offsetof(struct config, affinity_capacity), .low = 1, .high = CAPACITY_MAX},
        {"when_full", read_choice, offsetof(struct config, when_full), .choices = when_full},
        {.name = NULL},
    };

    (void)key;
    reader_mapping(reader, node, keys, member);
}

/* Ports below 1024 are not the unprivileged workers' to take. */
static bool port_range(const char *text, unsigned *first, unsigned *last)
{
    size_t size = strspn(text, "0123456789"), rest;

    if (size == 0 || size > 5 || text[size] != '-')
        return false;
    rest = strspn(text + size + 1, "0123456789");
    if (rest == 0 || rest > 5 || text[size + 1 + rest] != '\0')
        return false;
    *first = (unsigned)strtoul(text, NULL, 10);
    *last = (unsigned)strtoul(text + size + 1, NULL, 10);
    return *first >= 1024 && *first <= *last && *last <= UINT16_MAX;
}

static void read_ports(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct config *config = member;
    unsigned first, last;

    if (!reader_wants(reader, node, NODE_TEXT, "a range of ports such as 10240-29999"))
        return;
    if (!port_range(node->text, &first, &last)) {
        reader_error(reader, node, "`%s`: `%.64s` is not a range FIRST-LAST of ports from 1024 to 65535", key->name,
                     node->text);
        return;
    }
    config->port_first = (uint16_t)first;
    config->port_last = (uint16_t)last;
    config->ports_at = node->at;
}

void read_sessions(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const struct key keys[] = {
        {"capacity", read_u32, offsetof(struct config, sessions_capacity), .low = 1, .high = CAPACITY_MAX},
        {"idle", read_duration, offsetof(struct config, idle_ms), .low = 100, .high = 30 * DAY_MS},
        {"idle_unproven", read_duration, offsetof(struct config, idle_unproven_ms), .low = 100, .high = 30 * DAY_MS},
        {"ports", .read = read_ports},
        {.name = NULL},
    };

    (void)key;
    reader_mapping(reader, node, keys, member);
}
