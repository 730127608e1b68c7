/* SPDX-License-Identifier: Apache-2.0 */
#include "process/master.h"

#include "base/hash.h"
#include "segment/source.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct generation *generation_make(const struct plan *plan, int source)
{
    struct generation *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
    self->source = source;
    self->plan = malloc(sizeof *self->plan);
    if (self->plan == NULL)
        goto fail;
    *self->plan = *plan;
    self->workers = calloc(plan->workers, sizeof *self->workers);
    self->pauses = calloc(plan->workers + 2, sizeof *self->pauses);
    self->deaths = calloc(plan->workers + 2, sizeof *self->deaths);
    self->listeners = calloc(plan->listener_count + 1, sizeof *self->listeners);
    if (self->workers == NULL || self->pauses == NULL || self->deaths == NULL || self->listeners == NULL)
        goto fail;
    return self;

fail:
    self->source = -1; /* still the caller's */
    generation_free(self, 0);
    return NULL;
}

void generation_free(struct generation *generation, uint32_t lanes)
{
    if (generation == NULL)
        return;
    listeners_close(generation, lanes);
    if (generation->source >= 0)
        close(generation->source);
    free(generation->listeners);
    free(generation->deaths);
    free(generation->pauses);
    free(generation->workers);
    free(generation->plan);
    free(generation);
}

void generation_release(struct master *self, struct generation *generation)
{
    if (generation == self->running || generation == self->next)
        return;
    for (struct child *child = self->children; child != NULL; child = child->next)
        if (child->generation == generation)
            return;
    generation_free(generation, self->segment->lane_count);
}

static int assign_server(struct master *self, const struct plan_server *server, struct error *error)
{
    uint32_t slot = server_assign(self->segment, server->name, &server->address);

    if (slot == SEGMENT_NO_INDEX)
        return error_set(error, -ENOSPC, "no slot left for server %s: %u are taken, some by servers that drain",
                         server->name, SEGMENT_SERVERS);
    for (uint32_t i = 0; i < server->probe_count; i++)
        if (server_probe_assign(self->segment, slot, server->probes[i] >> 16, (uint16_t)server->probes[i]) ==
            SEGMENT_NO_INDEX)
            return error_set(error, -ENOSPC,
                             "server %s has more than %u probed ports, with those of the running configuration",
                             server->name, SEGMENT_PROBES);
    return 0;
}

#define NAMES (SEGMENT_POOLS + SEGMENT_SERVICES + SEGMENT_PROFILES)

static size_t add_identities(uint64_t *out, size_t count, const char *kind, const struct plan_name *names,
                             uint32_t more)
{
    for (uint32_t i = 0; i < more; i++)
        out[count++] = hash_identity(kind, names[i].name);
    return count;
}

static size_t add_names(uint64_t *out, size_t count, const struct plan *plan)
{
    count = add_identities(out, count, "pool", plan->pools, plan->pool_count);
    count = add_identities(out, count, "service", plan->services, plan->service_count);
    return add_identities(out, count, "profile", plan->profiles, plan->profile_count);
}

static const struct plan_server *plan_server(const struct plan *plan, const char *name)
{
    for (uint32_t i = 0; i < plan->server_count; i++)
        if (strcmp(plan->servers[i].name, name) == 0)
            return &plan->servers[i];
    return NULL;
}

static void free_probes(struct master *self, const struct plan_server *server)
{
    uint32_t slot = server_find(self->segment, server->name), kept[2 * SEGMENT_PROBES], count = 0;
    const struct plan_server *before = self->running != NULL ? plan_server(self->running->plan, server->name) : NULL;

    for (uint32_t i = 0; i < server->probe_count; i++)
        kept[count++] = server->probes[i];
    for (uint32_t i = 0; before != NULL && i < before->probe_count; i++)
        kept[count++] = before->probes[i];
    server_probes_free_others(self->segment, slot, kept, count);
}

/* What neither the running configuration nor this one names. Sessions and records name none of these slots. */
static void free_unnamed(struct master *self, const struct generation *generation)
{
    uint64_t kept[2 * NAMES];
    size_t count = add_names(kept, 0, generation->plan);

    if (self->running != NULL)
        count = add_names(kept, count, self->running->plan);
    names_free_others(self->segment, kept, count);
    for (uint32_t i = 0; i < generation->plan->server_count; i++)
        free_probes(self, &generation->plan->servers[i]);
}

/* A slot of neither this configuration nor the running one is given away when the table is full, if no session and no
 * record names it. */
static int assign_sources(struct master *self, const struct plan *plan, struct error *error)
{
    const struct plan *running = self->running != NULL ? self->running->plan : NULL;
    struct hp_endpoint kept[2 * SEGMENT_SOURCES];
    size_t count = plan->source_count;

    memcpy(kept, plan->sources, plan->source_count * sizeof *kept);
    if (running != NULL) {
        memcpy(kept + count, running->sources, running->source_count * sizeof *kept);
        count += running->source_count;
    }
    for (uint32_t i = 0; i < plan->source_count; i++)
        if (source_assign(self->segment, &plan->sources[i], kept, count) == SEGMENT_NO_INDEX)
            return error_set(error, -ENOSPC,
                             "no slot left for a source address: %u are taken, some by addresses that have left the "
                             "file but still have clients",
                             SEGMENT_SOURCES - 1);
    return 0;
}

static int assign_names(struct master *self, const struct plan *plan, struct error *error)
{
    for (uint32_t i = 0; i < plan->server_count; i++) {
        int status = assign_server(self, &plan->servers[i], error);
        if (status < 0)
            return status;
    }
    for (uint32_t i = 0; i < plan->pool_count; i++)
        if (pool_assign(self->segment, plan->pools[i].name) == SEGMENT_NO_INDEX)
            return error_set(error, -ENOSPC, "no slot left for pool %s", plan->pools[i].name);
    for (uint32_t i = 0; i < plan->service_count; i++)
        if (service_assign(self->segment, plan->services[i].name) == SEGMENT_NO_INDEX)
            return error_set(error, -ENOSPC, "no slot left for service %s", plan->services[i].name);
    for (uint32_t i = 0; i < plan->profile_count; i++)
        if (profile_assign(self->segment, plan->profiles[i].name) == SEGMENT_NO_INDEX)
            return error_set(error, -ENOSPC, "no slot left for profile %s", plan->profiles[i].name);
    return assign_sources(self, plan, error);
}

int generation_assign(struct master *self, const struct generation *generation, struct error *error)
{
    if (self->running == NULL || !self->running->adopted) /* nobody knows what their configuration names */
        free_unnamed(self, generation);
    return assign_names(self, generation->plan, error);
}

int generation_restore(struct master *self, const struct generation *generation, struct error *error)
{
    const struct plan *plan = generation->plan;
    int status;

    if (self->next == NULL) /* else the names that are new in a reload would go as well */
        free_unnamed(self, generation);
    status = assign_names(self, plan, error);
    for (uint32_t i = 0; i < plan->server_count && status == 0; i++)
        server_set_state(self->segment, server_find(self->segment, plan->servers[i].name),
                         (enum server_state)plan->servers[i].state, true);
    return status;
}

void generation_apply(struct master *self, const struct generation *generation)
{
    const struct plan *plan = generation->plan;
    bool configured[SEGMENT_SERVERS] = {false};

    for (uint32_t i = 0; i < plan->server_count; i++) {
        uint32_t slot = server_find(self->segment, plan->servers[i].name);

        if (slot == SEGMENT_NO_INDEX)
            continue;
        configured[slot] = true;
        server_set_address(self->segment, slot, &plan->servers[i].address);
        server_set_state(self->segment, slot, (enum server_state)plan->servers[i].state, true);
    }
    for (uint32_t i = 0; i < SEGMENT_SERVERS; i++)
        if (self->segment->servers[i].identity != 0 && !configured[i])
            server_set_state(self->segment, i, SERVER_DRAIN, false);
    for (uint32_t i = 0; i < SEGMENT_PROFILES; i++)
        self->segment->profiles[i].deaths = 0;
}
