/* SPDX-License-Identifier: Apache-2.0 */
#include "config/reader.h"

#include "base/endpoint.h"
#include <string.h>

#define HOUR_MS 3600000ull
#define HEALTH_TIMEOUT_MS 2000ull

static void no_such_server(struct reader *reader, const struct node *node)
{
    const struct config *config = reader->config;
    const char *names[SEGMENT_SERVERS];

    for (uint32_t i = 0; i < config->server_count; i++)
        names[i] = config->servers[i].name;
    reader_no_such(reader, node, "server", node->text, names, config->server_count);
}

static void add_member(struct reader *reader, const struct node *node, struct config_pool *pool, bool *taken)
{
    const struct config *config = reader->config;
    uint32_t server = 0;

    if (!reader_wants(reader, node, NODE_TEXT, "the name of a server"))
        return;
    while (server < config->server_count && strcmp(config->servers[server].name, node->text) != 0)
        server++;
    if (server == config->server_count) {
        no_such_server(reader, node);
    } else if (taken[server]) {
        reader_error(reader, node, "server `%s` is in this pool twice (for a larger share: its `weight`)", node->text);
    } else {
        taken[server] = true;
        pool->servers[pool->server_count++] = server;
    }
}

static void read_members(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct config_pool *pool = member;
    bool taken[SEGMENT_SERVERS] = {false};

    (void)key;
    if (!reader_wants(reader, node, NODE_LIST, "a list of servers"))
        return;
    if (node->count == 0)
        reader_error(reader, node, "a pool without a server");
    if (reader->config->server_count == 0) /* said at `servers` */
        return;
    pool->servers = reader_array(reader, reader->config->server_count, sizeof *pool->servers);
    if (pool->servers == NULL)
        return;
    for (const struct node *entry = node->first; entry != NULL; entry = entry->next)
        add_member(reader, entry, pool, taken);
}

static void read_check(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    enum config_check *check = member;

    read_choice(reader, key, node, member);
    if (*check == CHECK_SSTP) {
        reader_not_in_this_version(reader, node, "check: sstp");
        *check = CHECK_AUTO;
    }
}

static void read_health_source(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct config_health *health = member;
    struct hp_endpoint endpoint;

    (void)key;
    if (!reader_address(reader, node, &endpoint))
        return;
    if (endpoint.port != 0 || endpoint_is_any(&endpoint)) {
        reader_error(reader, node, "`source` wants one own address, without a port");
        return;
    }
    health->source = endpoint;
    health->source_at = node->at;
}

/* The default timeout gives way to a short interval; a written one that is longer is a mistake. */
static void read_health(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const char *const checks[] = {"auto", "ike", "tcp", "sstp", "none", NULL};
    static const struct key keys[] = {
        {"check", read_check, offsetof(struct config_health, check), .choices = checks},
        {"interval", read_duration, offsetof(struct config_health, interval_ms), .low = 100, .high = HOUR_MS},
        {"timeout", read_duration, offsetof(struct config_health, timeout_ms), .low = 10, .high = HOUR_MS},
        {"rise", read_u32, offsetof(struct config_health, rise), .low = 1, .high = 100},
        {"fall", read_u32, offsetof(struct config_health, fall), .low = 1, .high = 100},
        {"source", .read = read_health_source},
        {.name = NULL},
    };
    struct config_health *health = member;
    const struct node *timeout = node_child(node, "timeout");

    (void)key;
    reader_mapping(reader, node, keys, health);
    if (health->timeout_ms <= health->interval_ms)
        return;
    if (timeout != NULL)
        reader_error(reader, timeout, "`timeout` is longer than `interval`: a probe ends before the next begins");
    health->timeout_ms = health->interval_ms;
}

void read_source(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const char *const names[] = {"nat", "transparent"};
    struct config_source *source = member;
    const char *closest;

    source->at = node->at;
    if (node->kind == NODE_LIST) {
        source->kind = SOURCE_LIST;
        read_source_list(reader, node, source);
        return;
    }
    if (!reader_wants(reader, node, NODE_TEXT, "nat, transparent, or a list of own addresses"))
        return;
    source->kind = strcmp(node->text, "transparent") == 0 ? SOURCE_TRANSPARENT : SOURCE_NAT;
    if (source->kind == SOURCE_TRANSPARENT || strcmp(node->text, "nat") == 0)
        return;
    closest = config_closest(node->text, names, 2);
    reader_error(reader, node, "`%s` cannot be `%.64s`; %s%s%s", key->name, node->text,
                 closest != NULL ? "did you mean `"
                                 : "it is nat, transparent, or a list of own addresses: [ADDRESS, ...]",
                 closest != NULL ? closest : "", closest != NULL ? "`?" : "");
}

void read_pools(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const char *const schedulers[] = {"round_robin", "weighted_round_robin", "least_clients", "random", "maglev",
                                             NULL};
    static const char *const all_down[] = {"serve", "refuse", NULL};
    static const struct key keys[] = {
        {"servers", read_members, .required = true},
        {"scheduler", read_choice, offsetof(struct config_pool, scheduler), .choices = schedulers},
        {"port", read_u16, offsetof(struct config_pool, port), .low = 1, .high = UINT16_MAX},
        {"health", .read = read_health, .offset = offsetof(struct config_pool, health)},
        {"all_down", read_choice, offsetof(struct config_pool, all_down), .choices = all_down},
        {"min_active", .harmless = "1"},
        {.name = "slow_start"},
        {.name = "drain"},
        {"source", .read = read_source, .offset = offsetof(struct config_pool, source)},
        {.name = NULL},
    };
    struct config *config = reader->config;
    uint32_t count = reader_names(reader, node, key->name, SEGMENT_POOLS);

    (void)member;
    if (count == 0 || (config->pools = reader_array(reader, count, sizeof *config->pools)) == NULL)
        return;
    for (const struct node *entry = node->first; config->pool_count < count; entry = entry->next) {
        struct config_pool *pool = &config->pools[config->pool_count];

        pool->name = reader_name(reader, entry);
        if (pool->name == NULL)
            return;
        config->pool_count++;
        pool->at = entry->key_at;
        pool->health =
            (struct config_health){.interval_ms = 5000, .timeout_ms = HEALTH_TIMEOUT_MS, .rise = 2, .fall = 3};
        pool->source.kind = SOURCE_NAT;
        reader_mapping(reader, entry, keys, pool);
    }
}
