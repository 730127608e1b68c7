/* SPDX-License-Identifier: Apache-2.0 */
/* Tying the configuration to the segment's slots, once per process.
 *
 * Fails: a server, pool or service without a slot -> -ENOENT: the master assigns all of them before it starts anybody
 *        no memory                               -> -ENOMEM; what was made is freed */
#include "pool/topology.h"

#include "base/endpoint.h"
#include "base/error.h"
#include "base/hash.h"
#include "pool/scheduler.h"
#include "segment/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int no_slot(struct error *error, const char *kind, const char *name)
{
    error_set(error, -ENOENT, "%s %s has no slot in the segment", kind, name);
    return error_next(error, "this is a fault of homeport: please report it");
}

static int members_open(struct topology_service *service, const struct topology *topology, struct error *error)
{
    const struct config_pool *pool = service->pool;

    if (pool->server_count > SEGMENT_SERVERS)
        return error_set(error, -E2BIG, "pool %s has more than %u servers", pool->name, SEGMENT_SERVERS);
    service->members = calloc(pool->server_count + 1u, sizeof *service->members);
    if (service->members == NULL)
        return error_set(error, -ENOMEM, "no memory for the servers of pool %s", pool->name);
    for (uint32_t i = 0; i < pool->server_count; i++) {
        const struct config_server *server = &topology->config->servers[pool->servers[i]];
        uint32_t slot = server_find(topology->segment, server->name);

        if (slot == SEGMENT_NO_INDEX)
            return no_slot(error, "server", server->name);
        service->members[i] = (struct member){.slot = slot,
                                              .weight = server->weight > 0 ? server->weight : 1,
                                              .max_clients = server->max_clients,
                                              .config = server};
    }
    service->member_count = pool->server_count;
    return 0;
}

static int sources_open(struct topology_service *service, const struct topology *topology, struct error *error)
{
    const struct config_source *source = config_source_of(topology->config, service->config);

    service->sources = calloc(source->count + 1u, sizeof *service->sources);
    if (service->sources == NULL)
        return error_set(error, -ENOMEM, "no memory for the source addresses of service %s", service->config->name);
    service->source_count = source->count > 0 ? source->count : 1;
    for (uint32_t i = 0; i < source->count; i++) {
        uint32_t slot = source_find(topology->segment, &source->addresses[i]);
        char text[ENDPOINT_TEXT];

        if (slot == SOURCE_ROUTE)
            return no_slot(error, "source address", endpoint_format(&source->addresses[i], text));
        service->sources[i] = (uint8_t)slot;
    }
    return 0;
}

/* Services of one pool share its scheduler: a maglev table is 128 KiB. */
static struct scheduler *scheduler_of(const struct topology *topology, const struct topology_service *service)
{
    for (const struct topology_service *other = topology->services; other < service; other++)
        if (other->pool == service->pool)
            return other->scheduler;
    return scheduler_open(service);
}

static int service_open(struct topology *topology, uint32_t position, struct error *error)
{
    struct topology_service *service = &topology->services[position];
    const struct config_service *config = &topology->config->services[position];
    int status;

    service->config = config;
    service->pool = &topology->config->pools[config->pool];
    service->identity = hash_identity("service", config->name);
    service->slot = service_find(topology->segment, config->name);
    if (service->slot == SEGMENT_NO_INDEX)
        return no_slot(error, "service", config->name);
    service->pool_slot = pool_find(topology->segment, service->pool->name);
    if (service->pool_slot == SEGMENT_NO_INDEX)
        return no_slot(error, "pool", service->pool->name);
    status = members_open(service, topology, error);
    if (status < 0)
        return status;
    status = sources_open(service, topology, error);
    if (status < 0)
        return status;
    service->scheduler = scheduler_of(topology, service);
    topology->service_count = position + 1;
    if (service->scheduler == NULL)
        return error_set(error, -ENOMEM, "no memory for the scheduler of pool %s", service->pool->name);
    return 0;
}

/* The probe's bit of the service's own port at the server; 0: nobody probes it, so it is never down. */
static uint64_t own_bit(const struct topology *topology, const struct topology_service *service, uint32_t slot)
{
    const struct config_service *config = service->config;
    uint32_t probe;

    if (config->check == CHECK_NONE)
        return 0;
    probe = server_probe_find(topology->segment, slot, config->protocol, config->server_port);
    return probe < SEGMENT_PROBES ? 1ull << probe : 0;
}

/* TCP services join the record, never the group. */
static bool in_group(const struct config_service *service, uint32_t profile)
{
    return service->profile == (int32_t)profile && service->protocol == 17 && service->health_group;
}

/* Group health: every bit that one service of the group watches at a server counts for all of them. */
static void group_join(struct topology *topology, uint32_t profile)
{
    uint64_t bits[SEGMENT_SERVERS] = {0};

    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < topology->service_count; i++) {
            struct topology_service *service = &topology->services[i];

            if (!in_group(&topology->config->services[i], profile))
                continue;
            for (uint32_t j = 0; j < service->member_count; j++) {
                struct member *member = &service->members[j];

                if (pass == 0)
                    bits[member->slot] |= member->down_mask;
                else
                    member->down_mask = bits[member->slot];
            }
        }
}

static void masks_fill(struct topology *topology)
{
    for (uint32_t i = 0; i < topology->service_count; i++) {
        struct topology_service *service = &topology->services[i];

        for (uint32_t j = 0; j < service->member_count; j++)
            service->members[j].down_mask = own_bit(topology, service, service->members[j].slot);
    }
    for (uint32_t i = 0; i < topology->config->profile_count; i++)
        group_join(topology, i);
}

static int services_open(struct topology *self, struct error *error)
{
    self->services = calloc(self->config->service_count + 1u, sizeof *self->services);
    self->added_servers = calloc(SEGMENT_SERVERS, sizeof *self->added_servers);
    self->added_services = calloc(SEGMENT_SERVICES, sizeof *self->added_services);
    if (self->services == NULL || self->added_servers == NULL || self->added_services == NULL)
        return error_set(error, -ENOMEM, "no memory for the services");
    for (uint32_t i = 0; i < self->config->service_count; i++) {
        int status = service_open(self, i, error);

        if (status < 0)
            return status;
    }
    masks_fill(self);
    return 0;
}

int topology_open(struct topology **out, const struct config *config, struct segment *segment, struct error *error)
{
    struct topology *self = calloc(1, sizeof *self);
    int status;

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory for the services");
    self->config = config;
    self->segment = segment;
    self->recount_seen = atomic_load_explicit(&segment->header->recount, memory_order_acquire);
    hash_random(&self->random_state, sizeof self->random_state);
    self->random_state |= 1; /* xorshift stays at 0 */
    status = services_open(self, error);
    if (status < 0) {
        topology_close(self);
        return status;
    }
    *out = self;
    return 0;
}

static bool owns_scheduler(const struct topology *topology, uint32_t position)
{
    for (uint32_t i = 0; i < position; i++)
        if (topology->services[i].scheduler == topology->services[position].scheduler)
            return false;
    return true;
}

void topology_close(struct topology *topology)
{
    if (topology == NULL)
        return;
    for (uint32_t i = topology->service_count; i-- > 0;)
        if (owns_scheduler(topology, i))
            scheduler_close(topology->services[i].scheduler);
    for (uint32_t i = 0; topology->services != NULL && i < topology->config->service_count; i++) {
        free(topology->services[i].members);
        free(topology->services[i].sources);
    }
    free(topology->services);
    free(topology->added_servers);
    free(topology->added_services);
    free(topology);
}

const struct member *topology_member(const struct topology_service *service, uint32_t slot)
{
    for (uint32_t i = 0; i < service->member_count; i++)
        if (service->members[i].slot == slot)
            return &service->members[i];
    return NULL;
}

const struct member *topology_member_anywhere(const struct topology *topology, const struct topology_service *service,
                                              uint32_t slot)
{
    const struct member *member = topology_member(service, slot);

    for (uint32_t i = 0; member == NULL && i < topology->service_count; i++)
        member = topology_member(&topology->services[i], slot);
    return member;
}
