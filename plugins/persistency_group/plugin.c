/* SPDX-License-Identifier: Apache-2.0 */
/* persistency_group: Citrix NetScaler's lb group. The profile is the group; a service joins by naming it. One record
 * per client for all members, whatever their protocol or address.
 *
 * A new flow claims its client's record in the group.
 * Fails: the server is not in this member's pool -> picked afresh, the record stays
 *        the server is at its limit              -> skip_persistency: none refuses, bypass serves elsewhere once, relb
 *                                                   moves the record
 *        no server may serve                     -> the host's answer is handed on */
#include <homeport/plugin.h>
#include <homeport/plugin_util.h>
#include <stdlib.h>

enum { TYPE, TIMEOUT, MASK, MASK6, PERSIST_MASK, V6_PERSIST_MASK_LEN, SKIP, OPTIONS };
enum { TYPE_SOURCE_IP, TYPE_NONE };
enum { SKIP_NONE, SKIP_BYPASS, SKIP_RELB };

static const struct hp_option options[OPTIONS] = {
    [TYPE] = {"persistence_type", HP_OPTION_CHOICE, 0, "source_ip", "source_ip|none",
              "What a record is kept for: the client's address, or nothing."},
    [TIMEOUT] = {"timeout", HP_OPTION_DURATION, 0, "2m", "1s..4000h",
                 "How long a record outlives its traffic (NetScaler counts whole minutes)."},
    [MASK] = {"mask", HP_OPTION_MASK4, 0, "255.255.255.255", NULL, "The part of an IPv4 address that is the client."},
    [MASK6] = {"mask6", HP_OPTION_MASK6, 0, "128", NULL, "The part of an IPv6 address that is the client."},
    [PERSIST_MASK] = {"persist_mask", HP_OPTION_MASK4, 0, NULL, NULL, "NetScaler's name of mask."},
    [V6_PERSIST_MASK_LEN] = {"v6_persist_mask_len", HP_OPTION_MASK6, 0, NULL, NULL, "NetScaler's name of mask6."},
    [SKIP] = {"skip_persistency", HP_OPTION_CHOICE, 0, "none", "none|bypass|relb",
              "When the record's server is at its limit: refuse the flow, serve it elsewhere this once, or move."},
};
static const char *const tables[] = {"clients"};

struct group {
    const struct hp_host *host;
    const struct hp_profile *profile;
    const struct hp_value *mask, *mask6; /* the alias where the user wrote it */
};

static int32_t client_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    const struct group *group = self;

    if (group->profile->values[TYPE].as.integer == TYPE_NONE)
        return HP_NOTHING;
    return (int32_t)hp_source_key(key, 0, &flow->client, group->mask, group->mask6);
}

static uint32_t flags_at_limit(int64_t skip_persistency)
{
    switch (skip_persistency) {
    case SKIP_BYPASS:
        return HP_CLAIM_KEEP;
    case SKIP_RELB:
        return 0;
    default:
        return HP_CLAIM_REFUSE;
    }
}

static int32_t claim_record(void *self, const struct hp_flow *flow)
{
    const struct group *group = self;
    const struct hp_value *values = group->profile->values;
    uint8_t key[HP_KEY_MAX];
    int32_t size = client_key(self, flow, key);
    struct hp_claim claim = {
        .size = sizeof claim, .key = key, .ttl_ms = hp_ttl(&values[TIMEOUT]), .prefer = HP_NOTHING};

    if (size < 0)
        return size;
    claim.key_size = (uint32_t)size;
    claim.flags = flags_at_limit(values[SKIP].as.integer);
    return group->host->claim(group->host, flow, &claim);
}

/* Which of the two names counts: the alias where it was written. */
static uint32_t effective(const struct hp_profile *profile, uint32_t name, uint32_t alias)
{
    return profile->values[alias].given ? alias : name;
}

static int check_alias(const struct hp_host *host, const struct hp_profile *profile, uint32_t name, uint32_t alias)
{
    if (!hp_written(&profile->values[name]) || !hp_written(&profile->values[alias]))
        return 0;
    hp_problem(host, HP_NO_SERVICE, alias, "%s and %s are two names of one option: write one of them",
               options[name].name, options[alias].name);
    return -1;
}

/* Members that share records while their pools name different servers: NetScaler has no rule for it. */
static void warn_unequal_pools(const struct hp_host *host, const struct hp_profile *profile)
{
    for (uint32_t i = 1; i < profile->service_count; i++) {
        const struct hp_service *one = profile->services[i], *first = profile->services[0];
        if (one->servers_identity != first->servers_identity)
            hp_problem(host, one->id, HP_NO_OPTION,
                       "warning: %s and %s are in one group but have different servers: a client whose server is in "
                       "one pool alone is split; give all members the same servers",
                       one->name, first->name);
    }
}

static int check(const struct hp_host *host, const struct hp_profile *profile)
{
    int status = check_alias(host, profile, MASK, PERSIST_MASK);

    if (check_alias(host, profile, MASK6, V6_PERSIST_MASK_LEN) < 0)
        status = -1;
    if (profile->values[TYPE].as.integer == TYPE_NONE)
        hp_problem(host, HP_NO_SERVICE, TYPE,
                   "warning: persistence_type none keeps no records: a client's ports may go to different servers");
    else
        warn_unequal_pools(host, profile);
    return status;
}

static void *group_create(const struct hp_host *host, const struct hp_profile *profile)
{
    struct group *group = malloc(sizeof *group);

    if (group == NULL) {
        hp_problem(host, HP_NO_SERVICE, HP_NO_OPTION, "no memory");
        return NULL;
    }
    group->host = host;
    group->profile = profile;
    group->mask = &profile->values[effective(profile, MASK, PERSIST_MASK)];
    group->mask6 = &profile->values[effective(profile, MASK6, V6_PERSIST_MASK_LEN)];
    return group;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR,
    .abi_minor = HP_ABI_MINOR,
    .size = sizeof hp_plugin_v1,
    .name = "persistency_group",
    .version = "1.0",
    .summary = "Citrix NetScaler: one record per client for all services of a group.",
    .author = "homeport",
    .options = options,
    .option_count = OPTIONS,
    .option_size = sizeof(struct hp_option),
    .tables = tables,
    .table_count = 1,
    .ttl_option = TIMEOUT,
    .check = check,
    .create = group_create,
    .destroy = free,
    .derive_key = client_key,
    .select = claim_record,
};
