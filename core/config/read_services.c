/* SPDX-License-Identifier: Apache-2.0 */
#include "config/reader.h"

#include "base/endpoint.h"
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define DAY_MS (24 * 3600000ull)

static void add_listen(struct reader *reader, const struct node *node, struct config_service *service)
{
    struct hp_endpoint endpoint;

    if (!reader_address(reader, node, &endpoint))
        return;
    if (endpoint.port == 0) {
        reader_error(reader, node, endpoint.family == 4 ? "`%s` wants a port: %s:500" : "`%s` wants a port: [%s]:500",
                     node->text, node->text);
        return;
    }
    /* One service, one port: towards the servers it has only one as well. */
    if (service->listen_count > 0 && service->listen[0].port != endpoint.port) {
        reader_error(reader, node, "port %u beside port %u in one service: make a service for each port", endpoint.port,
                     service->listen[0].port);
        return;
    }
    service->listen[service->listen_count] = endpoint;
    service->listen_at[service->listen_count++] = node->at;
}

static void read_listen(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct config_service *service = member;
    uint32_t count = node->kind == NODE_LIST ? node->count : 1;

    if (count == 0 || count > CONFIG_LISTEN_MAX) {
        reader_error(reader, node, "`%s` wants 1 to %u addresses, not %u", key->name, CONFIG_LISTEN_MAX, count);
        return;
    }
    service->listen = reader_array(reader, count, sizeof *service->listen);
    service->listen_at = reader_array(reader, count, sizeof *service->listen_at);
    if (service->listen == NULL || service->listen_at == NULL)
        return;
    if (node->kind == NODE_LIST)
        for (const struct node *entry = node->first; entry != NULL; entry = entry->next)
            add_listen(reader, entry, service);
    else
        add_listen(reader, node, service);
}

static void read_protocol(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    uint32_t *out = member, choice = 0;

    read_choice(reader, key, node, &choice);
    *out = choice == 0 ? IPPROTO_UDP : IPPROTO_TCP;
}

static void read_pool_name(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    const struct config *config = reader->config;
    const char *names[SEGMENT_POOLS];
    uint32_t *out = member, count = config->pool_count;

    (void)key;
    if (!reader_wants(reader, node, NODE_TEXT, "the name of a pool"))
        return;
    for (uint32_t i = 0; i < count; i++) {
        names[i] = config->pools[i].name;
        if (strcmp(names[i], node->text) == 0) {
            *out = i;
            return;
        }
    }
    reader_no_such(reader, node, "pool", node->text, names, count);
}

static void read_profile_name(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    const struct config *config = reader->config;
    const char *names[SEGMENT_PROFILES];
    int32_t *out = member;
    uint32_t count = config->profile_count;

    (void)key;
    if (!reader_wants(reader, node, NODE_TEXT, "the name of a persistence profile"))
        return;
    for (uint32_t i = 0; i < count; i++) {
        names[i] = config->profiles[i].name;
        if (strcmp(names[i], node->text) == 0) {
            *out = (int32_t)i;
            return;
        }
    }
    reader_no_such(reader, node, "persistence profile", node->text, names, count);
}

/* A name, or a mapping with the name and what the plugin wants to know about this service. */
static void read_persistence(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct config_service *service = member;
    const struct node *profile = node_child(node, "profile");

    service->persistence_at = node->at;
    if (node->kind != NODE_MAPPING) {
        read_profile_name(reader, key, node, &service->profile);
        return;
    }
    service->option_count = read_options(reader, node, "profile", &service->options);
    if (profile != NULL)
        read_profile_name(reader, key, profile, &service->profile);
    else
        reader_error(reader, node, "`profile` is missing in `%s`", key->name);
}

static void read_service_health(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const struct key keys[] = {
        {"group", .read = read_bool, .offset = offsetof(struct config_service, health_group)},
        {.name = NULL},
    };

    (void)key;
    reader_mapping(reader, node, keys, member);
}

void read_services(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const char *const protocols[] = {"udp", "tcp", NULL};
    static const struct key keys[] = {
        {"listen", read_listen, .required = true},
        {"protocol", read_protocol, offsetof(struct config_service, protocol), .choices = protocols, .required = true},
        {"pool", read_pool_name, offsetof(struct config_service, pool), .required = true},
        {"persistence", .read = read_persistence},
        {"idle", read_duration, offsetof(struct config_service, idle_ms), .low = 100, .high = 30 * DAY_MS},
        {"max_clients", read_u32, offsetof(struct config_service, max_clients), .low = 1, .high = UINT32_MAX},
        {"health", .read = read_service_health},
        {"source", read_source, .offset = offsetof(struct config_service, source)},
        {.name = NULL},
    };
    struct config *config = reader->config;
    uint32_t count = reader_names(reader, node, key->name, SEGMENT_SERVICES);

    (void)member;
    if (count == 0 || (config->services = reader_array(reader, count, sizeof *config->services)) == NULL)
        return;
    for (const struct node *entry = node->first; config->service_count < count; entry = entry->next) {
        struct config_service *service = &config->services[config->service_count];

        service->name = reader_name(reader, entry);
        if (service->name == NULL)
            return;
        config->service_count++;
        service->at = entry->key_at;
        service->protocol = IPPROTO_UDP;
        service->pool = SEGMENT_NO_INDEX;
        service->profile = -1;
        service->idle_ms = config->idle_ms;
        service->health_group = true;
        service->source = SOURCE_OF_POOL;
        reader_mapping(reader, entry, keys, service);
    }
}
