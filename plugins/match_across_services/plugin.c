/* SPDX-License-Identifier: Apache-2.0 */
/* match_across_services: F5 BIG-IP's source address affinity. A record belongs to a client and a scope, and the three
 * match options say how wide the scope is; it names a server, so that services with pools of their own agree on it.
 *
 * A new flow claims its client's record within the scope.
 * Fails: the server is not in this service's pool -> picked afresh, the record stays (match_across_pools: it serves)
 *        the server is at its limit               -> the record moves (override_connection_limit: it serves)
 *        no server may serve                      -> the host's answer is handed on */
#include <homeport/plugin.h>
#include <homeport/plugin_util.h>
#include <stdlib.h>

enum { TIMEOUT, MASK, MASK6, SERVICES, VIRTUALS, POOLS, OVERRIDE_LIMIT, OPTIONS };

static const struct hp_option options[OPTIONS] = {
    [TIMEOUT] = {"timeout", HP_OPTION_DURATION, 0, "180s", "1s..4000h",
                 "How long a record outlives its traffic; `never` is F5's `indefinite`."},
    [MASK] = {"mask", HP_OPTION_MASK4, 0, "255.255.255.255", NULL, "The part of an IPv4 address that is the client."},
    [MASK6] = {"mask6", HP_OPTION_MASK6, 0, "128", NULL, "The part of an IPv6 address that is the client."},
    [SERVICES] = {"match_across_services", HP_OPTION_BOOL, 0, "true", NULL,
                  "Services with the same listening address share a client's record (F5's own default: false)."},
    [VIRTUALS] = {"match_across_virtuals", HP_OPTION_BOOL, 0, "false", NULL,
                  "All services of the profile share a client's record, whatever address they listen on."},
    [POOLS] = {"match_across_pools", HP_OPTION_BOOL, 0, "false", NULL,
               "A record's server may serve even where a service's own pool does not name it."},
    [OVERRIDE_LIMIT] = {"override_connection_limit", HP_OPTION_BOOL, 0, "false", NULL,
                        "A client with a record may exceed its server's max_clients, never a service's."},
};
static const char *const tables[] = {"clients"};

struct affinity {
    const struct hp_host *host;
    const struct hp_profile *profile;
};

static uint64_t scope_of(const struct hp_profile *profile, const struct hp_service *service)
{
    if (profile->values[VIRTUALS].as.integer)
        return 0;
    return profile->values[SERVICES].as.integer ? service->listen_identity : service->identity;
}

static int32_t client_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    const struct affinity *affinity = self;
    const struct hp_profile *profile = affinity->profile;

    return (int32_t)hp_source_key(key, scope_of(profile, flow->service), &flow->client, &profile->values[MASK],
                                  &profile->values[MASK6]);
}

static int32_t claim_record(void *self, const struct hp_flow *flow)
{
    const struct affinity *affinity = self;
    const struct hp_value *values = affinity->profile->values;
    uint8_t key[HP_KEY_MAX];
    struct hp_claim claim = {
        .size = sizeof claim, .key = key, .ttl_ms = hp_ttl(&values[TIMEOUT]), .prefer = HP_NOTHING};

    claim.key_size = (uint32_t)client_key(self, flow, key);
    if (values[POOLS].as.integer)
        claim.flags |= HP_CLAIM_ANY_POOL;
    if (values[OVERRIDE_LIMIT].as.integer)
        claim.flags |= HP_CLAIM_OVER_LIMIT;
    return affinity->host->claim(affinity->host, flow, &claim);
}

/* Two services that share records while their pools name different servers: F5 accepts that in silence and picks
 * afresh, which is how a client's 500 and 4500 part. */
static void warn_unequal_pools(const struct hp_host *host, const struct hp_profile *profile)
{
    for (uint32_t i = 0; i < profile->service_count; i++) {
        const struct hp_service *one = profile->services[i];
        for (uint32_t j = 0; j < i; j++) {
            const struct hp_service *other = profile->services[j];
            if (scope_of(profile, one) != scope_of(profile, other) || one->servers_identity == other->servers_identity)
                continue;
            hp_problem(host, one->id, HP_NO_OPTION,
                       "warning: %s and %s share records but not their servers: a client whose server is in one pool "
                       "alone is split; give both the same servers, or set match_across_pools",
                       one->name, other->name);
            break;
        }
    }
}

static int check(const struct hp_host *host, const struct hp_profile *profile)
{
    const struct hp_value *values = profile->values;

    if (values[POOLS].as.integer) {
        if (!values[SERVICES].as.integer && !values[VIRTUALS].as.integer)
            hp_problem(host, HP_NO_SERVICE, POOLS,
                       "warning: match_across_pools does nothing while each service has records of its own: set "
                       "match_across_services or match_across_virtuals");
    } else
        warn_unequal_pools(host, profile);
    if (!values[SERVICES].as.integer && !values[VIRTUALS].as.integer && profile->service_count > 1)
        hp_problem(host, HP_NO_SERVICE, SERVICES,
                   "warning: with match_across_services off each service has records of its own, so a client's "
                   "ports may go to different servers; IKEv2 needs it on");
    return 0;
}

static void *affinity_create(const struct hp_host *host, const struct hp_profile *profile)
{
    struct affinity *affinity = malloc(sizeof *affinity);

    if (affinity == NULL) {
        hp_problem(host, HP_NO_SERVICE, HP_NO_OPTION, "no memory");
        return NULL;
    }
    affinity->host = host;
    affinity->profile = profile;
    return affinity;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR,
    .abi_minor = HP_ABI_MINOR,
    .size = sizeof hp_plugin_v1,
    .name = "match_across_services",
    .version = "1.0",
    .summary = "F5 BIG-IP: source address affinity that matches across services.",
    .author = "homeport",
    .options = options,
    .option_count = OPTIONS,
    .option_size = sizeof(struct hp_option),
    .tables = tables,
    .table_count = 1,
    .ttl_option = TIMEOUT,
    .check = check,
    .create = affinity_create,
    .destroy = free,
    .derive_key = client_key,
    .select = claim_record,
};
