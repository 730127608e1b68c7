/* SPDX-License-Identifier: Apache-2.0 */
/* Who takes the place of a dead process, and when.
 * Happy path: a worker dies; the spare one, which has been READY since before, is given its number, its listeners and
 * its lanes, so that its clients wait for no start; when all is quiet again another spare one is started.
 * Fails: there is no spare one, or it is not ready yet  -> the dead one's successor is started now
 *        the dead one died too often in a row (deaths.c) -> not before its pause is over, whoever is there
 *        it cannot be started                            -> tried again after PAUSE_LIMIT_MS
 *        the spare one dies                              -> as any worker in its own code; it has cost nobody anything
 *        it hangs                                        -> killed when it is needed, as if there were none
 *        the master dies                                 -> the spare one holds no lane, and ends */
#include "process/master.h"

#include "base/clock.h"

#define ASLEEP_MS 2500
#define QUIET_MS 1000u

static void respawn(struct master *self, enum process_role role, uint32_t number, uint32_t place, uint64_t now_ms)
{
    struct error error = {0};

    if (now_ms < self->running->pauses[place])
        return;
    if (generation_restore(self, self->running, &error) < 0 ||
        child_start(self, self->running, role, number, &error) < 0) {
        log_failure(&self->log, LOG_ERROR, &error);
        self->running->pauses[place] = now_ms + PAUSE_LIMIT_MS;
    }
}

/* A timer turns its loop every second. */
static bool is_awake(const struct master *self, const struct child *child)
{
    uint64_t turned_ms = atomic_load(&self->segment->processes[child->slot].loop_ms);

    if (turned_ms < child->started_ms) /* READY a moment ago */
        turned_ms = child->started_ms;
    return (int64_t)(clock_now_ms() - turned_ms) < ASLEEP_MS;
}

/* false: there is none that is ready. */
static bool promote(struct master *self, uint32_t number)
{
    struct child *child = self->running->spare;
    struct message message = {.kind = MESSAGE_NUMBER, .count = 0, .lanes = {number}};
    struct error error = {0};

    if (child == NULL || child->state != CHILD_READY || child->channel == NULL)
        return false;
    if (!is_awake(self, child)) {
        child_kill(child);
        return false;
    }
    self->running->spare = NULL;
    self->running->workers[number] = child;
    child->number = number;
    atomic_store(&self->segment->processes[child->slot].number, number);
    child_hurry(child);
    channel_send(child->channel, &message, NULL, 0);
    if (child_equip(child, &error) < 0)
        log_failure(&self->log, LOG_ERROR, &error); /* its end brings the next one */
    lanes_advance(self);
    return true;
}

/* Nobody is being started, handed lanes or catching up, nor was a moment ago: what a start costs is nobody's then, and
 * reloads that come one after the other do not pay for one each. */
static bool is_quiet(const struct master *self, uint64_t now_ms)
{
    if (now_ms - self->taken_ms < QUIET_MS || self->next != NULL || self->reload != NULL || !lanes_all_served(self))
        return false;
    for (const struct child *child = self->children; child != NULL; child = child->next)
        if (child->state != CHILD_READY || child->calm_ms != UINT64_MAX)
            return false;
    return true;
}

void respawn_due(struct master *self, uint64_t now_ms)
{
    uint32_t workers;

    if (self->running == NULL || self->running->adopted || self->stopping)
        return;
    workers = self->running->plan->workers;
    for (uint32_t i = 0; i < workers; i++)
        if (self->running->workers[i] == NULL && (now_ms < self->running->pauses[i] || !promote(self, i)))
            respawn(self, PROCESS_WORKER, i, i, now_ms);
    if (self->running->monitor == NULL)
        respawn(self, PROCESS_MONITOR, 0, workers, now_ms);
    if (self->running->spare == NULL && is_quiet(self, now_ms))
        respawn(self, PROCESS_WORKER, SPARE, workers + 1, now_ms);
}
