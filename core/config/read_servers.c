/* SPDX-License-Identifier: Apache-2.0 */
#include "config/reader.h"

#include "base/endpoint.h"

static void read_server_address(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct hp_endpoint *out = member, endpoint;

    if (!reader_address(reader, node, &endpoint))
        return;
    if (endpoint.port != 0)
        reader_error(reader, node, "`%s` of a server takes no port: the services and `port` of a pool say which",
                     key->name);
    else if (endpoint_is_any(&endpoint))
        reader_error(reader, node, "`%s` is not the address of one machine", node->text);
    else
        *out = endpoint;
}

void read_servers(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const char *const states[] = {"enabled", "drain", "offline", "disabled", NULL};
    static const struct key keys[] = {
        {"address", read_server_address, offsetof(struct config_server, address), .required = true},
        {"weight", read_u32, offsetof(struct config_server, weight), .low = 1, .high = 1000},
        {"max_clients", read_u32, offsetof(struct config_server, max_clients), .low = 1, .high = UINT32_MAX},
        {"state", read_choice, offsetof(struct config_server, state), .choices = states},
        {"priority", .harmless = "0"},
        {.name = "max_new_per_second"},
        {.name = NULL},
    };
    struct config *config = reader->config;
    uint32_t count = reader_names(reader, node, key->name, SEGMENT_SERVERS);

    (void)member;
    if (count == 0 || (config->servers = reader_array(reader, count, sizeof *config->servers)) == NULL)
        return;
    for (const struct node *entry = node->first; config->server_count < count; entry = entry->next) {
        struct config_server *server = &config->servers[config->server_count];

        server->name = reader_name(reader, entry);
        if (server->name == NULL)
            return;
        config->server_count++;
        server->at = entry->key_at;
        server->weight = 1;
        reader_mapping(reader, entry, keys, server);
    }
}
