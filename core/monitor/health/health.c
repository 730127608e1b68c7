/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: every `interval` a probe goes to each (server, protocol, port) that some service uses. The first answer
 * makes a server that nobody knew "up"; after that `rise` answers in a row bring it up and `fall` unanswered ones in a
 * row take it down. What was known when the monitor before us died is where we go on.
 * Fails: ICMP port unreachable, TCP: reset -> down at once
 *        UDP: silent, but it answered a client within interval x fall -> not taken down: probes and tunnels may share a
 *                                          source address, and servers go silent by address
 *        this machine cannot send       -> the state stays as it is, said once in the log
 *        no probe slot in the segment   -> not probed, counts as up
 *
 * Pools that share a probe may disagree about its rule: the pool with the shortest interval gives the whole rule
 * (time-out, rise, fall and source too), the first in the file of equals. A time-out longer than the interval is cut to
 * it: one probe at a time. */
#include "monitor/health/health.h"

#include "base/clock.h"
#include "base/hash.h"
#include "monitor/health/ike_probe.h"
#include "monitor/health/tcp_probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct check { /* one (server, protocol, port) */
    struct health *health;
    struct ike_probe *ike; /* one of both, by its protocol; NULL: not made yet */
    struct tcp_probe *tcp;
    uv_timer_t timer;
    uint32_t server, index; /* slot, and probe within it */
    uint16_t port;
    bool is_tcp;
    const struct config_health *rule;
    uint32_t answers; /* in a row */
    bool unsent;      /* the last one could not be sent, and the log says so */
};

struct health {
    struct monitor_context context;
    struct check *checks;
    uint32_t count;
    bool *all_down; /* by service: as the log has it */
    uint32_t open_handles;
    void (*closed)(void *arg);
    void *closed_arg;
};

static struct server_slot *server_of(const struct check *check)
{
    return &check->health->context.segment->servers[check->server];
}

static struct server_probe *state_of(const struct check *check)
{
    return &server_of(check)->probes[check->index];
}

static struct check *find_check(const struct health *self, uint32_t server, uint32_t index)
{
    for (uint32_t i = 0; i < self->count; i++)
        if (self->checks[i].server == server && self->checks[i].index == index)
            return &self->checks[i];
    return NULL;
}

bool health_probes(const struct health *health, uint32_t server, uint32_t probe)
{
    return find_check(health, server, probe) != NULL;
}

static void add_check(struct health *self, const struct topology_service *service, uint32_t server)
{
    const struct config_service *config = service->config;
    const struct config_health *rule = &service->pool->health;
    uint32_t index = server_probe_find(self->context.segment, server, config->protocol, config->server_port);
    struct check *check;

    if (index >= SEGMENT_PROBES || server >= SEGMENT_SERVERS)
        return;
    check = find_check(self, server, index);
    if (check != NULL) {
        if (rule->interval_ms < check->rule->interval_ms)
            check->rule = rule;
        return;
    }
    self->checks[self->count++] = (struct check){.health = self,
                                                 .server = server,
                                                 .index = index,
                                                 .port = config->server_port,
                                                 .is_tcp = config->check == CHECK_TCP,
                                                 .rule = rule};
}

static uint32_t most_checks(const struct topology *topology)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < topology->service_count; i++)
        count += topology->services[i].member_count;
    return count;
}

int health_open(struct health **out, const struct monitor_context *context, struct error *error)
{
    const struct topology *topology = context->topology;
    struct health *self = calloc(1, sizeof *self);

    if (self != NULL) {
        self->checks = calloc(most_checks(topology) + 1u, sizeof *self->checks);
        self->all_down = calloc(topology->service_count + 1u, sizeof *self->all_down);
    }
    if (self == NULL || self->checks == NULL || self->all_down == NULL) {
        free(self != NULL ? self->checks : NULL);
        free(self != NULL ? self->all_down : NULL);
        free(self);
        return error_set(error, -ENOMEM, "no memory for health checks");
    }
    self->context = *context;
    for (uint32_t i = 0; i < topology->service_count; i++)
        if (topology->services[i].config->check != CHECK_NONE)
            for (uint32_t j = 0; j < topology->services[i].member_count; j++)
                add_check(self, &topology->services[i], topology->services[i].members[j].slot);
    for (uint32_t i = 0; i < self->count; i++) {
        uv_timer_init(context->loop, &self->checks[i].timer);
        self->checks[i].timer.data = &self->checks[i];
    }
    *out = self;
    return 0;
}

static void handle_closed(struct health *self)
{
    if (--self->open_handles > 0)
        return;
    self->closed(self->closed_arg);
    free(self->checks);
    free(self->all_down);
    free(self);
}

static void on_probe_closed(void *arg)
{
    handle_closed(arg);
}

static void on_timer_closed(uv_handle_t *handle)
{
    handle_closed(((struct check *)handle->data)->health);
}

void health_close(struct health *health, void (*done)(void *arg), void *arg)
{
    if (health == NULL) {
        done(arg);
        return;
    }
    health->closed = done;
    health->closed_arg = arg;
    health->open_handles = 1; /* our own hand, until all have been asked */
    for (uint32_t i = 0; i < health->count; i++) {
        health->open_handles++;
        uv_close((uv_handle_t *)&health->checks[i].timer, on_timer_closed);
        if (health->checks[i].ike != NULL) {
            health->open_handles++;
            ike_probe_close(health->checks[i].ike, on_probe_closed, health);
        }
        if (health->checks[i].tcp != NULL) {
            health->open_handles++;
            tcp_probe_close(health->checks[i].tcp, on_probe_closed, health);
        }
    }
    handle_closed(health);
}

static void say_all_down(struct health *self)
{
    const struct topology *topology = self->context.topology;

    for (uint32_t i = 0; i < topology->service_count; i++) {
        const struct topology_service *service = &topology->services[i];
        bool now = topology_all_down(topology, service);

        if (now == self->all_down[i])
            continue;
        self->all_down[i] = now;
        if (now)
            log_write(self->context.log, LOG_ERROR, "service %s: no enabled server is up: %s", service->config->name,
                      health_all_down_text(service->pool));
        else
            log_write(self->context.log, LOG_INFO, "service %s: a server is up again", service->config->name);
    }
}

const char *health_all_down_text(const struct config_pool *pool)
{
    return pool->all_down == ALL_DOWN_SERVE ? "all count as up (all_down: serve)"
                                            : "new clients are refused (all_down: refuse)";
}

static const char *protocol_of(const struct check *check)
{
    return check->is_tcp ? "tcp" : "udp";
}

static void set_state(struct check *check, bool down, const char *reason)
{
    const struct monitor_context *context = &check->health->context;
    struct server_probe *state = state_of(check);
    char name[SEGMENT_NAME + 1];

    snprintf(state->reason, sizeof state->reason, "%s", reason);
    atomic_store_explicit(&state->since_ms, clock_now_ms(), memory_order_relaxed);
    atomic_store_explicit(&state->known, 1, memory_order_relaxed);
    server_set_down(context->segment, check->server, check->index, down);
    snprintf(name, sizeof name, "%.*s", (int)SEGMENT_NAME, server_of(check)->name);
    log_write(context->log, down ? LOG_WARNING : LOG_INFO, "server %s is %s on %s/%u: %s", name, down ? "down" : "up",
              protocol_of(check), check->port, reason);
    say_all_down(check->health);
}

static bool is_known(const struct check *check)
{
    return atomic_load_explicit(&state_of(check)->known, memory_order_relaxed) != 0;
}

static bool is_down(const struct check *check)
{
    uint64_t word = server_word(check->health->context.segment, check->server);

    return is_known(check) && (word >> check->index & 1u) != 0;
}

static void on_answered(struct check *check)
{
    struct server_probe *state = state_of(check);
    char reason[48];

    counter_add(check->health->context.process, COUNTER_probes_answered, 1);
    atomic_store_explicit(&state->answered_ms, clock_now_ms(), memory_order_relaxed);
    atomic_store_explicit(&state->failures, 0, memory_order_relaxed);
    if (check->answers < UINT32_MAX)
        check->answers++;
    snprintf(reason, sizeof reason, "answered %u probe%s in a row", check->answers, check->answers == 1 ? "" : "s");
    if (!is_known(check) || (is_down(check) && check->answers >= check->rule->rise))
        set_state(check, false, reason);
}

/* Within interval x fall? Then a silent probe alone proves nothing. Those were datagrams: of TCP they say nothing. */
static bool answered_a_client(const struct check *check)
{
    uint64_t answered = atomic_load_explicit(&server_of(check)->answered_ms, memory_order_relaxed);
    uint64_t now = clock_now_ms();

    return !check->is_tcp && answered != 0 && now - answered <= check->rule->interval_ms * check->rule->fall;
}

static void on_unanswered(struct check *check, const char *why)
{
    struct server_probe *state = state_of(check);
    uint32_t failures = atomic_load_explicit(&state->failures, memory_order_relaxed);
    char reason[sizeof state->reason];

    if (failures < UINT32_MAX)
        atomic_store_explicit(&state->failures, ++failures, memory_order_relaxed);
    check->answers = 0;
    if (is_down(check) || failures < check->rule->fall)
        return;
    if (answered_a_client(check)) {
        if (failures == check->rule->fall)
            log_write(check->health->context.log, LOG_INFO,
                      "server %.*s does not answer probes on udp/%u, but answers clients: not taken down",
                      (int)SEGMENT_NAME, server_of(check)->name, check->port);
        return;
    }
    if (why[0] != '\0')
        snprintf(reason, sizeof reason, "%s", why);
    else
        snprintf(reason, sizeof reason, "no answer to %u probe%s in a row", failures, failures == 1 ? "" : "s");
    set_state(check, true, reason);
}

static void on_refused(struct check *check, const char *why)
{
    struct server_probe *state = state_of(check);
    uint32_t failures = atomic_load_explicit(&state->failures, memory_order_relaxed);

    if (failures < UINT32_MAX)
        atomic_store_explicit(&state->failures, failures + 1, memory_order_relaxed);
    check->answers = 0;
    if (!is_down(check))
        set_state(check, true, why);
}

static void on_unsent(struct check *check, const char *why)
{
    if (!check->unsent)
        log_write(check->health->context.log, LOG_WARNING,
                  "cannot probe server %.*s on %s/%u: %s; its state stays as it is, see `health.source` of its pool",
                  (int)SEGMENT_NAME, server_of(check)->name, protocol_of(check), check->port, why);
    check->unsent = true;
}

static void on_result(void *arg, enum probe_result result, const char *why)
{
    struct check *check = arg;

    if (result == PROBE_UNSENT) {
        on_unsent(check, why);
        return;
    }
    check->unsent = false;
    switch (result) {
    case PROBE_ANSWERED:
        on_answered(check);
        break;
    case PROBE_REFUSED:
        on_refused(check, why);
        break;
    case PROBE_SILENT:
    case PROBE_FAILED:
        on_unanswered(check, why);
        break;
    case PROBE_UNSENT:
        break;
    }
}

/* false: no memory; the next turn tries again. */
static bool make_probe(struct check *check)
{
    struct probe_target target = {.server = server_of(check)->address, .source = check->rule->source};
    struct probe_events events = {.arg = check, .result = on_result};

    target.server.port = check->port;
    if (check->is_tcp && check->tcp == NULL)
        check->tcp = tcp_probe_open(check->health->context.loop, &target, &events);
    else if (!check->is_tcp && check->ike == NULL)
        check->ike = ike_probe_open(check->health->context.loop, &target, &events);
    return check->is_tcp ? check->tcp != NULL : check->ike != NULL;
}

static uint64_t interval_of(const struct check *check)
{
    return check->rule->interval_ms > 1 ? check->rule->interval_ms : 2;
}

static void on_timer(uv_timer_t *timer)
{
    struct check *check = timer->data;
    uint64_t timeout = check->rule->timeout_ms;

    if (!make_probe(check))
        return;
    counter_add(check->health->context.process, COUNTER_probes_sent, 1);
    /* Shorter than the interval by a hair, so that the result is there before the next probe. */
    timeout = timeout < interval_of(check) ? timeout : interval_of(check) - 1;
    if (check->is_tcp)
        tcp_probe_send(check->tcp, timeout);
    else
        ike_probe_send(check->ike, timeout);
}

/* What nobody probes any more is no longer down: `check: none`, or another port since the last configuration. */
static void forget_unprobed(struct health *self)
{
    struct segment *segment = self->context.segment;

    for (uint32_t i = 0; i < SEGMENT_SERVERS; i++)
        for (uint32_t j = 0; j < SEGMENT_PROBES && segment->servers[i].identity != 0; j++) {
            struct server_probe *probe = &segment->servers[i].probes[j];

            if (atomic_load_explicit(&probe->key, memory_order_relaxed) == 0 || health_probes(self, i, j))
                continue;
            if (server_word(segment, i) >> j & 1u)
                server_set_down(segment, i, j, false);
            atomic_store_explicit(&probe->known, 0, memory_order_relaxed);
            atomic_store_explicit(&probe->failures, 0, memory_order_relaxed);
        }
}

/* The first probe of each comes at a random moment of its interval, so that they do not go out in one burst for ever.
 */
void health_start(struct health *health)
{
    forget_unprobed(health);
    for (uint32_t i = 0; i < health->context.topology->service_count; i++) /* said by whom we follow */
        health->all_down[i] = topology_all_down(health->context.topology, &health->context.topology->services[i]);
    for (uint32_t i = 0; i < health->count; i++) {
        struct check *check = &health->checks[i];
        uint64_t interval = interval_of(check), random;

        hash_random(&random, sizeof random);
        if (!is_known(check) && (server_word(health->context.segment, check->server) >> check->index & 1u))
            server_set_down(health->context.segment, check->server, check->index, false);
        uv_timer_start(&check->timer, on_timer, random % interval, interval);
    }
}
