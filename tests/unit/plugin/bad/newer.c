/* SPDX-License-Identifier: Apache-2.0 */
/* Built against a later minor, whose structures are longer: loads, and what is newer is not used. */
#include <homeport/plugin.h>

struct newer_option {
    struct hp_option option;
    const char *unit;
};
static const struct newer_option options[2] = {
    {{"timeout", HP_OPTION_DURATION, 0x10000, "180s", NULL, "How long."}, "s"},
    {{"second", HP_OPTION_INTEGER, 0, "7", NULL, "Stepped to by option_size."}, "n"},
};

static int32_t client_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    (void)self;
    key[0] = flow->client.address[3];
    return 1;
}

struct newer_plugin {
    struct hp_plugin plugin;
    uint64_t tail[4];
};
extern HP_PLUGIN_EXPORT const struct newer_plugin newer __asm__("hp_plugin_v1");
const struct newer_plugin newer = {
    .plugin = {.abi_major = HP_ABI_MAJOR,
               .abi_minor = HP_ABI_MINOR + 3,
               .size = sizeof(struct newer_plugin),
               .name = "newer",
               .options = &options[0].option,
               .option_count = 2,
               .option_size = sizeof(struct newer_option),
               .observes = HP_OBSERVE_IKE_CLIENT | 0x80000,
               .derive_key = client_key},
    .tail = {0xa5a5a5a5a5a5a5a5u, 1, 2, 3},
};
