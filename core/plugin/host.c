/* SPDX-License-Identifier: Apache-2.0 */
/* What a plugin may ask its host. Every function is safe with any argument: what is nonsense, or asked at a time when
 * there is no flow, is answered as if there were nothing. */
#include "plugin/host.h"

#include <stdio.h>
#include <string.h>

#define LOG_LINES 10u       /* a second and profile */
#define CLAIM_SIZE_1_0 40u  /* of struct hp_claim in ABI 1.0 */
#define RECORD_SIZE_1_0 32u /* of struct hp_record */
#define UNKNOWN_FLAGS                                                                                                  \
    (0xffffu & ~(HP_CLAIM_OVER_LIMIT | HP_CLAIM_KEEP | HP_CLAIM_REFUSE | HP_CLAIM_ANY_POOL | HP_CLAIM_NEW_FLOWS))
#define RETRIES 16 /* of one record that others change at the same moment */

static struct instance *instance_of(const struct hp_host *host)
{
    return (struct instance *)(uintptr_t)host; /* its first member; ours, so not const */
}

static void host_problem(const struct hp_host *host, uint32_t service, uint32_t option, const char *text)
{
    struct instance *instance = instance_of(host);

    if (text == NULL)
        text = "a problem without a text";
    snprintf(instance->problem_text, sizeof instance->problem_text, "%s", text);
    instance->problem_at = profile_values_position(instance->values, service, option);
    if (instance->diagnostics != NULL)
        profile_values_problem(instance->values, instance->diagnostics, service, option, text);
}

static enum log_level level_of(int level)
{
    if (level <= 3)
        return LOG_ERROR;
    if (level == 4)
        return LOG_WARNING;
    return level <= 6 ? LOG_INFO : LOG_DEBUG;
}

static void host_log(const struct hp_host *host, int level, const char *text)
{
    struct instance *instance = instance_of(host);
    struct decider *decider = instance->decider;

    if (decider == NULL || decider->log == NULL || text == NULL)
        return;
    if (decider->now_ms / 1000 != instance->log_second) {
        if (instance->log_dropped > 0)
            log_write(decider->log, LOG_WARNING, "profile %s: %u lines of its plugin left out (more than %u a second)",
                      instance->config->name, instance->log_dropped, LOG_LINES);
        instance->log_second = decider->now_ms / 1000;
        instance->log_lines = instance->log_dropped = 0;
    }
    if (instance->log_lines++ >= LOG_LINES) {
        instance->log_dropped++;
        return;
    }
    log_write(decider->log, level_of(level), "profile %s: %s", instance->config->name, text);
}

static void host_count(const struct hp_host *host, uint32_t counter, uint64_t by)
{
    const struct instance *instance = instance_of(host);
    struct plugin_counter *entry;
    uint64_t value;

    if (instance->decider == NULL || instance->plugin == NULL || instance->counters == NULL ||
        counter >= instance->plugin->descriptor.counter_count || instance->counters[counter] == SEGMENT_NO_INDEX)
        return;
    entry = &instance->decider->process->plugin_counters[instance->counters[counter]];
    value = atomic_load_explicit(&entry->value, memory_order_relaxed); /* one writer */
    atomic_store_explicit(&entry->value, value + by, memory_order_relaxed);
}

static uint64_t host_now_ms(const struct hp_host *host)
{
    const struct instance *instance = instance_of(host);

    return instance->decider != NULL ? instance->decider->now_ms : 0;
}

/* The call with a flow that the plugin is in; NULL: in none. */
static struct call *flow_call(const struct instance *instance)
{
    struct decider *decider = instance->decider;

    return decider != NULL && decider->topology != NULL && decider->call != NULL && decider->call->request != NULL
               ? decider->call
               : NULL;
}

/* Our own copy, as long as both sides know it. */
static bool claim_copy(struct hp_claim *out, const struct instance *instance, const struct hp_claim *claim)
{
    if (claim->size < CLAIM_SIZE_1_0)
        return false;
    memset(out, 0, sizeof *out);
    memcpy(out, claim, claim->size < sizeof *out ? claim->size : sizeof *out);
    if ((out->flags & UNKNOWN_FLAGS) != 0)
        return false;
    return out->key != NULL && out->key_size > 0 && out->key_size <= HP_KEY_MAX &&
           out->table < instance->plugin->descriptor.table_count;
}

static int32_t host_claim(const struct hp_host *host, const struct hp_flow *flow, const struct hp_claim *claim)
{
    struct instance *instance = instance_of(host);
    struct hp_claim copy;

    if (flow == NULL || claim == NULL || flow_call(instance) == NULL)
        return HP_NOTHING;
    if (!claim_copy(&copy, instance, claim)) {
        counter_add(instance->decider->process, COUNTER_plugin_failures, 1);
        return HP_NOTHING;
    }
    return claim_server(instance, &copy);
}

static uint32_t now_s(const struct decider *decider)
{
    return decider->call != NULL && decider->call->request != NULL ? decider->call->request->now_s
                                                                   : (uint32_t)(decider->now_ms / 1000);
}

static bool key_make(struct record_key *out, const struct instance *instance, uint32_t table, const void *key,
                     uint32_t size)
{
    const struct decider *decider = instance->decider;

    if (decider == NULL || decider->segment == NULL || key == NULL || size == 0 || size > HP_KEY_MAX ||
        table >= instance->plugin->descriptor.table_count)
        return false;
    record_key_make(out, decider->segment, instance->identity, table, key, size);
    return true;
}

static bool find_live(const struct instance *instance, const struct record_key *key, struct record_ref *ref)
{
    const struct decider *decider = instance->decider;

    return record_find(decider->segment, key, ref) && !record_expired(decider->segment, ref, now_s(decider));
}

/* As much of it as both sides know. */
static void record_fill(const struct decider *decider, const struct record_ref *ref, struct hp_record *out)
{
    struct hp_record record = {.proven = RECORD_PROVEN(ref->value)};
    struct record_view view;

    if (out == NULL || out->size < RECORD_SIZE_1_0)
        return;
    if (record_read(decider->segment, ref->index, &view) &&
        RECORD_GENERATION(view.ref.value) == RECORD_GENERATION(ref->value))
        record.client = view.client;
    record.size = out->size;
    memcpy(out, &record, record.size < sizeof record ? record.size : sizeof record);
}

static int32_t host_get(const struct hp_host *host, uint32_t table, const void *key, uint32_t key_size,
                        struct hp_record *out)
{
    const struct instance *instance = instance_of(host);
    struct record_key fingerprint;
    struct record_ref ref;

    if (!key_make(&fingerprint, instance, table, key, key_size) || !find_live(instance, &fingerprint, &ref))
        return HP_NOTHING;
    if (instance->decider->call != NULL)
        instance->decider->call->got_server = (int32_t)RECORD_SERVER(ref.value);
    record_fill(instance->decider, &ref, out);
    return (int32_t)RECORD_SERVER(ref.value);
}

static bool server_exists(const struct decider *decider, int32_t server)
{
    return server >= 0 && server < (int32_t)SEGMENT_SERVERS &&
           (server_word(decider->segment, (uint32_t)server) & SERVER_CONFIGURED) != 0;
}

static struct record_origin origin_of(const struct instance *instance, uint64_t ttl_ms)
{
    const struct call *call = flow_call(instance);
    struct record_origin origin = {.timeout_s = record_seconds(ttl_ms), .profile = instance->identity};

    if (call != NULL) {
        origin.service = call->service->identity;
        origin.client = call->flow.client;
    }
    return origin;
}

static int host_put(const struct hp_host *host, uint32_t table, const void *key, uint32_t key_size, int32_t server,
                    uint64_t ttl_ms)
{
    const struct instance *instance = instance_of(host);
    struct decider *decider = instance->decider;
    struct record_key fingerprint;
    struct record_origin origin;
    struct record_ref ref;
    uint32_t evicted = 0;

    if (!key_make(&fingerprint, instance, table, key, key_size) || !server_exists(decider, server))
        return -1;
    origin = origin_of(instance, ttl_ms);
    for (int i = 0; i < RETRIES; i++) {
        enum record_result result =
            record_claim(decider->segment, decider->self, &fingerprint, (uint32_t)server, &origin, now_s(decider),
                         decider->config->when_full == WHEN_FULL_EVICT, &ref, &evicted);

        counter_add(decider->process, COUNTER_records_evicted, evicted);
        if (result == RECORD_CREATED)
            counter_add(decider->process, COUNTER_records_created, 1);
        if (result != RECORD_FOUND)
            return result == RECORD_CREATED ? 0 : -1;
        record_set_timeout(decider->segment, &ref, origin.timeout_s);
        if (RECORD_SERVER(ref.value) == (uint32_t)server
                ? record_touch(decider->segment, &ref, now_s(decider))
                : record_move(decider->segment, &ref, (uint32_t)server, now_s(decider)))
            return 0;
    }
    return -1;
}

static int host_touch(const struct hp_host *host, uint32_t table, const void *key, uint32_t key_size, uint64_t ttl_ms)
{
    const struct instance *instance = instance_of(host);
    struct record_key fingerprint;
    struct record_ref ref;

    if (!key_make(&fingerprint, instance, table, key, key_size))
        return -1;
    for (int i = 0; i < RETRIES && find_live(instance, &fingerprint, &ref); i++)
        if (record_touch(instance->decider->segment, &ref, now_s(instance->decider))) {
            record_set_timeout(instance->decider->segment, &ref, record_seconds(ttl_ms));
            return 0;
        }
    return -1;
}

static int host_del(const struct hp_host *host, uint32_t table, const void *key, uint32_t key_size)
{
    const struct instance *instance = instance_of(host);
    struct record_key fingerprint;
    struct record_ref ref;

    if (!key_make(&fingerprint, instance, table, key, key_size))
        return -1;
    for (int i = 0; i < RETRIES && record_find(instance->decider->segment, &fingerprint, &ref); i++)
        if (record_delete(instance->decider->segment, &ref))
            return 0;
    return -1;
}

static int32_t host_schedule(const struct hp_host *host, const struct hp_flow *flow)
{
    const struct instance *instance = instance_of(host);
    const struct call *call = flow_call(instance);

    if (flow == NULL || call == NULL)
        return HP_NOTHING;
    return topology_schedule(instance->decider->topology, call->service, client_hash(call));
}

static uint32_t host_server_state(const struct hp_host *host, const struct hp_flow *flow, int32_t server)
{
    const struct instance *instance = instance_of(host);
    const struct call *call = flow_call(instance);
    const struct member *member;
    uint32_t bits = HP_SERVER_KNOWN;

    if (flow == NULL || call == NULL || server < 0)
        return 0;
    member = topology_member(call->service, (uint32_t)server);
    if (member == NULL)
        return 0;
    if (topology_is_up(instance->decider->topology, member))
        bits |= HP_SERVER_UP;
    if (server_word_state(server_word(instance->decider->segment, member->slot)) == SERVER_ENABLED &&
        !topology_is_full(instance->decider->topology, member))
        bits |= HP_SERVER_TAKES_NEW;
    return bits;
}

static const void *host_extension(const struct hp_host *host, const char *name)
{
    (void)host;
    (void)name;
    return NULL;
}

void instance_init(struct instance *instance, const struct profile_values *values, struct diagnostics *diagnostics)
{
    memset(instance, 0, sizeof *instance);
    instance->host = (struct hp_host){.size = sizeof instance->host,
                                      .abi_minor = HP_ABI_MINOR,
                                      .version = HOMEPORT_VERSION,
                                      .problem = host_problem,
                                      .log = host_log,
                                      .count = host_count,
                                      .now_ms = host_now_ms,
                                      .claim = host_claim,
                                      .get = host_get,
                                      .put = host_put,
                                      .touch = host_touch,
                                      .del = host_del,
                                      .schedule = host_schedule,
                                      .server_state = host_server_state,
                                      .extension = host_extension};
    instance->values = values;
    instance->config = values != NULL ? values->profile : NULL;
    instance->diagnostics = diagnostics;
}
