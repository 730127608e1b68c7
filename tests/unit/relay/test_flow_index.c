/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/flow_index.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 1000u

static struct flow_key keys[ROWS];

static void key_of(const void *arg, uint32_t row, struct flow_key *key)
{
    (void)arg;
    *key = keys[row];
}

static struct flow_key key_make(uint32_t number)
{
    struct flow_key key = {.service = 7, .client = {.family = 4, .port = (uint16_t)number}};

    memcpy(key.client.address, &number, 4);
    return key;
}

static void index_make(struct flow_index *index)
{
    static const uint8_t secret[16] = {1, 2, 3};

    cr_assert_eq(flow_index_open(index, ROWS, secret), 0);
    index->key_of = key_of;
    index->arg = NULL;
}

Test(flow_index, tells_flows_apart_by_each_part_of_the_key)
{
    struct flow_index index;
    struct flow_key other = key_make(1);

    index_make(&index);
    keys[0] = key_make(1);
    flow_index_add(&index, &keys[0], 0);
    cr_expect_eq(flow_index_find(&index, &other), 0);
    other.local[3] = 1;
    cr_expect_eq(flow_index_find(&index, &other), FLOW_NONE);
    other = key_make(1);
    other.service = 8;
    cr_expect_eq(flow_index_find(&index, &other), FLOW_NONE);
    other = key_make(1);
    other.client.port++;
    cr_expect_eq(flow_index_find(&index, &other), FLOW_NONE);
    flow_index_close(&index);
}

/* Against a plain array, full to the last row, in random order. */
Test(flow_index, agrees_with_a_plain_array_after_any_adds_and_removes)
{
    struct flow_index index;
    bool present[ROWS] = {false};
    unsigned seed = (unsigned)(getenv("SEED") != NULL ? atoi(getenv("SEED")) : 4711);

    index_make(&index);
    for (uint32_t i = 0; i < ROWS; i++)
        keys[i] = key_make(i * 2654435761u);
    for (uint32_t step = 0; step < 50000; step++) {
        uint32_t row = (uint32_t)rand_r(&seed) % ROWS;
        if (present[row])
            flow_index_remove(&index, &keys[row]);
        else
            flow_index_add(&index, &keys[row], row);
        present[row] = !present[row];
    }
    for (uint32_t i = 0; i < ROWS; i++)
        cr_expect_eq(flow_index_find(&index, &keys[i]), present[i] ? i : FLOW_NONE, "row %u, SEED=%u", i, seed);
    flow_index_close(&index);
}

Test(flow_index, removing_what_is_not_there_changes_nothing)
{
    struct flow_index index;
    struct flow_key stranger = key_make(99);

    index_make(&index);
    keys[0] = key_make(1);
    flow_index_add(&index, &keys[0], 0);
    flow_index_remove(&index, &stranger);
    cr_expect_eq(flow_index_find(&index, &keys[0]), 0);
    flow_index_close(&index);
}
