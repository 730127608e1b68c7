/* SPDX-License-Identifier: Apache-2.0 */
/* The verb status: is everything there that should be, and what has it done so far. `healthy` is what a container's
 * health check asks for. */
#include "monitor/control/requests.h"

#include "base/clock.h"
#include "base/endpoint.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

#define LOOP_STUCK_MS 5000u

static const char *role_name(uint32_t role)
{
    static const char *const names[] = {"none", "master", "worker", "monitor"};

    return role < sizeof names / sizeof names[0] ? names[role] : "unknown";
}

struct roll { /* the roll call */
    const struct segment *segment;
    uint64_t now_ms;
    json_t *processes, *reasons;
    bool healthy;
    bool master, monitor;
    bool workers[SEGMENT_PROCESSES], gone[SEGMENT_PROCESSES]; /* by number: one is there; one has died */
};

static void unhealthy(struct roll *roll, const char *what, const char *role, uint32_t number)
{
    roll->healthy = false;
    json_array_append_new(roll->reasons, number == SEGMENT_NO_INDEX ? json_sprintf("%s %s", role, what)
                                                                    : json_sprintf("%s %u %s", role, number, what));
}

static void call_process(struct roll *roll, uint32_t slot)
{
    const struct process_slot *process = &roll->segment->processes[slot];
    uint32_t role = atomic_load(&process->role), number = atomic_load(&process->number);
    int32_t pid = atomic_load(&process->pid);
    uint64_t started = atomic_load(&process->started_ms), turned = atomic_load(&process->loop_ms);
    uint64_t age = turned > started ? turned : started;
    bool there = pid > 0 && (kill(pid, 0) == 0 || errno != ESRCH), spare;

    if (role == PROCESS_NONE)
        return;
    age = age < roll->now_ms ? roll->now_ms - age : 0;
    started = started < roll->now_ms ? roll->now_ms - started : 0;
    spare = role == PROCESS_WORKER && number == SEGMENT_NO_INDEX;
    if (spare && !there) /* it holds nothing, so it ends with its master */
        return;
    json_array_append_new(roll->processes,
                          json_pack("{s:s, s:i, s:i, s:i, s:I, s:I}", "role", spare ? "spare" : role_name(role),
                                    "number", spare ? 0 : (int)number, "pid", (int)pid, "slot", (int)slot, "age_ms",
                                    (json_int_t)started, "loop_age_ms", (json_int_t)age));
    if (role != PROCESS_WORKER)
        number = SEGMENT_NO_INDEX;
    if (spare) /* nobody waits for it */
        return;
    if (!there && number < SEGMENT_PROCESSES)
        roll->gone[number] = true; /* of a reload's old ones, when there is another of that number */
    else if (!there)
        unhealthy(roll, "is gone", role_name(role), number);
    else if (age > LOOP_STUCK_MS)
        unhealthy(roll, "has not turned its loop for 5 s", role_name(role), number);
    roll->master |= role == PROCESS_MASTER;
    roll->monitor |= role == PROCESS_MONITOR;
    if (there && number < SEGMENT_PROCESSES)
        roll->workers[number] = true;
}

static void call_all(struct roll *roll, uint32_t workers)
{
    for (uint32_t i = 0; i < SEGMENT_PROCESSES; i++)
        call_process(roll, i);
    if (!roll->master)
        unhealthy(roll, "is missing", "master", SEGMENT_NO_INDEX);
    if (!roll->monitor)
        unhealthy(roll, "is missing", "monitor", SEGMENT_NO_INDEX);
    for (uint32_t i = 0; i < workers && i < SEGMENT_PROCESSES; i++)
        if (!roll->workers[i])
            unhealthy(roll, roll->gone[i] ? "is gone" : "is missing", "worker", i);
}

static json_t *counters_object(const struct segment *segment)
{
    json_t *object = json_object();

    for (int i = 0; i < COUNTER_COUNT; i++)
        json_object_set_new(object, counter_name((enum counter)i),
                            json_integer((json_int_t)counter_total(segment, (enum counter)i)));
    return object;
}

/* What each lane has refused or dropped: the lanes, and of each the reasons, that are not 0. */
static json_t *lanes_array(const struct segment *segment)
{
    json_t *array = json_array();

    for (uint32_t lane = 0; lane < segment->lane_count; lane++) {
        json_t *losses = json_object();

        for (int i = 0; i < LOSS_COUNT; i++) {
            uint64_t count = atomic_load_explicit(&segment->lanes[lane].losses[i], memory_order_relaxed);

            if (count != 0)
                json_object_set_new(losses, counter_name(lane_loss_counter((enum lane_loss)i)),
                                    json_integer((json_int_t)count));
        }
        if (json_object_size(losses) > 0)
            json_array_append_new(array, json_pack("{s:i, s:O}", "lane", (int)lane, "lost", losses));
        json_decref(losses);
    }
    return array;
}

/* Listeners are bound with IP_FREEBIND: one may wait for an address that comes later. */
static bool address_is_here(const struct hp_endpoint *endpoint)
{
    return endpoint_is_any(endpoint) || endpoint_look_for(endpoint) != 0;
}

static json_t *listeners_array(const struct config *config)
{
    json_t *array = json_array();

    for (uint32_t i = 0; i < config->service_count; i++)
        for (uint32_t j = 0; j < config->services[i].listen_count; j++) {
            const struct hp_endpoint *endpoint = &config->services[i].listen[j];

            json_array_append_new(array, json_pack("{s:s, s:o, s:s, s:b}", "service", config->services[i].name,
                                                   "address", json_address(endpoint), "protocol",
                                                   config->services[i].protocol == 6 ? "tcp" : "udp", "here",
                                                   address_is_here(endpoint)));
        }
    return array;
}

static json_t *quarantined_array(const struct segment *segment)
{
    json_t *array = json_array();

    for (uint32_t i = 0; i < SEGMENT_PROFILES; i++)
        if (segment->profiles[i].identity != 0 && atomic_load(&segment->profiles[i].quarantined) != 0)
            json_array_append_new(array, json_name(segment->profiles[i].name));
    return array;
}

static json_t *segment_object(const struct segment *segment, const struct recount_totals *totals)
{
    uint32_t held = 0;

    for (uint32_t i = 0; i < segment->lane_count; i++)
        held += atomic_load(&segment->lanes[i].holder) != SEGMENT_NO_INDEX;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "records", (json_int_t)totals->records, "records_capacity",
                     (json_int_t)segment->header->records, "sessions", (json_int_t)totals->sessions,
                     "sessions_capacity", (json_int_t)segment->lane_count * segment->rows_per_lane, "lanes",
                     (json_int_t)segment->lane_count, "lanes_held", (json_int_t)held);
}

static json_int_t uptime(const struct roll *roll)
{
    json_int_t longest = 0;
    const json_t *process;
    size_t i;

    json_array_foreach(roll->processes, i, process)
    {
        json_int_t age = json_integer_value(json_object_get(process, "age_ms"));

        longest = age > longest ? age : longest;
    }
    return longest;
}

void answer_status(struct connection *connection, const json_t *request)
{
    const struct monitor_context *context = connection->sources->context;
    const struct segment *segment = context->segment;
    struct roll roll = {.segment = segment, .now_ms = clock_now_ms(), .healthy = true};

    (void)request;
    roll.processes = json_array();
    roll.reasons = json_array();
    call_all(&roll, context->config->workers);
    connection_answer(connection,
                      json_pack("{s:b, s:s, s:b, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "ok", 1, "version",
                                HOMEPORT_VERSION, "healthy", roll.healthy, "reasons", roll.reasons, "uptime_ms",
                                uptime(&roll), "reloads", (json_int_t)atomic_load(&segment->header->reloads), "workers",
                                (json_int_t)context->config->workers, "processes", roll.processes, "listeners",
                                listeners_array(context->config), "segment",
                                segment_object(segment, recount_totals(connection->sources->recount)), "quarantined",
                                quarantined_array(segment), "counters", counters_object(segment), "lanes",
                                lanes_array(segment)));
}
