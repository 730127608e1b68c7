/* SPDX-License-Identifier: Apache-2.0 */
/* Why a process died, and who is to blame (I4). When the next one starts: respawn.c.
 * Inside a plugin (the breadcrumb says so, or the watchdog killed it there): the log names plugin and operation; the
 * second time within QUARANTINE_MS its profile is quarantined until the next reload; the worker is back at once.
 * In our own code: back at once, from the third death in a row, none QUARANTINE_MS apart, with a growing pause.
 * A spare worker, wherever it died: from the second in a row with longer ones, for its death has cost nobody anything.
 * Before it was ready, in a start or reload: that fails, and says why; nobody else is blamed.
 *
 * A hostile worker may write any process's slot: what stands there blames workers alone, and is never asked for what
 * the master can know by itself, or else one worker could have the monitor killed. */
#include "process/master.h"

#include "base/clock.h"
#include "plugin/plugin.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define QUARANTINE_MS 10000u
#define PAUSE_MS 100u
/* Nobody waits for a spare worker: the next one is likely to meet what kept this one away. */
#define SPARE_PAUSE_MS 5000u
#define SPARE_PAUSE_LIMIT_MS 60000u
#define WATCH_MS 1000u
/* A look or a tick later than this says nothing about others: we were stopped, and so were they, in a machine that was
 * paused. */
#define WATCH_LATE_MS 1500u

static bool is_spare(const struct child *child)
{
    return child->role == PROCESS_WORKER && child->number == SPARE;
}

static uint32_t place(const struct child *child) /* in pauses and deaths */
{
    if (child->role == PROCESS_MONITOR)
        return child->generation->plan->workers;
    return is_spare(child) ? child->generation->plan->workers + 1 : child->number;
}

static void profile_name(const struct master *self, const struct child *child, char name[SEGMENT_NAME])
{
    const struct process_slot *slot = &self->segment->processes[child->slot];

    memcpy(name, self->segment->profiles[slot->inside_profile % SEGMENT_PROFILES].name, SEGMENT_NAME);
    name[SEGMENT_NAME - 1] = '\0';
}

/* Inside a plugin, as its breadcrumb says. The monitor calls none. */
static bool is_inside(const struct master *self, const struct child *child)
{
    return child->role == PROCESS_WORKER && atomic_load(&self->segment->processes[child->slot].inside_since_ms) != 0;
}

/* "died by signal 11 inside create of the plugin of profile NAME", or with what it said last. */
static void describe(struct error *out, const struct master *self, const struct child *child, int64_t status,
                     int number)
{
    const struct process_slot *slot = &self->segment->processes[child->slot];
    char how[64], words[sizeof slot->last_words], profile[SEGMENT_NAME];

    if (child->hung)
        snprintf(how, sizeof how, "hung and was killed");
    else if (child->generation->adopted)
        snprintf(how, sizeof how, "has ended (it was another master's: how is not known)");
    else if (number != 0)
        snprintf(how, sizeof how, "died by signal %d", number);
    else
        snprintf(how, sizeof how, "ended with status %lld", (long long)status);
    profile_name(self, child, profile);
    memcpy(words, slot->last_words, sizeof words);
    words[sizeof words - 1] = '\0';
    if (is_inside(self, child))
        error_set(out, -ECHILD, "%s inside %s of the plugin of profile %s", how,
                  plugin_operation_name(slot->inside_operation), profile);
    else
        error_set(out, -ECHILD, "%s%s%s", how, words[0] ? "; its last words: " : "", words);
}

static void blame_plugin(struct master *self, const struct child *child, uint64_t now_ms)
{
    const struct process_slot *slot = &self->segment->processes[child->slot];
    struct profile_slot *profile = &self->segment->profiles[slot->inside_profile % SEGMENT_PROFILES];
    char name[SEGMENT_NAME];

    if (profile->deaths > 0 && now_ms - profile->last_death_ms < QUARANTINE_MS) {
        profile_name(self, child, name);
        atomic_store(&profile->quarantined, 1);
        log_write(&self->log, LOG_ERROR, "profile %s is quarantined until the next reload: on_failure decides", name);
    }
    profile->deaths++;
    profile->last_death_ms = now_ms;
}

static uint64_t doubled(uint64_t pause_ms, uint32_t times, uint64_t limit_ms)
{
    for (; times > 0 && pause_ms < limit_ms; times--)
        pause_ms *= 2;
    return pause_ms < limit_ms ? pause_ms : limit_ms;
}

static void blame_ourselves(const struct child *child, uint64_t now_ms)
{
    struct deaths *deaths = &child->generation->deaths[place(child)];
    uint64_t *pause_ends_ms = &child->generation->pauses[place(child)];
    uint64_t since_ms = deaths->last_ms > *pause_ends_ms ? deaths->last_ms : *pause_ends_ms;

    deaths->in_a_row = now_ms < since_ms + QUARANTINE_MS ? deaths->in_a_row + 1 : 1;
    deaths->last_ms = now_ms;
    if (is_spare(child) && deaths->in_a_row >= 2)
        *pause_ends_ms = now_ms + doubled(SPARE_PAUSE_MS, deaths->in_a_row - 2, SPARE_PAUSE_LIMIT_MS);
    else if (deaths->in_a_row >= 3)
        *pause_ends_ms = now_ms + doubled(PAUSE_MS, deaths->in_a_row - 3, PAUSE_LIMIT_MS);
}

/* One that was not to die. A successor that is being prepared answers to its start or reload alone: what the plugin
 * does in it is no fault of the one that runs. */
static void death_judge(struct master *self, struct child *child, bool inside, struct error *how)
{
    uint64_t now_ms = clock_now_ms();
    char name[32];

    if (child->generation == self->next) {
        if (inside)
            error_next(how, "that plugin must be mended or taken out of the file");
        reload_child_failed(self, child, how);
        return;
    }
    log_write(&self->log, LOG_ERROR, "%s %s", child_name(child, name), how->what);
    if (inside && !is_spare(child)) /* what serves is healthy */
        blame_plugin(self, child, now_ms);
    else
        blame_ourselves(child, now_ms);
}

void child_died(struct child *child, int64_t status, int number)
{
    struct master *self = child->master;
    bool expected = child->state == CHILD_LEAVING || self->stopping;
    bool inside = is_inside(self, child);
    struct error how = {0};

    describe(&how, self, child, status, number);
    if (child->generation->monitor == child)
        child->generation->monitor = NULL;
    if (child->generation->spare == child)
        child->generation->spare = NULL;
    else if (child->role == PROCESS_WORKER && child->generation->workers[child->number] == child)
        child->generation->workers[child->number] = NULL;
    if (!expected)
        death_judge(self, child, inside, &how);
    process_end(self->segment, child->slot);
    lanes_child_died(self, child);
    generation_release(self, child->generation);
    if (!self->stopping)
        respawn_due(self, clock_now_ms());
    else if (self->children == NULL)
        master_stop(self, self->status);
}

void deadlines_put_off(struct master *self, uint64_t now_ms)
{
    uint64_t lost_ms = now_ms - self->tick_ms;

    if (self->tick_ms != 0 && lost_ms > WATCH_LATE_MS) {
        for (struct child *child = self->children; child != NULL; child = child->next) {
            child->lost_ms += lost_ms;
            if (child->stop_ms != 0)
                child->stop_ms += lost_ms;
        }
        self->stop_deadline_ms += lost_ms;
        lanes_put_off(self, lost_ms);
        reload_put_off(self, lost_ms);
    }
    self->tick_ms = now_ms;
}

void watchdog_look(struct master *self, uint64_t now_ms)
{
    bool on_time = self->watch_ms != 0 && now_ms - self->watch_ms < WATCH_LATE_MS;

    if (now_ms - self->watch_ms < WATCH_MS)
        return;
    self->watch_ms = now_ms;
    for (struct child *child = self->children; child != NULL; child = child->next) {
        uint64_t calls = atomic_load(&self->segment->processes[child->slot].inside_calls);
        bool inside = is_inside(self, child);

        if (on_time && inside && child->inside_seen && calls == child->calls_seen && !child->hung) {
            child->hung = true;
            child_kill(child);
        }
        child->inside_seen = inside;
        child->calls_seen = calls;
        if (child->state == CHILD_STARTING && child->generation == self->running &&
            now_ms - child->started_ms > PREPARE_LIMIT_MS + child->lost_ms)
            child_kill(child); /* a replacement that does not get ready; a reload has a deadline of its own */
        if (child->stop_ms != 0 && now_ms - child->stop_ms > STOP_LIMIT_MS)
            child_kill(child); /* stopped or stuck: it would stay for ever */
    }
}
