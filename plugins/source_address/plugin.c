/* SPDX-License-Identifier: Apache-2.0 */
/* source_address: the client's address, each service by itself. What the vendors' ways are measured against: a client's
 * port 500 and its port 4500 are unrelated here, so IKEv2 breaks as soon as two servers can be picked. */
#include <homeport/plugin.h>
#include <homeport/plugin_util.h>

enum { TIMEOUT, MASK, MASK6, OPTIONS };

static const struct hp_option options[OPTIONS] = {
    [TIMEOUT] = {"timeout", HP_OPTION_DURATION, 0, "180s", "1s..4000h", "How long a record outlives its traffic."},
    [MASK] = {"mask", HP_OPTION_MASK4, 0, "255.255.255.255", NULL, "The part of an IPv4 address that is the client."},
    [MASK6] = {"mask6", HP_OPTION_MASK6, 0, "128", NULL, "The part of an IPv6 address that is the client."},
};
static const char *const tables[] = {"clients"};

static int32_t source_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    const struct hp_profile *profile = self;

    return (int32_t)hp_source_key(key, flow->service->identity, &flow->client, &profile->values[MASK],
                                  &profile->values[MASK6]);
}

static int check(const struct hp_host *host, const struct hp_profile *profile)
{
    if (profile->service_count > 1)
        hp_problem(host, HP_NO_SERVICE, HP_NO_OPTION,
                   "warning: source_address gives each service records of its own, so a client's ports may go to "
                   "different servers, which breaks IKEv2; take match_across_services, port_following or "
                   "persistency_group");
    return 0;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR,
    .abi_minor = HP_ABI_MINOR,
    .size = sizeof hp_plugin_v1,
    .name = "source_address",
    .version = "1.0",
    .summary = "The client's address, each service by itself (breaks IKEv2: use one of the others).",
    .author = "homeport",
    .options = options,
    .option_count = OPTIONS,
    .option_size = sizeof(struct hp_option),
    .tables = tables,
    .table_count = 1,
    .ttl_option = TIMEOUT,
    .check = check,
    .derive_key = source_key,
};
