/* SPDX-License-Identifier: Apache-2.0 */
/* `source` of a pool or a service. [ADDRESS, …]: this machine's own addresses, from which clients reach the servers; a
 * server is reached from those of its family. transparent: each server sees its client's own address. */
#include "config/reader.h"

#include "base/endpoint.h"

const struct config_source *config_source_of(const struct config *config, const struct config_service *service)
{
    return service->source.kind != SOURCE_UNSET ? &service->source : &config->pools[service->pool].source;
}

static void add_address(struct reader *reader, const struct node *node, struct config_source *source)
{
    struct hp_endpoint endpoint;

    if (!reader_address(reader, node, &endpoint))
        return;
    if (endpoint.port != 0 || endpoint_is_any(&endpoint)) {
        reader_error(reader, node, "`%.64s` in `source`: own addresses, each without a port", node->text);
        return;
    }
    for (uint32_t i = 0; i < source->count; i++)
        if (endpoint_same_address(&source->addresses[i], &endpoint)) {
            reader_error(reader, node, "%s is in this list twice", node->text);
            return;
        }
    source->addresses[source->count] = endpoint;
    source->addresses_at[source->count++] = node->at;
}

void read_source_list(struct reader *reader, const struct node *node, struct config_source *source)
{
    if (node->count == 0 || node->count >= SEGMENT_SOURCES) {
        reader_error(reader, node, "`source` wants 1 to %u own addresses, not %u", SEGMENT_SOURCES - 1, node->count);
        return;
    }
    source->addresses = reader_array(reader, node->count, sizeof *source->addresses);
    source->addresses_at = reader_array(reader, node->count, sizeof *source->addresses_at);
    if (source->addresses == NULL || source->addresses_at == NULL)
        return;
    for (const struct node *entry = node->first; entry != NULL; entry = entry->next)
        add_address(reader, entry, source);
}

uint32_t source_family_count(const struct config_source *source, uint32_t family)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < source->count; i++)
        count += source->addresses[i].family == family;
    return count;
}

/* Each server of the pool must be reached from one of them at least. */
static void check_families(struct reader *reader, const struct config_source *source, const struct config_pool *pool)
{
    const struct config *config = reader->config;

    for (uint32_t i = 0; i < pool->server_count && source->count > 0; i++) {
        const struct config_server *server = &config->servers[pool->servers[i]];

        if (server->address.family == 0 || source_family_count(source, server->address.family) > 0)
            continue;
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, source->at,
                        "`%s` has an IPv%u address, and none of these source addresses is IPv%u: add one of this "
                        "machine's, or take the server out of the pool",
                        server->name, server->address.family, server->address.family);
        return;
    }
}

static bool same_sources(const struct config_source *one, const struct config_source *other)
{
    if (one->kind != other->kind || one->count != other->count)
        return false;
    for (uint32_t i = 0; i < one->count; i++) {
        uint32_t same = 0;

        while (same < other->count && !endpoint_same_address(&one->addresses[i], &other->addresses[same]))
            same++;
        if (same == other->count)
            return false;
    }
    return true;
}

/* IKEv2 changes from port 500 to 4500 in the middle of a handshake: from another address it would be another client. */
static void check_profile(struct reader *reader, uint32_t index)
{
    const struct config *config = reader->config;
    const struct config_service *service = &config->services[index];

    for (uint32_t i = 0; i < index; i++) {
        const struct config_service *other = &config->services[i];

        if (other->pool == SEGMENT_NO_INDEX || other->profile != service->profile ||
            (service->transparent != other->transparent && !(service->ike && other->ike)) ||
            same_sources(config_source_of(config, other), config_source_of(config, service)))
            continue;
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, service->at,
                        "`%s` and `%s` share records, but not their `source`: the two ports of one client would come "
                        "from two addresses, and IKEv2 breaks; give both the same",
                        other->name, service->name);
        return;
    }
}

bool config_is_transparent(const struct config *config)
{
    for (uint32_t i = 0; i < config->service_count; i++)
        if (config->services[i].transparent)
            return true;
    return false;
}

/* The first server of the service's pool that has an address of another family; NULL: none. */
static const struct config_server *other_family(const struct config *config, const struct config_service *service,
                                                uint32_t family)
{
    const struct config_pool *pool = &config->pools[service->pool];

    for (uint32_t i = 0; i < pool->server_count; i++) {
        const struct config_server *server = &config->servers[pool->servers[i]];

        if (server->address.family != 0 && server->address.family != family)
            return server;
    }
    return NULL;
}

/* A server sees its client's address, so both are of one family. */
static void check_transparent(struct reader *reader, const struct config_service *service)
{
    for (uint32_t i = 0; i < service->listen_count && service->transparent; i++) {
        uint32_t family = service->listen[i].family;
        const struct config_server *server = other_family(reader->config, service, family);

        if (server == NULL)
            continue;
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, service->listen_at[i],
                        "`%s` is transparent and has IPv%u clients here, but its server `%s` has an IPv%u address and "
                        "cannot see theirs: make a service and a pool for each family, or write source: nat",
                        service->name, family, server->name, server->address.family);
        return;
    }
}

static uint32_t add_distinct(struct hp_endpoint *distinct, uint32_t count, const struct config_source *source)
{
    for (uint32_t i = 0; i < source->count; i++) {
        uint32_t same = 0;

        while (same < count && !endpoint_same_address(&distinct[same], &source->addresses[i]))
            same++;
        if (same == count && count < SEGMENT_SOURCES)
            distinct[count++] = source->addresses[i];
    }
    return count;
}

uint32_t config_sources(const struct config *config, struct hp_endpoint distinct[SEGMENT_SOURCES])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < config->pool_count; i++)
        count = add_distinct(distinct, count, &config->pools[i].source);
    for (uint32_t i = 0; i < config->service_count; i++)
        count = add_distinct(distinct, count, &config->services[i].source);
    return count;
}

static void warn_about_probes(struct reader *reader, const struct config_pool *pool, const struct hp_endpoint *distinct,
                              uint32_t count)
{
    for (uint32_t i = 0; i < count && pool->health.source.family != 0; i++)
        if (endpoint_same_address(&distinct[i], &pool->health.source))
            diagnostics_add(
                reader->diagnostics, SEVERITY_WARNING, pool->health.source_at,
                "this is a source address of clients as well: a server that is silent to it will seem down; "
                "probe from another one");
}

void check_sources(struct reader *reader)
{
    const struct config *config = reader->config;
    struct hp_endpoint distinct[SEGMENT_SOURCES];
    uint32_t count = config_sources(config, distinct);

    for (uint32_t i = 0; i < config->pool_count; i++) {
        check_families(reader, &config->pools[i].source, &config->pools[i]);
        warn_about_probes(reader, &config->pools[i], distinct, count);
    }
    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct config_service *service = &config->services[i];

        if (service->pool == SEGMENT_NO_INDEX)
            continue;
        check_families(reader, &service->source, &config->pools[service->pool]);
        check_transparent(reader, service);
        if (service->profile >= 0)
            check_profile(reader, i);
    }
    if (count == SEGMENT_SOURCES)
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, (struct position){0, 0},
                        "more than %u source addresses in all pools and services", SEGMENT_SOURCES - 1);
}
