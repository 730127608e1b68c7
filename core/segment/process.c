/* SPDX-License-Identifier: Apache-2.0 */
/* Process slots: who is alive, and what the dead have counted. Slot and generation are an identity that is never used
 * again, so a stale one is known at a glance; it is raised by who has reaped the process, never by a timeout.
 *
 * Killed between begin and end: the next start ends every slot. Killed within process_end: at most one counter of one
 * process is lost; a total that is read at that moment may miss it for the same moment. */
#include "base/clock.h"
#include "segment/segment.h"
#include <string.h>

static const char *const counter_names[] = {
#define X(name, help) #name,
    COUNTERS(X)
#undef X
};
static const char *const counter_helps[] = {
#define X(name, help) help,
    COUNTERS(X)
#undef X
};

enum counter lane_loss_counter(enum lane_loss loss)
{
    static const enum counter counters[] = {
#define X(name) COUNTER_##name,
        LANE_LOSSES(X)
#undef X
    };

    return counters[(unsigned)loss < LOSS_COUNT ? loss : 0];
}

const char *counter_name(enum counter counter)
{
    return (unsigned)counter < COUNTER_COUNT ? counter_names[counter] : "unknown";
}

const char *counter_help(enum counter counter)
{
    return (unsigned)counter < COUNTER_COUNT ? counter_helps[counter] : "";
}

/* Release: who sees the new generation sees the dead process's last stores as well. Never 0, so that no reservation of
 * slot 0 looks like a free one. */
static void generation_raise(struct process_slot *slot)
{
    uint32_t next = atomic_load_explicit(&slot->generation, memory_order_relaxed) + 1;

    atomic_store_explicit(&slot->generation, next == 0 ? 1 : next, memory_order_release);
}

static uint32_t slot_choose(const struct segment *segment, enum process_role role)
{
    if (role == PROCESS_MASTER)
        return 0;
    for (uint32_t i = 1; i < SEGMENT_PROCESSES; i++) {
        if (atomic_load_explicit(&segment->processes[i].role, memory_order_relaxed) == PROCESS_NONE)
            return i;
    }
    return SEGMENT_NO_INDEX;
}

static void counters_clear(struct process_slot *slot)
{
    for (uint32_t i = 0; i < COUNTER_COUNT; i++)
        atomic_store_explicit(&slot->counters[i], 0, memory_order_relaxed);
    for (uint32_t i = 0; i < SEGMENT_PLUGIN_COUNTERS; i++) {
        atomic_store_explicit(&slot->plugin_counters[i].identity, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->plugin_counters[i].value, 0, memory_order_relaxed);
    }
}

void process_begin_at(struct segment *segment, uint32_t index, enum process_role role, uint32_t number)
{
    struct process_slot *slot = &segment->processes[index % SEGMENT_PROCESSES];

    generation_raise(slot);
    if (index != 0)
        counters_clear(slot); /* slot 0 keeps the totals of the dead */
    memset(slot->last_words, 0, sizeof slot->last_words);
    atomic_store_explicit(&slot->number, number, memory_order_relaxed);
    atomic_store_explicit(&slot->pid, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->started_ms, clock_now_ms(), memory_order_relaxed);
    atomic_store_explicit(&slot->loop_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->inside_since_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->inside_calls, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->inside_profile, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->inside_operation, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->role, (uint32_t)role, memory_order_release);
}

uint32_t process_begin(struct segment *segment, enum process_role role, uint32_t number)
{
    uint32_t index = slot_choose(segment, role);

    if (index != SEGMENT_NO_INDEX)
        process_begin_at(segment, index, role, number);
    return index;
}

static void plugin_counter_add(struct process_slot *slot, uint64_t identity, uint64_t by)
{
    for (uint32_t i = 0; i < SEGMENT_PLUGIN_COUNTERS; i++) {
        uint64_t present = atomic_load_explicit(&slot->plugin_counters[i].identity, memory_order_relaxed);

        if (present != 0 && present != identity)
            continue;
        atomic_fetch_add_explicit(&slot->plugin_counters[i].value, by, memory_order_relaxed);
        atomic_store_explicit(&slot->plugin_counters[i].identity, identity, memory_order_release);
        return;
    }
}

static void counters_inherit(struct process_slot *heir, struct process_slot *dead)
{
    for (uint32_t i = 0; i < COUNTER_COUNT; i++)
        atomic_fetch_add_explicit(&heir->counters[i],
                                  atomic_exchange_explicit(&dead->counters[i], 0, memory_order_relaxed),
                                  memory_order_relaxed);
    for (uint32_t i = 0; i < SEGMENT_PLUGIN_COUNTERS; i++) {
        uint64_t identity = atomic_exchange_explicit(&dead->plugin_counters[i].identity, 0, memory_order_relaxed);
        uint64_t value = atomic_exchange_explicit(&dead->plugin_counters[i].value, 0, memory_order_relaxed);

        if (identity != 0)
            plugin_counter_add(heir, identity, value);
    }
}

void process_end(struct segment *segment, uint32_t slot)
{
    struct process_slot *dead;

    if (slot >= SEGMENT_PROCESSES)
        return;
    dead = &segment->processes[slot];
    generation_raise(dead);
    if (slot != 0)
        counters_inherit(&segment->processes[0], dead);
    for (uint32_t i = 0; i < segment->lane_count; i++) {
        uint32_t holder = slot;

        atomic_compare_exchange_strong_explicit(&segment->lanes[i].holder, &holder, SEGMENT_NO_INDEX,
                                                memory_order_relaxed, memory_order_relaxed);
    }
    atomic_store_explicit(&dead->pid, 0, memory_order_relaxed);
    atomic_store_explicit(&dead->role, PROCESS_NONE, memory_order_release);
}

bool process_alive(const struct segment *segment, uint32_t slot, uint32_t generation)
{
    return slot < SEGMENT_PROCESSES &&
           atomic_load_explicit(&segment->processes[slot].generation, memory_order_acquire) == generation &&
           atomic_load_explicit(&segment->processes[slot].role, memory_order_relaxed) != PROCESS_NONE;
}

uint64_t counter_total(const struct segment *segment, enum counter counter)
{
    uint64_t total = 0;

    if ((unsigned)counter >= COUNTER_COUNT)
        return 0;
    for (uint32_t i = 0; i < SEGMENT_PROCESSES; i++)
        total += atomic_load_explicit(&segment->processes[i].counters[counter], memory_order_relaxed);
    return total;
}
