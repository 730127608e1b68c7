/* SPDX-License-Identifier: Apache-2.0 */
/* What no single key can know: things that exclude each other, and the warnings that need nothing but the file.
 * Runs after errors as well, so that all are said in one go: what is missing in the model is passed over. */
#include "config/reader.h"

#include "base/endpoint.h"
#include <netinet/in.h>
#include <string.h>

static bool has_pool(const struct config_service *service)
{
    return service->pool != SEGMENT_NO_INDEX && service->listen_count > 0;
}

static void derive_service(const struct config *config, struct config_service *service)
{
    const struct config_pool *pool = &config->pools[service->pool];

    service->port = service->listen[0].port;
    service->server_port = pool->port != 0 ? pool->port : service->port;
    service->transparent = config_source_of(config, service)->kind == SOURCE_TRANSPARENT;
    service->check = pool->health.check;
    if (service->check == CHECK_AUTO)
        service->check = service->protocol == IPPROTO_UDP ? CHECK_IKE : CHECK_TCP;
    service->ike = service->protocol == IPPROTO_UDP &&
                   (service->check == CHECK_IKE || service->port == 500 || service->port == 4500);
}

static struct position position_under(const struct reader *reader, const char *section, const char *name,
                                      const char *key, struct position otherwise)
{
    const struct node *node = node_child(reader->root, section);

    node = node != NULL ? node_child(node, name) : NULL;
    node = node != NULL ? node_child(node, key) : NULL;
    return node != NULL ? node->at : otherwise;
}

static void check_server_address(struct reader *reader, uint32_t index)
{
    const struct config_server *servers = reader->config->servers, *server = &servers[index];

    for (uint32_t i = 0; i < index && server->address.family != 0; i++) {
        if (!endpoint_same_address(&servers[i].address, &server->address))
            continue;
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR,
                        position_under(reader, "servers", server->name, "address", server->at),
                        "`%s` has the address of `%s` (line %u): one server has one name", server->name,
                        servers[i].name, servers[i].at.line);
        return;
    }
}

/* Is the listener at (at) one of the first (count) of other? Reports it once. */
static bool is_listener_of(struct reader *reader, const struct config_service *service, uint32_t at,
                           const struct config_service *other, uint32_t count)
{
    char text[ENDPOINT_TEXT];

    for (uint32_t i = 0; i < count; i++) {
        if (service->protocol != other->protocol || !endpoint_equal(&service->listen[at], &other->listen[i]))
            continue;
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, service->listen_at[at],
                        "%s is a listener of `%s` already (line %u)", endpoint_format(&service->listen[at], text),
                        other->name, other->listen_at[i].line);
        return true;
    }
    return false;
}

static void check_listeners(struct reader *reader, uint32_t index)
{
    const struct config *config = reader->config;
    const struct config_service *service = &config->services[index];

    for (uint32_t at = 0; at < service->listen_count; at++) {
        bool found = is_listener_of(reader, service, at, service, at);

        for (uint32_t i = 0; i < index && !found; i++)
            found = is_listener_of(reader, service, at, &config->services[i], config->services[i].listen_count);
    }
}

/* A cell on a listener's port would take datagrams that are the listener's. */
static void check_source_ports(struct reader *reader, const struct config_service *service)
{
    const struct config *config = reader->config;
    uint16_t port = service->listen_count > 0 ? service->listen[0].port : 0;

    if (service->protocol == IPPROTO_UDP && port >= config->port_first && port <= config->port_last)
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, service->listen_at[0],
                        "port %u lies in the own source ports %u-%u: choose other `ports` under `sessions`", port,
                        config->port_first, config->port_last);
}

/* Loopback is this machine everywhere; which other addresses are, config_check_machine knows. */
static bool listens_at(const struct hp_endpoint *listener, const struct hp_endpoint *server)
{
    return endpoint_same_address(listener, server) ||
           (endpoint_is_any(listener) && listener->family == server->family && endpoint_is_loopback(server));
}

static void check_loop(struct reader *reader, const struct config_service *service)
{
    const struct config_pool *pool = &reader->config->pools[service->pool];

    for (uint32_t i = 0; i < pool->server_count; i++) {
        const struct config_server *server = &reader->config->servers[pool->servers[i]];

        for (uint32_t j = 0; j < service->listen_count; j++)
            if (service->server_port == service->listen[j].port && listens_at(&service->listen[j], &server->address))
                diagnostics_add(reader->diagnostics, SEVERITY_ERROR, service->listen_at[j],
                                "`%s` would send to itself: this is the address and port of its server `%s`",
                                service->name, server->name);
    }
}

/* One port towards the servers cannot stand for two: replies and probes would be mixed up. */
static void check_pool_port(struct reader *reader, uint32_t index)
{
    const struct config *config = reader->config;
    const struct config_pool *pool = &config->pools[index];
    const struct config_service *first = NULL;

    if (pool->port == 0)
        return;
    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct config_service *service = &config->services[i];

        if (service->pool != index || !has_pool(service))
            continue;
        if (first == NULL) {
            first = service;
        } else if (first->port != service->port || first->protocol != service->protocol) {
            diagnostics_add(reader->diagnostics, SEVERITY_ERROR,
                            position_under(reader, "pools", pool->name, "port", pool->at),
                            "`port` in a pool that services of different ports or protocols use (`%s` and `%s`): "
                            "leave it out, or give each its own pool",
                            first->name, service->name);
            return;
        }
    }
}

/* A probe speaks the protocol of the service that it is for. Said once a pool. */
static void check_check(struct reader *reader, uint32_t index)
{
    const struct config_pool *pool = &reader->config->pools[index];
    uint32_t protocol = pool->health.check == CHECK_IKE ? IPPROTO_UDP : IPPROTO_TCP;

    if (pool->health.check != CHECK_IKE && pool->health.check != CHECK_TCP)
        return;
    for (uint32_t i = 0; i < reader->config->service_count; i++) {
        const struct config_service *service = &reader->config->services[i];

        if (service->pool != index || !has_pool(service) || service->protocol == protocol)
            continue;
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, service->at,
                        "`%s` is %s, but its pool `%s` has `check: %s`: with `check: auto` each service is probed in "
                        "its own protocol",
                        service->name, service->protocol == IPPROTO_UDP ? "UDP" : "TCP", pool->name,
                        pool->health.check == CHECK_IKE ? "ike" : "tcp");
        return;
    }
}

static bool pool_names(const struct config_pool *pool, uint32_t server)
{
    for (uint32_t i = 0; i < pool->server_count; i++)
        if (pool->servers[i] == server)
            return true;
    return false;
}

static bool probed_before(const uint32_t *keys, uint32_t count, uint32_t key)
{
    for (uint32_t i = 0; i < count; i++)
        if (keys[i] == key)
            return true;
    return false;
}

static void check_probes(struct reader *reader, uint32_t index)
{
    const struct config *config = reader->config;
    uint32_t keys[SEGMENT_PROBES], count = 0;

    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct config_service *service = &config->services[i];
        uint32_t key = service->protocol << 16 | service->server_port;

        if (!has_pool(service) || service->check == CHECK_NONE || !pool_names(&config->pools[service->pool], index) ||
            probed_before(keys, count, key))
            continue;
        if (count == SEGMENT_PROBES) {
            diagnostics_add(reader->diagnostics, SEVERITY_ERROR, service->at,
                            "server `%s` would be probed on more than %u ports: `health: { check: none }` in a pool "
                            "saves some",
                            config->servers[index].name, SEGMENT_PROBES);
            return;
        }
        keys[count++] = key;
    }
}

/* Each lane takes the ports that are congruent to it, so a range has at least one for each. */
static void check_port_count(struct reader *reader)
{
    const struct config *config = reader->config;
    uint32_t ports = (uint32_t)config->port_last - config->port_first + 1, lanes = 8;

    while (lanes < 2 * config->workers)
        lanes *= 2;
    if (ports < lanes)
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, config->ports_at,
                        "%u source ports are too few: %u workers need %u at least", ports, config->workers, lanes);
}

/* A probe leaves from its source, so both are of one family. */
static void check_health_source(struct reader *reader, const struct config_pool *pool)
{
    const struct config_server *servers = reader->config->servers;
    uint32_t family = pool->health.source.family;

    for (uint32_t i = 0; i < pool->server_count && family != 0; i++) {
        const struct config_server *server = &servers[pool->servers[i]];

        if (server->address.family == 0 || server->address.family == family)
            continue;
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, pool->health.source_at,
                        "an IPv%u address cannot probe `%s`, which has an IPv%u address: leave `source` out, or give "
                        "the servers of each family a pool of their own",
                        family, server->name, server->address.family);
        return;
    }
}

/* A server of the pool sees all clients come from one address. */
static bool sees_one_address(const struct config *config, const struct config_pool *pool,
                             const struct config_source *source)
{
    if (source->kind != SOURCE_LIST)
        return source->kind == SOURCE_NAT;
    for (uint32_t i = 0; i < pool->server_count; i++)
        if (source_family_count(source, config->servers[pool->servers[i]].address.family) == 1)
            return true;
    return false;
}

/* Said once a pool, if one of its services is meant. */
static void warn_about_nat(struct reader *reader, uint32_t index)
{
    const struct config *config = reader->config;

    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct config_source *source;

        if (config->services[i].pool != index || !config->services[i].ike)
            continue;
        source = config_source_of(config, &config->services[i]);
        if (!sees_one_address(config, &config->pools[index], source))
            continue;
        diagnostics_add(reader->diagnostics, SEVERITY_WARNING, config->pools[index].at,
                        "the servers of pool `%s` see all clients come from one address (source: %s). Windows RRAS "
                        "stops answering at about ten tunnels from one address: raise its registry value "
                        "IkeNumEstablishedForInitialQuery. strongSwan asks for cookies from three half-open IKE_SAs "
                        "per address and drops from five: raise cookie_threshold_ip and block_threshold. Or list more "
                        "addresses of this machine, source: [ADDRESS, ADDRESS], or let them see the clients' own: "
                        "source: transparent",
                        config->pools[index].name, source->kind == SOURCE_NAT ? "nat" : "a list of one address");
        return;
    }
}

/* A weight that no pool of its server looks at. */
static void warn_about_weight(struct reader *reader, uint32_t index)
{
    const struct config *config = reader->config;
    const struct config_server *server = &config->servers[index];
    const struct config_pool *ignoring = NULL;

    for (uint32_t i = 0; i < config->pool_count; i++) {
        if (!pool_names(&config->pools[i], index))
            continue;
        if (config->pools[i].scheduler != SCHEDULER_ROUND_ROBIN)
            return;
        ignoring = &config->pools[i];
    }
    if (server->weight != 1 && ignoring != NULL)
        diagnostics_add(reader->diagnostics, SEVERITY_WARNING,
                        position_under(reader, "servers", server->name, "weight", server->at),
                        "`weight` has no effect: pool `%s` has the scheduler round_robin; weighted_round_robin looks "
                        "at weights",
                        ignoring->name);
}

static void warn_about_disabled(struct reader *reader, uint32_t index)
{
    const struct config_pool *pool = &reader->config->pools[index];

    for (uint32_t i = 0; i < pool->server_count; i++)
        if (reader->config->servers[pool->servers[i]].state != SERVER_DISABLED)
            return;
    if (pool->server_count > 0)
        diagnostics_add(reader->diagnostics, SEVERITY_WARNING, pool->at,
                        "all servers of pool `%s` are disabled: it serves nobody", pool->name);
}

static void warn_about_group(struct reader *reader, const struct config_service *service)
{
    if (!service->health_group && service->profile < 0)
        diagnostics_add(reader->diagnostics, SEVERITY_WARNING,
                        position_under(reader, "services", service->name, "health", service->at),
                        "`group: no` has no effect: without persistence `%s` is in no group", service->name);
}

void check_config(struct reader *reader)
{
    struct config *config = reader->config;

    for (uint32_t i = 0; i < config->service_count; i++)
        if (has_pool(&config->services[i]))
            derive_service(config, &config->services[i]);
    for (uint32_t i = 0; i < config->server_count; i++) {
        check_server_address(reader, i);
        check_probes(reader, i);
        warn_about_weight(reader, i);
    }
    for (uint32_t i = 0; i < config->service_count; i++) {
        check_listeners(reader, i);
        check_source_ports(reader, &config->services[i]);
        warn_about_group(reader, &config->services[i]);
        if (has_pool(&config->services[i]))
            check_loop(reader, &config->services[i]);
    }
    for (uint32_t i = 0; i < config->pool_count; i++) {
        check_pool_port(reader, i);
        check_check(reader, i);
        check_health_source(reader, &config->pools[i]);
        warn_about_nat(reader, i);
        warn_about_disabled(reader, i);
    }
    check_sources(reader);
    check_port_count(reader);
}
