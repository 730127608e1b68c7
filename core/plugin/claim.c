/* SPDX-License-Identifier: Apache-2.0 */
/* A claim: the record of a key, or a new one, in one atomic operation over all workers.
 *
 * Happy path: the record is there and its server may serve: it is extended, and its server is the answer. It is not
 * there: the scheduler picks, and the record is made.
 * Else, each with its counter:
 *   another made it at this very moment   -> start over: the winner's server
 *   it has expired                        -> as if gone: deleted, made anew
 *   gone, and a live session asks         -> the session's own server takes it again, if it may still serve
 *   its server may not serve (down, ...)  -> it moves: a live session's own server, `prefer`, the scheduler's
 *   this pool does not name its server    -> elsewhere without a record; the record stays
 *   its server is at its limit            -> by the claim's flags: over it, elsewhere, refused, or it moves
 *   the service is at its limit           -> a new client is refused, whatever the flags say
 *   no room in its bucket                 -> maglev over the key, no record; or refused (when_full)
 *   no server may serve                   -> HP_NOTHING, nothing written
 * A session that is alive is never refused by a limit. */
#include "base/hash.h"
#include "plugin/host.h"

#define AGAIN (-100)                 /* somebody changed the record meanwhile: look again */
#define TRIES 64                     /* then as if the table were full: nobody waits */
#define RECORD_SECONDS_MAX 0xffffffu /* half the circle of a record's clock */

struct claiming {
    struct instance *instance;
    struct decider *decider;
    struct call *call;
    const struct hp_claim *claim;
    struct record_key key;
    uint64_t hash; /* maglev's */
};

static const uint8_t maglev_key[16] = "homeport maglev1"; /* no secret: the same on every balancer */

uint64_t maglev_hash(const void *key, size_t size)
{
    return hash_64(maglev_key, key, size);
}

uint64_t client_hash(const struct call *call)
{
    return maglev_hash(call->flow.client.address, sizeof call->flow.client.address);
}

uint32_t record_seconds(uint64_t ttl_ms)
{
    uint64_t seconds = ttl_ms / 1000 + (ttl_ms % 1000 != 0);

    if (ttl_ms == UINT64_MAX)
        return UINT32_MAX;
    if (seconds == 0)
        return 1;
    return seconds < RECORD_SECONDS_MAX ? (uint32_t)seconds : RECORD_SECONDS_MAX;
}

bool own_may_serve(const struct decider *decider, const struct call *call)
{
    /* It is counted, and its flow is there already: neither limits nor pools are asked. */
    const struct topology_question question = {
        .any_pool = true, .heard = true, .new_sa = call->new_sa, .over_limit = true, .taken_out = true};
    enum topology_answer answer;

    if (call->request->own_server < 0)
        return false;
    answer = topology_ask(decider->topology, call->service, (uint32_t)call->request->own_server, &question);
    return answer == TOPOLOGY_HONOUR || answer == TOPOLOGY_HONOUR_STILL;
}

static bool preferred_may_serve(const struct decider *decider, const struct call *call, int32_t prefer, bool any_pool)
{
    const struct member *member;

    if (prefer < 0)
        return false;
    member = any_pool ? topology_member_anywhere(decider->topology, call->service, (uint32_t)prefer)
                      : topology_member(call->service, (uint32_t)prefer);
    return member != NULL && topology_takes_new(decider->topology, call->service, member);
}

int32_t server_pick(struct decider *decider, const struct call *call, int32_t prefer, bool any_pool, uint64_t hash)
{
    if (own_may_serve(decider, call))
        return call->request->own_server;
    if (preferred_may_serve(decider, call, prefer, any_pool))
        return prefer;
    return topology_schedule(decider->topology, call->service, hash);
}

bool service_refuses(struct decider *decider, const struct call *call)
{
    return call->request->own_server < 0 && topology_service_full(decider->topology, call->service);
}

static void count(const struct claiming *self, enum counter counter)
{
    counter_add(self->decider->process, counter, 1);
}

static bool has_flag(const struct claiming *self, uint32_t flag)
{
    return (self->claim->flags & flag) != 0;
}

static int32_t pick(const struct claiming *self)
{
    return server_pick(self->decider, self->call, self->claim->prefer, has_flag(self, HP_CLAIM_ANY_POOL), self->hash);
}

/* The answer, and what the session will watch. */
static int32_t settle(const struct claiming *self, int32_t server, enum decision_reason reason,
                      const struct record_ref *ref)
{
    struct call *call = self->call;

    call->claimed_server = server;
    call->reason = reason;
    call->record = ref != NULL ? ref->index : SEGMENT_NO_INDEX;
    call->watch = ref != NULL ? RECORD_DECISION(ref->value) : 0;
    call->flags = ref != NULL && has_flag(self, HP_CLAIM_NEW_FLOWS) ? SESSION_NEW_FLOWS : 0;
    call->heard = false;
    return server;
}

static int32_t refuse(const struct claiming *self, enum decision_reason reason)
{
    settle(self, -1, reason, NULL);
    return HP_REFUSE;
}

static int32_t no_server(const struct claiming *self)
{
    settle(self, -1, DECISION_NO_SERVER, NULL);
    return HP_NOTHING;
}

/* A live session's client is counted already. */
static void count_client(const struct claiming *self, int32_t server)
{
    if (self->call->request->own_server < 0)
        topology_count_client(self->decider->topology, self->call->service, (uint32_t)server);
}

static int32_t serve_without_record(const struct claiming *self, int32_t server, enum decision_reason reason)
{
    if (server < 0)
        return no_server(self);
    count_client(self, server);
    return settle(self, server, reason, NULL);
}

/* Room for no record: those that are there belong to proven clients, or nothing may be evicted. */
static int32_t claim_full(const struct claiming *self)
{
    bool own = own_may_serve(self->decider, self->call);

    if (!own && self->decider->config->when_full == WHEN_FULL_REFUSE) {
        count(self, COUNTER_refused_records_full);
        return refuse(self, DECISION_REFUSED_FULL);
    }
    count(self, COUNTER_records_table_full);
    return serve_without_record(self,
                                own ? self->call->request->own_server
                                    : topology_maglev(self->decider->topology, self->call->service, self->hash),
                                DECISION_TABLE_FULL);
}

static int32_t claim_new(const struct claiming *self)
{
    const struct decision_request *request = self->call->request;
    struct decider *decider = self->decider;
    const struct record_origin origin = {.timeout_s = record_seconds(self->claim->ttl_ms),
                                         .profile = self->instance->identity,
                                         .service = self->call->service->identity,
                                         .client = self->call->flow.client};
    struct record_ref ref;
    enum record_result result;
    uint32_t evicted = 0;
    int32_t server;

    if (service_refuses(decider, self->call))
        return refuse(self, DECISION_REFUSED_SERVICE_LIMIT);
    server = pick(self);
    if (server < 0)
        return no_server(self);
    result = record_claim(decider->segment, decider->self, &self->key, (uint32_t)server, &origin, request->now_s,
                          decider->config->when_full == WHEN_FULL_EVICT, &ref, &evicted);
    counter_add(decider->process, COUNTER_records_evicted, evicted);
    if (result == RECORD_FOUND)
        return AGAIN;
    if (result == RECORD_FULL)
        return claim_full(self);
    count_client(self, server);
    count(self, COUNTER_records_created);
    if (server != request->own_server)
        return settle(self, server, DECISION_NEW_RECORD, &ref);
    count(self, COUNTER_records_put_back);
    return settle(self, server, DECISION_PUT_BACK, &ref);
}

static int32_t claim_move(const struct claiming *self, struct record_ref *ref)
{
    int32_t server = pick(self);

    if (server < 0)
        return no_server(self);
    if (!record_move(self->decider->segment, ref, (uint32_t)server, self->call->request->now_s))
        return AGAIN;
    record_set_timeout(self->decider->segment, ref, record_seconds(self->claim->ttl_ms));
    count(self, COUNTER_records_moved);
    /* The old server's count stays until the next recount: too many for a second, never too few. */
    topology_count_client(self->decider->topology, self->call->service, (uint32_t)server);
    return settle(self, server, DECISION_MOVED, ref);
}

static int32_t claim_honour(const struct claiming *self, struct record_ref *ref, bool extend, bool heard)
{
    if (extend && !record_touch(self->decider->segment, ref, self->call->request->now_s))
        return AGAIN;
    /* A reload may have changed the profile's timeout. */
    record_set_timeout(self->decider->segment, ref, record_seconds(self->claim->ttl_ms));
    if (!heard)
        count_client(self, (int32_t)RECORD_SERVER(ref->value));
    settle(self, (int32_t)RECORD_SERVER(ref->value), DECISION_RECORD, ref);
    self->call->heard = heard;
    return self->call->claimed_server;
}

static int32_t claim_over_limit(const struct claiming *self, struct record_ref *ref)
{
    if (has_flag(self, HP_CLAIM_REFUSE))
        return refuse(self, DECISION_REFUSED_PLUGIN);
    if (has_flag(self, HP_CLAIM_KEEP))
        return serve_without_record(self, pick(self), DECISION_NO_RECORD);
    return claim_move(self, ref);
}

/* The record was written through this very pool, whose configuration has let its server go since. */
static bool was_taken_out(const struct claiming *self, const struct record_ref *ref)
{
    const struct topology *topology = self->decider->topology;
    struct record_view view;

    if (topology_member(self->call->service, RECORD_SERVER(ref->value)) != NULL ||
        !record_read(self->decider->segment, ref->index, &view))
        return false;
    for (uint32_t i = 0; i < topology->service_count; i++)
        if ((uint32_t)topology->services[i].identity == view.service)
            return topology->services[i].pool == self->call->service->pool;
    return false;
}

static int32_t claim_existing(const struct claiming *self, struct record_ref *ref)
{
    const struct decision_request *request = self->call->request;
    const struct topology_service *service = self->call->service;
    uint32_t server = RECORD_SERVER(ref->value);
    bool heard = record_age_s(ref->value, request->now_s) <= service->config->idle_ms / 1000 ||
                 request->own_server == (int32_t)server;
    const struct topology_question question = {.any_pool = has_flag(self, HP_CLAIM_ANY_POOL),
                                               .heard = heard,
                                               .new_sa = self->call->new_sa,
                                               .over_limit =
                                                   has_flag(self, HP_CLAIM_OVER_LIMIT) || request->own_server >= 0,
                                               .taken_out = was_taken_out(self, ref)};

    if (!heard && service_refuses(self->decider, self->call))
        return refuse(self, DECISION_REFUSED_SERVICE_LIMIT);
    switch (topology_ask(self->decider->topology, service, server, &question)) {
    case TOPOLOGY_HONOUR:
        /* A session that only asks anew is traffic, not a new flow. */
        return claim_honour(self, ref, !has_flag(self, HP_CLAIM_NEW_FLOWS) || request->own_server < 0, heard);
    case TOPOLOGY_HONOUR_STILL:
        return claim_honour(self, ref, false, heard);
    case TOPOLOGY_MOVE:
        return claim_move(self, ref);
    case TOPOLOGY_FOREIGN:
        count(self, COUNTER_records_foreign_pool);
        return serve_without_record(self, pick(self), DECISION_NO_RECORD);
    case TOPOLOGY_FULL:
        return claim_over_limit(self, ref);
    }
    return no_server(self);
}

static int32_t claim_try(const struct claiming *self)
{
    struct record_ref ref;

    if (!record_find(self->decider->segment, &self->key, &ref))
        return claim_new(self);
    if (!record_expired(self->decider->segment, &ref, self->call->request->now_s))
        return claim_existing(self, &ref);
    /* Made anew and not moved: its age, its client and "proven" are those of the client that comes now. */
    record_delete(self->decider->segment, &ref);
    return AGAIN;
}

int32_t claim_server(struct instance *instance, const struct hp_claim *claim)
{
    struct claiming self = {.instance = instance,
                            .decider = instance->decider,
                            .call = instance->decider->call,
                            .claim = claim,
                            .hash = maglev_hash(claim->key, claim->key_size)};
    int32_t server = AGAIN;

    record_key_make(&self.key, self.decider->segment, instance->identity, claim->table, claim->key, claim->key_size);
    self.call->claimed = true;
    for (int i = 0; i < TRIES && server == AGAIN; i++)
        server = claim_try(&self);
    return server == AGAIN ? claim_full(&self) : server;
}
