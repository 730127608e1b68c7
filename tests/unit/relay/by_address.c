/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest plugin: a client is its IPv4 address, over all services. */
#include <homeport/plugin.h>

#include <string.h>

static const struct hp_option options[] = {{"timeout", HP_OPTION_DURATION, 0, "180s", NULL, "As everywhere."}};
static const char *const tables[] = {"clients"};

static int32_t key_of(void *self, const struct hp_flow *flow, uint8_t *key)
{
    (void)self;
    memcpy(key, flow->client.address, 4);
    return 4;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR,
    .abi_minor = HP_ABI_MINOR,
    .size = sizeof hp_plugin_v1,
    .name = "by_address",
    .version = "1.0",
    .summary = "For tests.",
    .author = "homeport",
    .options = options,
    .option_count = 1,
    .option_size = sizeof(struct hp_option),
    .tables = tables,
    .table_count = 1,
    .ttl_option = 0,
    .derive_key = key_of,
};
