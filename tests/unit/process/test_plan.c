/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"
#include "process/plan.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct plan *small_plan(void)
{
    struct plan *plan = calloc(1, sizeof *plan);

    plan->magic = PLAN_MAGIC;
    plan->workers = 2;
    strcpy(plan->state, "/run/homeport");
    plan->records = plan->sessions = 1024;
    plan->log_level = LOG_INFO;
    plan->server_count = plan->pool_count = plan->service_count = plan->listener_count = 1;
    strcpy(plan->servers[0].name, "vpn1");
    plan->servers[0].address.family = 4;
    strcpy(plan->pools[0].name, "pool");
    strcpy(plan->services[0].name, "ike");
    strcpy(plan->listeners[0].service, "ike");
    plan->listeners[0].address.family = 4;
    plan->listeners[0].protocol = 17;
    return plan;
}

Test(plan, a_whole_one_is_believed)
{
    struct plan *plan = small_plan();

    cr_assert(plan_valid(plan));
    free(plan);
}

Test(plan, without_its_magic_is_not_believed)
{
    struct plan *plan = small_plan();

    plan->magic = 0;
    cr_assert_not(plan_valid(plan));
    free(plan);
}

Test(plan, counts_beyond_the_tables_are_not_believed)
{
    struct plan *plan = small_plan();
    uint32_t *counts[] = {&plan->server_count,  &plan->pool_count,     &plan->profile_count,
                          &plan->service_count, &plan->listener_count, &plan->workers};

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint32_t before = *counts[i];

        *counts[i] = UINT32_MAX;
        cr_assert_not(plan_valid(plan), "count %zu", i);
        *counts[i] = before;
    }
    cr_assert(plan_valid(plan));
    free(plan);
}

Test(plan, strings_without_an_end_are_not_believed)
{
    struct plan *plan = small_plan();

    memset(plan->state, 'x', sizeof plan->state);
    cr_assert_not(plan_valid(plan));
    strcpy(plan->state, "/run/homeport");
    memset(plan->servers[0].name, 'x', sizeof plan->servers[0].name);
    cr_assert_not(plan_valid(plan));
    free(plan);
}

/* The check child runs foreign code: whatever it leaves, judging it reads nothing outside (ASan watches). */
Test(plan, random_octets_are_judged_without_harm)
{
    struct plan *plan = small_plan();

    for (int i = 0; i < 50; i++) {
        hash_random(plan, sizeof *plan);
        plan->magic = PLAN_MAGIC;
        plan->workers = 2;
        plan->server_count = SEGMENT_SERVERS;
        cr_assert_not(plan_valid(plan));
    }
    free(plan);
}
