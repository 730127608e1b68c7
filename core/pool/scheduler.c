/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's schedulers. Each picks among the members that may be picked now. The cursor lies in the segment, one for
 * all services and workers of the pool, and moves by one atomic add per pick: who only looks must not come here. */
#include "pool/scheduler.h"

#include <stdlib.h>

static uint32_t common_factor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Lowest terms; a sum that is still too long for a sequence is scaled down, nobody below 1. */
static void weights_reduce(uint32_t *weights, const struct topology_service *service)
{
    uint32_t factor = 0;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < service->member_count; i++)
        factor = common_factor(service->members[i].weight, factor);
    for (uint32_t i = 0; i < service->member_count; i++) {
        weights[i] = service->members[i].weight / factor;
        sum += weights[i];
    }
    for (uint32_t i = 0; sum > SEQUENCE_MAX && i < service->member_count; i++) {
        uint64_t share = (uint64_t)weights[i] * SEQUENCE_MAX / sum;
        weights[i] = share > 0 ? (uint32_t)share : 1;
    }
}

/* Smooth: of weights 2 and 1 comes A B A, not A A B. Each turn everybody gains its weight, the richest serves and pays
 * the sum of all. */
static bool sequence_fill(struct scheduler *self, uint32_t member_count)
{
    int64_t *gained = calloc(member_count + 1u, sizeof *gained);
    uint32_t sum = 0;

    for (uint32_t i = 0; i < member_count; i++)
        sum += self->weights[i];
    self->sequence = calloc(sum + 1u, sizeof *self->sequence);
    if (gained == NULL || self->sequence == NULL) {
        free(gained);
        return false;
    }
    for (self->sequence_length = 0; self->sequence_length < sum; self->sequence_length++) {
        uint32_t richest = 0;

        for (uint32_t i = 0; i < member_count; i++) {
            gained[i] += self->weights[i];
            if (gained[i] > gained[richest])
                richest = i;
        }
        gained[richest] -= sum;
        self->sequence[self->sequence_length] = (uint16_t)richest;
    }
    free(gained);
    return true;
}

struct scheduler *scheduler_open(const struct topology_service *service)
{
    struct scheduler *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
    self->weights = calloc(service->member_count + 1u, sizeof *self->weights);
    self->maglev = calloc(MAGLEV_SIZE, sizeof *self->maglev);
    if (self->weights == NULL || self->maglev == NULL)
        goto fail;
    weights_reduce(self->weights, service);
    if (service->pool->scheduler == SCHEDULER_WEIGHTED_ROUND_ROBIN && !sequence_fill(self, service->member_count))
        goto fail;
    if (service->pool->scheduler == SCHEDULER_MAGLEV)
        maglev_fill(self, service);
    return self;

fail:
    scheduler_close(self);
    return NULL;
}

void scheduler_close(struct scheduler *scheduler)
{
    if (scheduler == NULL)
        return;
    free(scheduler->weights);
    free(scheduler->sequence);
    free(scheduler->maglev);
    free(scheduler);
}

static uint64_t cursor_take(struct topology *topology, const struct topology_service *service)
{
    return atomic_fetch_add_explicit(&topology->segment->pools[service->pool_slot].cursor, 1, memory_order_relaxed);
}

/* Whose turn is the n-th: everybody has weight turns, in the order of a list of turns. Without one, one after another.
 */
static uint64_t turns_of(const struct scheduler *scheduler, const struct candidates *candidates)
{
    uint64_t turns = 0;

    for (uint32_t i = 0; i < candidates->count; i++)
        turns += scheduler->weights[candidates->positions[i]];
    return turns;
}

/* Those that may not be picked lose their turns, the others keep theirs: the weights hold among who is left. */
static uint32_t pick_weighted(struct topology *topology, const struct topology_service *service,
                              const struct candidates *candidates)
{
    const struct scheduler *scheduler = service->scheduler;
    uint64_t turn = cursor_take(topology, service) % turns_of(scheduler, candidates);
    bool may[SEGMENT_SERVERS] = {false};

    for (uint32_t i = 0; i < candidates->count; i++)
        may[candidates->positions[i]] = true;
    for (uint32_t i = 0; i < scheduler->sequence_length; i++)
        if (may[scheduler->sequence[i]] && turn-- == 0)
            return scheduler->sequence[i];
    return candidates->positions[0];
}

/* Fewest clients for its weight; equals take turns. */
static uint32_t pick_least(struct topology *topology, const struct topology_service *service,
                           const struct candidates *candidates)
{
    struct candidates least = {.count = 0};
    uint64_t least_clients = 0, least_weight = 1;

    for (uint32_t i = 0; i < candidates->count; i++) {
        const struct member *member = &service->members[candidates->positions[i]];
        uint64_t clients = server_clients(topology, member->slot), weight = member->weight;

        if (least.count > 0 && clients * least_weight > least_clients * weight)
            continue;
        if (least.count > 0 && clients * least_weight < least_clients * weight)
            least.count = 0;
        least.positions[least.count++] = candidates->positions[i];
        least_clients = clients;
        least_weight = weight;
    }
    return least.positions[cursor_take(topology, service) % least.count];
}

static uint64_t random_next(struct topology *topology) /* xorshift64* */
{
    uint64_t state = topology->random_state;

    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    topology->random_state = state;
    return state * 0x2545f4914f6cdd1dull;
}

static uint32_t pick_random(struct topology *topology, const struct topology_service *service,
                            const struct candidates *candidates)
{
    const struct scheduler *scheduler = service->scheduler;
    uint64_t turn = (random_next(topology) >> 32) % turns_of(scheduler, candidates);
    uint32_t i = 0;

    while (turn >= scheduler->weights[candidates->positions[i]])
        turn -= scheduler->weights[candidates->positions[i++]];
    return candidates->positions[i];
}

/* The table's entry; one that may not be picked is passed over by steps that the hash gives, so that each key of a dead
 * server finds another for itself, and the same one on every balancer. */
static uint32_t pick_maglev(const struct topology_service *service, const struct candidates *candidates, uint64_t hash)
{
    struct scheduler *scheduler = service->scheduler;
    uint32_t entry = (uint32_t)(hash % MAGLEV_SIZE), step = 1u + (uint32_t)((hash >> 32) % (MAGLEV_SIZE - 1u));
    bool may[SEGMENT_SERVERS] = {false};

    if (!scheduler->maglev_filled)
        maglev_fill(scheduler, service);
    for (uint32_t i = 0; i < candidates->count; i++)
        may[candidates->positions[i]] = true;
    for (uint32_t i = 0; i < MAGLEV_SIZE; i++, entry = (entry + step) % MAGLEV_SIZE)
        if (may[scheduler->maglev[entry]])
            return scheduler->maglev[entry];
    return candidates->positions[0];
}

static uint32_t pick(struct topology *topology, const struct topology_service *service,
                     const struct candidates *candidates, uint64_t hash)
{
    switch (service->pool->scheduler) {
    case SCHEDULER_ROUND_ROBIN:
        return candidates->positions[cursor_take(topology, service) % candidates->count];
    case SCHEDULER_WEIGHTED_ROUND_ROBIN:
        return pick_weighted(topology, service, candidates);
    case SCHEDULER_LEAST_CLIENTS:
        return pick_least(topology, service, candidates);
    case SCHEDULER_RANDOM:
        return pick_random(topology, service, candidates);
    case SCHEDULER_MAGLEV:
        return pick_maglev(service, candidates, hash);
    }
    return candidates->positions[0];
}

int32_t topology_schedule(struct topology *topology, const struct topology_service *service, uint64_t hash)
{
    struct candidates candidates;

    candidates_collect(topology, service, &candidates);
    if (candidates.count == 0)
        return -1;
    return (int32_t)service->members[pick(topology, service, &candidates, hash)].slot;
}

int32_t topology_maglev(struct topology *topology, const struct topology_service *service, uint64_t hash)
{
    struct candidates candidates;

    candidates_collect(topology, service, &candidates);
    if (candidates.count == 0)
        return -1;
    return (int32_t)service->members[pick_maglev(service, &candidates, hash)].slot;
}
