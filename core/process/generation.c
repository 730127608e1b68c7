/* SPDX-License-Identifier: Apache-2.0 */
#include "process/master.h"

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
    if (!plan_valid(self->plan)) /* once more, on our own copy: the original was in a stranger's reach */
        goto fail;
    self->workers = calloc(plan->workers, sizeof *self->workers);
    self->pauses = calloc(plan->workers + 1, sizeof *self->pauses);
    self->deaths = calloc(plan->workers + 1, sizeof *self->deaths);
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
            return error_set(error, -ENOSPC, "server %s has had more than %u probed ports since the segment was made",
                             server->name, SEGMENT_PROBES);
    return 0;
}

int generation_assign(struct master *self, const struct generation *generation, struct error *error)
{
    const struct plan *plan = generation->plan;

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
    return 0;
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
        server_set_state(self->segment, slot, (enum server_state)plan->servers[i].state, true);
    }
    for (uint32_t i = 0; i < SEGMENT_SERVERS; i++)
        if (self->segment->servers[i].identity != 0 && !configured[i])
            server_set_state(self->segment, i, SERVER_DRAIN, false);
    for (uint32_t i = 0; i < SEGMENT_PROFILES; i++)
        self->segment->profiles[i].deaths = 0;
}
