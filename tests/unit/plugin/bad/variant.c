/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin that is right but for what the build defines: one refusal each. */
#include <homeport/plugin.h>

#ifndef MAJOR
#define MAJOR HP_ABI_MAJOR
#endif
#ifndef MINOR
#define MINOR HP_ABI_MINOR
#endif
#ifndef SIZE
#define SIZE sizeof(struct hp_plugin)
#endif
#ifndef NEEDS
#define NEEDS 0
#endif
#ifndef NAME
#define NAME "variant"
#endif
#ifndef OPTION_NAME
#define OPTION_NAME "timeout"
#endif
#ifndef KIND
#define KIND HP_OPTION_DURATION
#endif
#ifndef FLAGS
#define FLAGS 0
#endif
#ifndef FALLBACK
#define FALLBACK "180s"
#endif
#ifndef OPTION_TABLE
#define OPTION_TABLE options
#endif
#ifndef OPTION_SIZE
#define OPTION_SIZE sizeof(struct hp_option)
#endif
#ifndef COUNTER_TABLE
#define COUNTER_TABLE counters
#endif
#ifndef TABLES
#define TABLES tables
#endif
#ifndef OBSERVES
#define OBSERVES 0
#endif
#ifndef TTL
#define TTL 0
#endif
#ifndef TICK
#define TICK 0
#endif
#ifndef DERIVE_KEY
#define DERIVE_KEY client_key
#endif

const struct hp_option options[1] = {{OPTION_NAME, KIND, FLAGS, FALLBACK, NULL, "How long."}};
const struct hp_counter counters[1] = {{"calls", "Calls."}};
const char *const tables[1] = {"clients"};

int32_t client_key(void *self, const struct hp_flow *flow, uint8_t *key);
int32_t client_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    (void)self;
    key[0] = flow->client.address[3];
    return 1;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = MAJOR,
    .abi_minor = MINOR,
    .size = SIZE,
    .needs_minor = NEEDS,
    .name = NAME,
    .version = "1.0",
    .options = OPTION_TABLE,
    .option_count = 1,
    .option_size = OPTION_SIZE,
    .counters = COUNTER_TABLE,
    .tables = TABLES,
    .counter_count = 1,
    .table_count = 1,
    .observes = OBSERVES,
    .ttl_option = TTL,
    .tick_ms = TICK,
    .derive_key = DERIVE_KEY,
};
