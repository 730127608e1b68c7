/* SPDX-License-Identifier: Apache-2.0 */
/* Flow -> row of one lane. Open addressing with linear probing, keyed by a secret of this process: clients choose
 * their addresses and ports. Never holds more than half of its places, never grows. */
#ifndef RELAY_FLOW_INDEX_H
#define RELAY_FLOW_INDEX_H

#include <homeport/plugin.h>
#include <stdint.h>

#define FLOW_NONE UINT32_MAX

struct flow_key { /* compared and hashed as octets: no padding, unused parts zero */
    uint64_t service;
    struct hp_endpoint client;
    uint8_t local[16];
};
_Static_assert(sizeof(struct flow_key) == 48, "no padding");

struct flow_place {
    uint32_t hash;
    uint32_t row; /* FLOW_NONE: free */
};
struct flow_index {
    struct flow_place *places;
    uint32_t mask;
    const uint8_t *secret;
    /* The key of a row, read from the segment: the index holds no copy. */
    void (*key_of)(const void *arg, uint32_t row, struct flow_key *key);
    const void *arg;
};

int flow_index_open(struct flow_index *index, uint32_t rows, const uint8_t secret[16]); /* 0 or -ENOMEM */
void flow_index_close(struct flow_index *index);
uint32_t flow_index_find(const struct flow_index *index, const struct flow_key *key);
void flow_index_add(struct flow_index *index, const struct flow_key *key, uint32_t row); /* the key is not in it */
void flow_index_remove(struct flow_index *index, const struct flow_key *key);

#endif
