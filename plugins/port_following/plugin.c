/* SPDX-License-Identifier: Apache-2.0 */
/* port_following: KEMP LoadMaster's source IP persistence with port following. A service follows another: it takes the
 * server of the record that the client has there.
 *
 * Services that follow each other, both ways or round a longer cycle, have one scope: one record per client, whichever
 * port comes first. A service that follows one way looks for a record at the services that it follows, the end of the
 * chain first, and claims that one.
 * Fails: no record there yet       -> a record of its own: what comes later to the followed service is scheduled by
 *                                      itself and may part from it (KEMP's own gap: `check` warns, and it is counted)
 *        server is at its limit    -> the record moves
 *        no server may serve       -> the host's answer is handed on */
#include <homeport/plugin.h>
#include <homeport/plugin_util.h>
#include <stdlib.h>

enum { MODE, TIMEOUT, REFRESH, MASK, MASK6, FOLLOW, OPTIONS };
enum { REFRESH_TRAFFIC, REFRESH_NEW_FLOWS };
enum { FOLLOWED_WITHOUT_RECORD, COUNTERS };

static const struct hp_option options[OPTIONS] = {
    [MODE] = {"persistence_mode", HP_OPTION_CHOICE, 0, "source_ip", "source_ip", "What a record is kept for."},
    [TIMEOUT] = {"timeout", HP_OPTION_DURATION, 0, "6m", "1s..4000h",
                 "How long a record lives after its last refresh."},
    [REFRESH] = {"refresh", HP_OPTION_CHOICE, 0, "traffic", "traffic|new_flows",
                 "What refreshes a record: every datagram, or new flows alone (KEMP's own default)."},
    [MASK] = {"mask", HP_OPTION_MASK4, 0, "255.255.255.255", NULL, "The part of an IPv4 address that is the client."},
    [MASK6] = {"mask6", HP_OPTION_MASK6, 0, "128", NULL, "The part of an IPv6 address that is the client."},
    [FOLLOW] = {"follow", HP_OPTION_SERVICE, HP_OPTION_PER_SERVICE, NULL, NULL,
                "The service whose records this one takes its servers from; set it on both."},
};
static const struct hp_counter counters[COUNTERS] = {
    [FOLLOWED_WITHOUT_RECORD] = {"followed_without_record",
                                 "Decisions of a service that follows one way, with no record at what it follows."},
};
static const char *const tables[] = {"clients"};

struct following {
    const struct hp_host *host;
    const struct hp_profile *profile;
};

/* NULL: follows nobody. */
static const struct hp_service *followed_by(const struct hp_profile *profile, const struct hp_service *service)
{
    const struct hp_value *follow = &service->values[FOLLOW];

    return follow->given ? profile->services[follow->as.integer] : NULL;
}

/* The smallest identity of the services on the cycle through this one; its own when no cycle leads back to it. */
static uint64_t scope_of(const struct hp_profile *profile, const struct hp_service *service)
{
    const struct hp_service *other = followed_by(profile, service);
    uint64_t smallest = service->identity;

    for (uint32_t steps = 0; other != NULL && other != service; other = followed_by(profile, other)) {
        if (++steps == profile->service_count)
            return service->identity; /* walked into a cycle that the service is not on */
        if (other->identity < smallest)
            smallest = other->identity;
    }
    return other == service ? smallest : service->identity;
}

static uint32_t scoped_key(const struct following *following, const struct hp_flow *flow, uint64_t scope, uint8_t *key)
{
    const struct hp_value *values = following->profile->values;

    return hp_source_key(key, scope, &flow->client, &values[MASK], &values[MASK6]);
}

/* Explains: the record at the end of the chain, which is where a client that has one is found. */
static int32_t client_key(void *self, const struct hp_flow *flow, uint8_t *key)
{
    const struct following *following = self;
    const struct hp_profile *profile = following->profile;
    const struct hp_service *end = flow->service, *next;

    for (uint32_t steps = 0; steps < profile->service_count && (next = followed_by(profile, end)) != NULL; steps++)
        end = next;
    return (int32_t)scoped_key(following, flow, scope_of(profile, end), key);
}

/* The scope of the record that the flow joins: of all services along the chain, the last one with a record. */
static uint64_t scope_to_join(const struct following *following, const struct hp_flow *flow)
{
    const struct hp_profile *profile = following->profile;
    const struct hp_host *host = following->host;
    const uint64_t own = scope_of(profile, flow->service);
    const struct hp_service *next = flow->service;
    uint64_t seen = own, join = own;
    uint8_t key[HP_KEY_MAX];

    for (uint32_t steps = 0; steps < profile->service_count && (next = followed_by(profile, next)) != NULL; steps++) {
        uint64_t scope = scope_of(profile, next);
        if (scope == seen)
            continue; /* round the same cycle */
        seen = scope;
        if (host->get(host, 0, key, scoped_key(following, flow, scope, key), NULL) >= 0)
            join = scope;
    }
    if (seen != own && join == own)
        host->count(host, FOLLOWED_WITHOUT_RECORD, 1);
    return join;
}

static int32_t claim_record(void *self, const struct hp_flow *flow)
{
    const struct following *following = self;
    const struct hp_value *values = following->profile->values;
    uint8_t key[HP_KEY_MAX];
    struct hp_claim claim = {
        .size = sizeof claim, .key = key, .ttl_ms = hp_ttl(&values[TIMEOUT]), .prefer = HP_NOTHING};

    claim.key_size = scoped_key(following, flow, scope_to_join(following, flow), key);
    if (values[REFRESH].as.integer == REFRESH_NEW_FLOWS)
        claim.flags = HP_CLAIM_NEW_FLOWS;
    return following->host->claim(following->host, flow, &claim);
}

/* KEMP shows the menu only for services that can share records; here it is an error that says why. */
static int check_follow(const struct hp_host *host, const struct hp_profile *profile, const struct hp_service *service,
                        const struct hp_service *other)
{
    int status = 0;

    if (other == service) {
        hp_problem(host, service->id, FOLLOW, "%s follows itself: name the other service of the pair", service->name);
        return -1;
    }
    if (service->servers_identity != other->servers_identity) {
        hp_problem(host, service->id, FOLLOW,
                   "%s cannot follow %s: their pools have different servers; following needs "
                   "the same ones",
                   service->name, other->name);
        status = -1;
    }
    if (service->listen_identity != other->listen_identity) {
        hp_problem(host, service->id, FOLLOW,
                   "%s cannot follow %s: they listen on different addresses; following needs "
                   "the same one",
                   service->name, other->name);
        status = -1;
    }
    /* A chain onto a pair (SSTP -> IKE <-> NAT-T) is how it is meant: what must stay together is together. */
    if (status == 0 && scope_of(profile, service) != scope_of(profile, other) && followed_by(profile, other) == NULL)
        hp_problem(host, service->id, FOLLOW,
                   "warning: %s follows %s one way: a client that comes to %s first keeps a record of its "
                   "own there and may be split; set `follow: %s` at %s as well",
                   service->name, other->name, service->name, service->name, other->name);
    return status;
}

static int is_followed(const struct hp_profile *profile, const struct hp_service *service)
{
    for (uint32_t i = 0; i < profile->service_count; i++)
        if (followed_by(profile, profile->services[i]) == service)
            return 1;
    return 0;
}

static int check(const struct hp_host *host, const struct hp_profile *profile)
{
    int status = 0;

    for (uint32_t i = 0; i < profile->service_count; i++) {
        const struct hp_service *service = profile->services[i];
        const struct hp_service *other = followed_by(profile, service);
        if (other != NULL && check_follow(host, profile, service, other) < 0)
            status = -1;
        if (other == NULL && profile->service_count > 1 && !is_followed(profile, service))
            hp_problem(host, service->id, HP_NO_OPTION,
                       "warning: %s neither follows a service nor is followed: its clients are scheduled without "
                       "regard to the profile's other services; set `follow`",
                       service->name);
    }
    return status;
}

static void *following_create(const struct hp_host *host, const struct hp_profile *profile)
{
    struct following *following = malloc(sizeof *following);

    if (following == NULL) {
        hp_problem(host, HP_NO_SERVICE, HP_NO_OPTION, "no memory");
        return NULL;
    }
    following->host = host;
    following->profile = profile;
    return following;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR,
    .abi_minor = HP_ABI_MINOR,
    .size = sizeof hp_plugin_v1,
    .name = "port_following",
    .version = "1.0",
    .summary = "KEMP LoadMaster: source IP persistence with port following.",
    .author = "homeport",
    .options = options,
    .option_count = OPTIONS,
    .option_size = sizeof(struct hp_option),
    .counters = counters,
    .counter_count = COUNTERS,
    .tables = tables,
    .table_count = 1,
    .ttl_option = TIMEOUT,
    .check = check,
    .create = following_create,
    .destroy = free,
    .derive_key = client_key,
    .select = claim_record,
};
