/* SPDX-License-Identifier: Apache-2.0 */
/* `source: transparent`: a server sees its client's address, so both are of one family. */
#include "config/reader.h"

#include <stddef.h>

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

void check_source(struct reader *reader, const struct config_service *service)
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
