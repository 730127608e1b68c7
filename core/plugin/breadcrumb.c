/* SPDX-License-Identifier: Apache-2.0 */
/* "Inside operation O of profile P since T": what the master reads when a worker has died, and when it looks whether
 * one hangs. Plain relaxed stores to the process's own slot; since is stored last and cleared first, so that who sees
 * it set sees the profile and the operation too. */
#include "base/clock.h"
#include "plugin/host.h"

static const char *const operation_names[] = {
    [PLUGIN_NONE] = "nothing",  [PLUGIN_LOAD] = "loading",    [PLUGIN_CHECK] = "check",
    [PLUGIN_CREATE] = "create", [PLUGIN_DESTROY] = "destroy", [PLUGIN_DERIVE_KEY] = "derive_key",
    [PLUGIN_SELECT] = "select", [PLUGIN_OBSERVE] = "observe", [PLUGIN_SESSION_END] = "session_end",
    [PLUGIN_TICK] = "tick",
};

const char *plugin_operation_name(uint32_t operation)
{
    return operation < sizeof operation_names / sizeof *operation_names ? operation_names[operation] : "unknown";
}

void instance_enter(struct instance *instance, enum plugin_operation operation, struct call *call)
{
    struct decider *decider = instance->decider;
    struct process_slot *process = decider->process;
    uint64_t calls = atomic_load_explicit(&process->inside_calls, memory_order_relaxed);

    decider->now_ms = clock_now_ms();
    decider->call = call;
    atomic_store_explicit(&process->inside_profile, instance->slot, memory_order_relaxed);
    atomic_store_explicit(&process->inside_operation, (uint32_t)operation, memory_order_relaxed);
    atomic_store_explicit(&process->inside_calls, calls + 1, memory_order_relaxed);
    atomic_store_explicit(&process->inside_since_ms, decider->now_ms > 0 ? decider->now_ms : 1, memory_order_release);
}

void instance_leave(struct instance *instance)
{
    atomic_store_explicit(&instance->decider->process->inside_since_ms, 0, memory_order_release);
    instance->decider->call = NULL;
}

bool instance_quarantined(const struct instance *instance)
{
    const struct segment *segment = instance->decider->segment;

    return instance->plugin == NULL ||
           (segment != NULL && instance->slot < SEGMENT_PROFILES &&
            atomic_load_explicit(&segment->profiles[instance->slot].quarantined, memory_order_relaxed) != 0);
}
