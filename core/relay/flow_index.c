/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/flow_index.h"

#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int flow_index_open(struct flow_index *index, uint32_t rows, const uint8_t secret[16])
{
    uint32_t size = 16;

    while (size < rows * 2u)
        size *= 2;
    index->places = malloc(size * sizeof *index->places);
    if (index->places == NULL)
        return -ENOMEM;
    memset(index->places, 0xff, size * sizeof *index->places); /* FLOW_NONE */
    index->mask = size - 1;
    index->secret = secret;
    return 0;
}

void flow_index_close(struct flow_index *index)
{
    free(index->places);
    index->places = NULL;
}

static uint32_t key_hash(const struct flow_index *index, const struct flow_key *key)
{
    return (uint32_t)hash_64(index->secret, key, sizeof *key);
}

/* The key's place, or the free one where it would stand. */
static uint32_t key_place(const struct flow_index *index, const struct flow_key *key, uint32_t hash)
{
    struct flow_key other;
    uint32_t at = hash & index->mask;

    for (;; at = (at + 1) & index->mask) {
        const struct flow_place *place = &index->places[at];
        if (place->row == FLOW_NONE)
            return at;
        if (place->hash != hash)
            continue;
        index->key_of(index->arg, place->row, &other);
        if (memcmp(&other, key, sizeof other) == 0)
            return at;
    }
}

uint32_t flow_index_find(const struct flow_index *index, const struct flow_key *key)
{
    return index->places[key_place(index, key, key_hash(index, key))].row;
}

void flow_index_add(struct flow_index *index, const struct flow_key *key, uint32_t row)
{
    uint32_t hash = key_hash(index, key);

    index->places[key_place(index, key, hash)] = (struct flow_place){.hash = hash, .row = row};
}

/* What stands behind a freed place moves up, so that no search ends too early and no tombs pile up. */
void flow_index_remove(struct flow_index *index, const struct flow_key *key)
{
    uint32_t hole = key_place(index, key, key_hash(index, key));
    uint32_t at = hole;

    if (index->places[hole].row == FLOW_NONE)
        return;
    for (;;) {
        at = (at + 1) & index->mask;
        if (index->places[at].row == FLOW_NONE)
            break;
        uint32_t wanted = index->places[at].hash & index->mask;
        if (((at - wanted) & index->mask) >= ((at - hole) & index->mask)) {
            index->places[hole] = index->places[at];
            hole = at;
        }
    }
    index->places[hole].row = FLOW_NONE;
}
