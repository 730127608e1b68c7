/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin that does what its options say, right or wrong. Built twice: with select, and (DERIVE) with derive_key. */
#include <homeport/plugin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BEHAVE, TIMEOUT, FLAGS, SERVER, CREATE, OPTIONS };
enum { CLAIM, NOTHING, REFUSE, FAILED, NONSENSE, NAME, STUBBORN, CRASH, RECORDS, CHATTER, BAD_CLAIM, SCHEDULE };
enum { CALLS, SIGHTS, ENDS, TICKS, COUNTERS };

static const struct hp_option options[OPTIONS] = {
    [BEHAVE] = {"behave", HP_OPTION_CHOICE, 0, "claim",
                "claim|nothing|refuse|failed|nonsense|name|stubborn|crash|records|chatter|bad_claim|schedule",
                "What an answer is."},
    [TIMEOUT] = {"timeout", HP_OPTION_DURATION, 0, "180s", "1s..4000h", "How long a record lives."},
    [FLAGS] = {"flags", HP_OPTION_INTEGER, 0, "0", "0..31", "Flags of the claim."},
    [SERVER] = {"server", HP_OPTION_INTEGER, 0, "-1", NULL, "Server to prefer or to name."},
    [CREATE] = {"create", HP_OPTION_BOOL, 0, "yes", NULL, "Whether create works."},
};
static const struct hp_counter counters[COUNTERS] = {
    {"calls", "Calls of select."}, {"sights", "Sights."}, {"ends", "Ends of sessions."}, {"ticks", "Ticks."}};
static const char *const tables[] = {"clients", "second"};

struct scripted {
    const struct hp_host *host;
    const struct hp_profile *profile;
};

static int64_t option_of(const struct scripted *self, uint32_t option)
{
    return self->profile->values[option].as.integer;
}

static int32_t client_key(void *context, const struct hp_flow *flow, uint8_t *key)
{
    const struct scripted *self = context;

    switch (option_of(self, BEHAVE)) {
    case NOTHING:
        return HP_NOTHING;
    case FAILED:
        return HP_FAILED;
    case NONSENSE:
        return HP_KEY_MAX + 1;
    default:
        memcpy(key, flow->client.address, 4);
        return 4;
    }
}

#ifndef DERIVE
static int32_t claim_server(const struct scripted *self, const struct hp_flow *flow)
{
    struct hp_claim claim = {.size = sizeof claim,
                             .flags = (uint32_t)option_of(self, FLAGS),
                             .key = flow->client.address,
                             .key_size = 4,
                             .ttl_ms = (uint64_t)option_of(self, TIMEOUT),
                             .prefer = (int32_t)option_of(self, SERVER)};

    return self->host->claim(self->host, flow, &claim);
}

/* Claims that no host may take. */
static int32_t claim_badly(const struct scripted *self, const struct hp_flow *flow)
{
    struct hp_claim claim = {.size = 8, .key = flow->client.address, .key_size = 4, .prefer = HP_NOTHING};

    if (self->host->claim(self->host, flow, &claim) != HP_NOTHING)
        return 0;
    claim.size = sizeof claim;
    claim.key_size = HP_KEY_MAX + 1;
    if (self->host->claim(self->host, flow, &claim) != HP_NOTHING)
        return 0;
    claim.key_size = 4;
    claim.table = 2;
    return self->host->claim(self->host, flow, &claim);
}

/* A plugin with records of its own: put, get, touch, del, and what must be refused. -100 - n: step n failed. */
static int32_t keep_records(const struct scripted *self, const struct hp_flow *flow)
{
    const struct hp_host *host = self->host;
    const uint8_t *key = flow->client.address;
    int32_t server = host->get(host, 1, key, 4, NULL);

    if (server >= 0)
        return host->touch(host, 1, key, 4, 60000) == 0 ? server : -101;
    if (host->put(host, 1, key, 4, 5000, 1000) == 0 || host->put(host, 9, key, 4, 0, 1000) == 0)
        return -102;
    if (host->get(host, 1, NULL, 4, NULL) != HP_NOTHING || host->del(host, 1, "nobody", 6) == 0)
        return -103;
    server = host->schedule(host, flow);
    if (host->server_state(host, flow, server) != (HP_SERVER_KNOWN | HP_SERVER_UP | HP_SERVER_TAKES_NEW))
        return -104;
    if (host->server_state(host, flow, 4000) != 0 || host->server_state(host, flow, -1) != 0)
        return -105;
    if (host->put(host, 1, key, 4, server, 60000) != 0 || host->get(host, 1, key, 4, NULL) != server)
        return -106;
    if (host->del(host, 1, key, 4) != 0 || host->get(host, 1, key, 4, NULL) != HP_NOTHING)
        return -107;
    if (host->extension(host, "homeport.none/1") != NULL || host->now_ms(host) == 0)
        return -108;
    return host->put(host, 1, key, 4, server, 60000) == 0 ? server : -109;
}

static int32_t chatter(const struct scripted *self)
{
    for (int i = 0; i < 25; i++) {
        char line[32];

        snprintf(line, sizeof line, "line %d", i);
        self->host->log(self->host, 4, line);
    }
    self->host->log(self->host, 4, NULL);
    self->host->count(self->host, 1000, 1);
    return HP_NOTHING;
}

static int32_t select_server(void *context, const struct hp_flow *flow)
{
    const struct scripted *self = context;

    self->host->count(self->host, CALLS, 1);
    switch (option_of(self, BEHAVE)) {
    case CLAIM:
        return claim_server(self, flow);
    case REFUSE:
        return HP_REFUSE;
    case NONSENSE:
        return -77;
    case NAME: /* sees the error of its way when it is asked again */
        return flow->attempt == 0 ? (int32_t)option_of(self, SERVER) : claim_server(self, flow);
    case STUBBORN:
        return (int32_t)option_of(self, SERVER);
    case CRASH:
        abort();
    case RECORDS:
        return keep_records(self, flow);
    case CHATTER:
        return chatter(self);
    case BAD_CLAIM:
        return claim_badly(self, flow);
    case SCHEDULE:
        return self->host->schedule(self->host, flow);
    default:
        return client_key(context, flow, (uint8_t[HP_KEY_MAX]){0});
    }
}
#endif

/* Learns from what it sees: the client's record, if it has none, names the server that it was seen at. */
static void observe(void *context, const struct hp_sight *sight)
{
    const struct scripted *self = context;
    struct hp_claim claim = {.size = sizeof claim,
                             .table = 1,
                             .key = sight->flow->client.address,
                             .key_size = 4,
                             .ttl_ms = UINT64_MAX,
                             .prefer = HP_NOTHING};

    if (self->host->claim(self->host, sight->flow, &claim) == sight->server)
        self->host->count(self->host, SIGHTS, 1);
}

static void session_end(void *context, const struct hp_flow *flow, int32_t server)
{
    const struct scripted *self = context;

    if (flow->data == NULL && server >= 0)
        self->host->count(self->host, ENDS, 1);
}

static void tick(void *context)
{
    const struct scripted *self = context;
    struct hp_claim claim = {.size = sizeof claim, .key = "k", .key_size = 1, .ttl_ms = 1000, .prefer = HP_NOTHING};

    if (self->host->claim(self->host, NULL, &claim) == HP_NOTHING) /* there is no flow in a tick */
        self->host->count(self->host, TICKS, 1);
}

static int check(const struct hp_host *host, const struct hp_profile *profile)
{
    if (profile->values[FLAGS].as.integer == 31)
        host->problem(host, UINT32_MAX, FLAGS, "all flags at once");
    if (profile->values[FLAGS].as.integer == 30)
        host->problem(host, 0, UINT32_MAX, "warning: nearly all flags");
    if (profile->values[FLAGS].as.integer == 29)
        host->problem(host, 77, 77, NULL);
    return profile->values[FLAGS].as.integer == 28 ? -1 : 0;
}

static void *scripted_create(const struct hp_host *host, const struct hp_profile *profile)
{
    struct scripted *self = malloc(sizeof *self);

    if (!profile->values[CREATE].as.integer || self == NULL) {
        host->problem(host, UINT32_MAX, CREATE, "the file of clients is gone");
        free(self);
        return NULL;
    }
    self->host = host;
    self->profile = profile;
    return self;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR,
    .abi_minor = HP_ABI_MINOR,
    .size = sizeof hp_plugin_v1,
    .name = "scripted",
    .version = "1.0",
    .summary = "Does what it is told.",
    .author = "homeport",
    .options = options,
    .option_count = OPTIONS,
    .option_size = sizeof(struct hp_option),
    .counters = counters,
    .counter_count = COUNTERS,
    .tables = tables,
    .table_count = 2,
    .observes = HP_OBSERVE_IKE_CLIENT,
    .observe_first = 3,
    .ttl_option = TIMEOUT,
    .tick_ms = 2000,
    .check = check,
    .create = scripted_create,
    .destroy = free,
    .derive_key = client_key,
#ifndef DERIVE
    .select = select_server,
#endif
    .observe = observe,
    .session_end = session_end,
    .tick = tick,
};
