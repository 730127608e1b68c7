/* SPDX-License-Identifier: Apache-2.0 */
/* What of a service a plugin may put into a key: identities made of names and addresses, the same after a reload, a
 * restart, on another balancer. Sets are sorted first: the order of the file is nobody's identity. */
#include "plugin/values.h"

#include "base/endpoint.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

static int text_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* One text of all, each once, a line each; no name has a line break. */
static bool set_identity(uint64_t *out, const char *kind, const char **texts, uint32_t count)
{
    size_t size = 1;
    char *all, *end;

    qsort(texts, count, sizeof *texts, text_compare);
    for (uint32_t i = 0; i < count; i++)
        size += strlen(texts[i]) + 1;
    all = end = malloc(size);
    if (all == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(texts[i], texts[i - 1]) == 0)
            continue;
        end = stpcpy(end, texts[i]);
        *end++ = '\n';
    }
    *end = '\0';
    *out = hash_identity(kind, all);
    free(all);
    return true;
}

static bool servers_identity(uint64_t *out, const struct config *config, const struct config_pool *pool)
{
    const char **names = calloc(pool->server_count + 1u, sizeof *names);
    bool fine;

    if (names == NULL)
        return false;
    for (uint32_t i = 0; i < pool->server_count; i++)
        names[i] = config->servers[pool->servers[i]].name;
    fine = set_identity(out, "servers", names, pool->server_count);
    free(names);
    return fine;
}

static bool listen_identity(uint64_t *out, const struct config_service *service)
{
    char(*addresses)[ENDPOINT_TEXT] = calloc(service->listen_count + 1u, sizeof *addresses);
    const char **texts = calloc(service->listen_count + 1u, sizeof *texts);
    bool fine = addresses != NULL && texts != NULL;

    for (uint32_t i = 0; fine && i < service->listen_count; i++) {
        struct hp_endpoint address = service->listen[i];

        address.port = 0; /* 500 and 4500 of one address are one */
        texts[i] = endpoint_format(&address, addresses[i]);
    }
    fine = fine && set_identity(out, "listener", texts, service->listen_count);
    free(texts);
    free(addresses);
    return fine;
}

bool service_view_fill(struct hp_service *out, const struct config *config, const struct config_service *service,
                       uint32_t id, const struct hp_value *row)
{
    const struct config_pool *pool = &config->pools[service->pool];

    *out = (struct hp_service){.size = sizeof *out,
                               .id = id,
                               .identity = hash_identity("service", service->name),
                               .pool_identity = hash_identity("pool", pool->name),
                               .name = service->name,
                               .protocol = service->protocol,
                               .port = service->port,
                               .values = row,
                               .is_ike = service->ike};
    return servers_identity(&out->servers_identity, config, pool) && listen_identity(&out->listen_identity, service);
}
