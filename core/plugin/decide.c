/* SPDX-License-Identifier: Apache-2.0 */
/* One decision. Happy path: the profile's plugin answers with the server of a claim.
 * Else:
 *   the service has no profile            -> the scheduler, for each flow
 *   profile quarantined, HP_FAILED, or an
 *     answer that the ABI does not know   -> on_failure: the scheduler, or a new flow is refused
 *   a server that may not serve           -> asked once more with attempt 1 (select alone); then the scheduler
 *   no key, HP_NOTHING                    -> the scheduler without a record
 *   HP_REFUSE                             -> the datagram is refused
 *   the service's max_clients is reached  -> a new client is refused
 *   no server may serve                   -> the datagram is refused
 * A live session that only asks anew keeps its own server wherever the scheduler would be asked, while that server may
 * still serve. Whatever is refused has been counted here. */
#include "plugin/host.h"

#define VERDICT_UNKNOWN (-4) /* first number below the ABI's answers */

static const char *const reason_names[] = {
    [DECISION_NEW_RECORD] = "new client",
    [DECISION_RECORD] = "record",
    [DECISION_MOVED] = "record moved",
    [DECISION_PUT_BACK] = "record put back",
    [DECISION_NO_RECORD] = "no record",
    [DECISION_TABLE_FULL] = "record table full",
    [DECISION_NO_SERVER] = "no server may serve",
    [DECISION_REFUSED_PLUGIN] = "refused by the plugin",
    [DECISION_REFUSED_FULL] = "no room for a record",
    [DECISION_REFUSED_SERVICE_LIMIT] = "max_clients of the service",
};

const char *decision_reason_name(enum decision_reason reason)
{
    return (unsigned)reason < sizeof reason_names / sizeof *reason_names ? reason_names[reason] : "unknown";
}

void call_begin(struct call *call, const struct decider *decider, const struct instance *instance,
                const struct decision_request *request)
{
    const struct ike_datagram *datagram = request->datagram;

    *call = (struct call){.request = request,
                          .service = decider->topology != NULL ? &decider->topology->services[request->service] : NULL,
                          .claimed_server = -1,
                          .record = SEGMENT_NO_INDEX,
                          .got_server = -1};
    call->flow = (struct hp_flow){.size = sizeof call->flow,
                                  .client = *request->client,
                                  .local = *request->local,
                                  .server = request->own_server >= 0 ? request->own_server : HP_NOTHING,
                                  .proven = request->proven};
    call->new_sa = decider->config->services[request->service].ike && datagram != NULL && ike_is_new_sa(datagram);
    if (instance != NULL && instance->values != NULL)
        call->flow.service = instance->values->view.services[instance->values->ids[request->service]];
    if (datagram == NULL)
        return;
    call->flow.data = datagram->data;
    call->flow.data_size = datagram->size;
    call->flow.esp_spi = datagram->esp_spi;
    if (datagram->kind == IKE_MESSAGE)
        call->flow.ike = &datagram->header;
}

static void refused(struct decider *decider, struct decision *out, enum decision_reason reason)
{
    *out = (struct decision){.server = -1, .reason = reason, .record = SEGMENT_NO_INDEX};
    switch (reason) {
    case DECISION_NO_SERVER:
        counter_add(decider->process, COUNTER_refused_no_server, 1);
        break;
    case DECISION_REFUSED_SERVICE_LIMIT:
        counter_add(decider->process, COUNTER_refused_service_limit, 1);
        break;
    case DECISION_REFUSED_PLUGIN:
        counter_add(decider->process, COUNTER_refused_by_plugin, 1);
        break;
    case DECISION_REFUSED_FULL: /* the claim has counted it */
    case DECISION_NEW_RECORD:
    case DECISION_RECORD:
    case DECISION_MOVED:
    case DECISION_PUT_BACK:
    case DECISION_NO_RECORD:
    case DECISION_TABLE_FULL:
        break;
    }
}

static void decided(struct decision *out, int32_t server)
{
    *out = (struct decision){.server = server, .reason = DECISION_NO_RECORD, .record = SEGMENT_NO_INDEX};
}

/* By the scheduler alone: each flow is a client of its own. */
static void decide_without_record(struct decider *decider, const struct call *call, struct decision *out)
{
    int32_t server;

    if (service_refuses(decider, call)) {
        refused(decider, out, DECISION_REFUSED_SERVICE_LIMIT);
        return;
    }
    server = server_pick(decider, call, HP_NOTHING, false, client_hash(call));
    if (server < 0) {
        refused(decider, out, DECISION_NO_SERVER);
        return;
    }
    if (server != call->request->own_server)
        topology_count_client(decider->topology, call->service, (uint32_t)server);
    decided(out, server);
}

static void decide_on_failure(const struct instance *instance, const struct call *call, struct decision *out)
{
    /* What is refused is a new flow; a live one was let in when the plugin still worked. */
    if (instance->config->on_failure == ON_FAILURE_REFUSE && !own_may_serve(instance->decider, call))
        refused(instance->decider, out, DECISION_REFUSED_PLUGIN);
    else
        decide_without_record(instance->decider, call, out);
}

static void count_failure(const struct instance *instance)
{
    counter_add(instance->decider->process, COUNTER_plugin_failures, 1);
}

/* The key of derive_key, claimed in the plugin's first table for the time that its ttl_option says. */
static int32_t ask_derive_key(struct instance *instance, struct call *call)
{
    const struct hp_plugin *descriptor = &instance->plugin->descriptor;
    uint8_t key[HP_KEY_MAX];
    struct hp_claim claim = {.size = sizeof claim, .key = key, .prefer = HP_NOTHING};
    int32_t size, server;
    int64_t ttl;

    instance_enter(instance, PLUGIN_DERIVE_KEY, NULL); /* pure: no host function has a flow in it */
    size = descriptor->derive_key(instance->self, &call->flow, key);
    instance_leave(instance);
    if (size == HP_NOTHING || size == HP_FAILED)
        return size;
    if (size <= 0 || size > (int32_t)HP_KEY_MAX)
        return VERDICT_UNKNOWN;
    ttl = call->flow.service->values[descriptor->ttl_option].as.integer;
    claim.key_size = (uint32_t)size;
    claim.ttl_ms = ttl < 0 || ttl == INT64_MAX ? UINT64_MAX : (uint64_t)ttl;
    instance->decider->call = call;
    server = claim_server(instance, &claim);
    instance->decider->call = NULL;
    return server;
}

static int32_t ask_select(struct instance *instance, struct call *call)
{
    int32_t verdict;

    instance_enter(instance, PLUGIN_SELECT, call);
    verdict = instance->plugin->descriptor.select(instance->self, &call->flow);
    instance_leave(instance);
    return verdict;
}

static int32_t ask_plugin(struct instance *instance, struct call *call)
{
    return instance->plugin->descriptor.select != NULL ? ask_select(instance, call) : ask_derive_key(instance, call);
}

/* A server that the plugin names by itself. One that get() gave it is judged as a record's server, any other as one for
 * a new key. */
static bool verdict_may_serve(struct decider *decider, const struct call *call, int32_t server)
{
    const struct topology_question question = {.heard = true, .new_sa = call->new_sa};
    const struct member *member = topology_member(call->service, (uint32_t)server);
    enum topology_answer answer;

    if (call->claimed && server == call->claimed_server)
        return true;
    if (server == call->request->own_server)
        return own_may_serve(decider, call);
    if (member == NULL)
        return false;
    if (server != call->got_server)
        return topology_takes_new(decider->topology, call->service, member);
    answer = topology_ask(decider->topology, call->service, (uint32_t)server, &question);
    return answer == TOPOLOGY_HONOUR || answer == TOPOLOGY_HONOUR_STILL;
}

/* The claim's server: its record is watched. The plugin's own choice: nothing is, so that record and session never
 * disagree. */
static void decide_server(struct decider *decider, const struct call *call, int32_t server, struct decision *out)
{
    decided(out, server);
    if (call->claimed && server == call->claimed_server) {
        out->reason = call->reason;
        out->record = call->record;
        out->watch = call->watch;
        out->flags = call->flags;
        out->heard = call->heard;
        return;
    }
    if (service_refuses(decider, call))
        refused(decider, out, DECISION_REFUSED_SERVICE_LIMIT);
    else if (server != call->request->own_server)
        topology_count_client(decider->topology, call->service, (uint32_t)server);
}

/* HP_NOTHING: where a claim said so, why it did is the reason. */
static void decide_nothing(struct decider *decider, const struct call *call, struct decision *out)
{
    if (!call->claimed)
        counter_add(decider->process, COUNTER_records_no_key, 1);
    decide_without_record(decider, call, out);
}

static void decide_refused(struct decider *decider, const struct call *call, struct decision *out)
{
    bool by_claim =
        call->claimed && (call->reason == DECISION_REFUSED_FULL || call->reason == DECISION_REFUSED_SERVICE_LIMIT);

    refused(decider, out, by_claim ? call->reason : DECISION_REFUSED_PLUGIN);
}

static void decide_by_plugin(struct instance *instance, struct call *call, struct decision *out)
{
    struct decider *decider = instance->decider;
    int32_t verdict = ask_plugin(instance, call);

    if (verdict >= 0 && !verdict_may_serve(decider, call, verdict)) {
        call->flow.attempt = 1;
        verdict = ask_plugin(instance, call);
    }
    if (verdict >= 0 && verdict_may_serve(decider, call, verdict)) {
        decide_server(decider, call, verdict, out);
    } else if (verdict >= 0) {
        count_failure(instance);
        decide_without_record(decider, call, out);
    } else if (verdict == HP_NOTHING) {
        decide_nothing(decider, call, out);
    } else if (verdict == HP_REFUSE) {
        decide_refused(decider, call, out);
    } else {
        count_failure(instance);
        decide_on_failure(instance, call, out);
    }
}

void decide(struct decider *decider, const struct decision_request *request, struct decision *out)
{
    int32_t profile = decider->config->services[request->service].profile;
    struct instance *instance = profile >= 0 ? &decider->instances[profile] : NULL;
    struct call call;

    counter_add(decider->process, COUNTER_decisions, 1);
    call_begin(&call, decider, instance, request);
    if (instance == NULL)
        decide_without_record(decider, &call, out);
    else if (instance_quarantined(instance))
        decide_on_failure(instance, &call, out);
    else
        decide_by_plugin(instance, &call, out);
}
