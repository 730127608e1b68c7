/* SPDX-License-Identifier: Apache-2.0 */
/* Maglev's table (Eisenbud et al., NSDI 2016, section 3.4): each server has a permutation of all entries, made of two
 * hashes of its name; in turns each takes the first entry of its own that is still free, as many a turn as its weight.
 * A server that leaves gives its entries away and hardly any others change hands. */
#include "base/hash.h"
#include "pool/scheduler.h"

#include <stdlib.h>

struct turn { /* one server's walk through the entries */
    uint64_t identity;
    uint32_t entry, step;
    uint32_t weight;
    uint16_t position;
};

static int turn_compare(const void *a, const void *b)
{
    const struct turn *one = a, *other = b;

    return one->identity < other->identity ? -1 : one->identity > other->identity;
}

/* In the order of names' hashes: a pool that lists the same servers otherwise has the same table. */
static void turns_fill(struct turn *turns, const struct scheduler *scheduler, const struct topology_service *service)
{
    for (uint32_t i = 0; i < service->member_count; i++) {
        const char *name = service->members[i].config->name;

        turns[i] = (struct turn){
            .identity = hash_identity("server", name),
            .entry = (uint32_t)(hash_identity("maglev entry", name) % MAGLEV_SIZE),
            .step = 1u + (uint32_t)(hash_identity("maglev step", name) % (MAGLEV_SIZE - 1u)),
            .weight = scheduler->weights[i],
            .position = (uint16_t)i,
        };
    }
    qsort(turns, service->member_count, sizeof *turns, turn_compare);
}

static void entry_take(struct turn *turn, uint16_t *table, bool *taken)
{
    while (taken[turn->entry])
        turn->entry = (turn->entry + turn->step) % MAGLEV_SIZE;
    taken[turn->entry] = true;
    table[turn->entry] = turn->position;
}

void maglev_fill(struct scheduler *scheduler, const struct topology_service *service)
{
    struct turn turns[SEGMENT_SERVERS];
    bool taken[MAGLEV_SIZE] = {false};
    uint32_t left = MAGLEV_SIZE;

    if (service->member_count == 0)
        return; /* nobody asks for it either */
    turns_fill(turns, scheduler, service);
    while (left > 0)
        for (uint32_t i = 0; i < service->member_count; i++)
            for (uint32_t j = 0; j < turns[i].weight && left > 0; j++, left--)
                entry_take(&turns[i], scheduler->maglev, taken);
    scheduler->maglev_filled = true;
}
