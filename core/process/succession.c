/* SPDX-License-Identifier: Apache-2.0 */
/* A successor takes the lanes: the one mechanism for start, respawn, reload, a new plugin file and a new binary.
 * Lane l belongs to worker l mod W of the running generation.
 *
 * Happy path: the worker is READY; a holder from before gets GIVE, the worker TAKE, each an end of one pair; TAKEN
 * comes back; the holder that has given all its lanes is told to stop.
 *
 * Fails:
 * - we die on the way: giver and taker go on alone, and tell the next master how far they have come (adoption.c)
 * - nobody holds the lane (start): TAKE without a pair
 * - the holder has died: TAKE with a pair whose other end its keeper has, if there is one: else as at a start
 * - the holder dies while giving: the pair's end of file tells the taker, which takes what is in the segment; nothing
 *   to do here
 * - the taker dies while taking: the giver notices and says GIVEN; only then the lane is without holder and the taker's
 *   replacement gets TAKE without a pair
 * - the giver misses HAND_OVER_LIMIT_MS: killed, and it was a crash
 * - the taker misses it, counted from when nobody else has the lane: killed, and its replacement takes
 * - a worker dies while a reload hands over: the reload ends all the same, the next one may begin */
#include "process/master.h"

#include "base/clock.h"
#include "relay/keeper.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* NULL: nobody yet. */
static struct child *heir(const struct master *self, uint32_t lane)
{
    if (self->running->adopted)
        return NULL;
    return self->running->workers[lane % self->running->plan->workers];
}

static int say_lane(struct child *child, enum message_kind kind, uint32_t lane, int descriptor)
{
    struct message message = {.kind = kind, .count = descriptor >= 0 ? 1 : 0, .lanes = {lane}};

    return channel_send(child->channel, &message, &descriptor, message.count);
}

static void hand_over(struct master *self, uint32_t number, struct child *taker)
{
    struct lane *lane = &self->lanes[number];
    struct child *giver = lane->owner;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        log_write(&self->log, LOG_ERROR, "cannot make a pair for the hand-over of lane %u: %s", number,
                  strerror(errno));
        child_kill(giver); /* its end leaves the lane without a holder: the same way as a crash */
        return;
    }
    lane->giver = giver;
    lane->owner = taker;
    lane->served = false;
    lane->deadline_ms = clock_now_ms() + HAND_OVER_LIMIT_MS;
    /* In this order: should we die right here, the giver has the lane and serves on. */
    say_lane(taker, MESSAGE_TAKE, number, pair[1]);
    say_lane(giver, MESSAGE_GIVE, number, pair[0]);
    close(pair[0]);
    close(pair[1]);
}

static void lane_advance(struct master *self, uint32_t number)
{
    struct lane *lane = &self->lanes[number];
    struct child *taker = heir(self, number);

    if (taker == NULL || taker->state != CHILD_READY || taker->channel == NULL || lane->owner == taker ||
        lane->giver != NULL)
        return;
    if (lane->owner != NULL && !lane->served)
        return; /* still taking it: it gives it when it has it, or misses its deadline */
    if (lane->owner != NULL) {
        hand_over(self, number, taker);
        return;
    }
    lane->owner = taker;
    lane->served = false;
    lane->deadline_ms = clock_now_ms() + HAND_OVER_LIMIT_MS;
    say_lane(taker, MESSAGE_TAKE, number, lane->left);
    if (lane->left >= 0)
        close(lane->left);
    lane->left = -1;
}

void lanes_advance(struct master *self)
{
    if (self->running == NULL || self->stopping)
        return;
    for (uint32_t i = 0; i < self->segment->lane_count; i++)
        lane_advance(self, i);
}

bool lanes_all_served(const struct master *self)
{
    for (uint32_t i = 0; i < self->segment->lane_count; i++)
        if (!self->lanes[i].served || self->lanes[i].giver != NULL || self->lanes[i].owner != heir(self, i))
            return false;
    return true;
}

/* A worker of an older generation that has nothing left to give may go. */
static void dismiss_idle(struct master *self)
{
    for (struct child *child = self->children; child != NULL; child = child->next) {
        bool busy = child->generation == self->running || child->generation == self->next ||
                    child->state == CHILD_LEAVING || child->role != PROCESS_WORKER;

        for (uint32_t i = 0; i < self->segment->lane_count && !busy; i++)
            busy = self->lanes[i].owner == child || self->lanes[i].giver == child;
        if (!busy)
            child_stop(child);
    }
}

static void settled(struct master *self)
{
    if (self->running == NULL || self->stopping)
        return;
    dismiss_idle(self);
    if (lanes_all_served(self))
        reload_lanes_served(self);
}

/* A worker takes its lanes one after the other: it is late when none of them gets on. */
static void more_time(struct master *self, struct child *taker)
{
    bool waits = false;

    for (uint32_t i = 0; i < self->segment->lane_count; i++) {
        if (self->lanes[i].owner != taker || self->lanes[i].giver != NULL || self->lanes[i].served)
            continue;
        self->lanes[i].deadline_ms = clock_now_ms() + HAND_OVER_LIMIT_MS;
        waits = true;
    }
    if (!waits && taker->calm_ms == 0)
        taker->calm_ms = clock_now_ms() + CATCH_UP_MS;
}

void lanes_taken(struct master *self, struct child *child, uint32_t lane)
{
    if (self->lanes[lane].owner != child)
        return;
    self->lanes[lane].served = true;
    self->taken_ms = clock_now_ms();
    more_time(self, child);
    lane_advance(self, lane);
    settled(self);
}

void lanes_given(struct master *self, struct child *child, uint32_t lane)
{
    if (self->lanes[lane].giver != child)
        return;
    self->lanes[lane].giver = NULL;
    self->lanes[lane].deadline_ms = clock_now_ms() + HAND_OVER_LIMIT_MS;
    lane_advance(self, lane);
    settled(self);
}

/* The sockets of a lane whose holder has died; -1: nobody has kept them. */
static int ask_keeper(const struct child *dead, uint32_t lane)
{
    int pair[2], status;

    if (dead->keeper < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -1;
    status = keeper_ask(dead->keeper, lane, pair[1]);
    close(pair[1]);
    if (status == 0)
        return pair[0];
    close(pair[0]);
    return -1;
}

void lanes_child_died(struct master *self, struct child *child)
{
    child_hurry_keeper(child);
    for (uint32_t i = 0; i < self->segment->lane_count; i++) {
        uint32_t slot = child->slot;

        /* Its slot may soon be another one's, who does not have the lane. */
        (void)atomic_compare_exchange_strong(&self->segment->lanes[i].holder, &slot, SEGMENT_NO_INDEX);
        if (self->lanes[i].giver == child) {
            self->lanes[i].giver = NULL;
            self->lanes[i].deadline_ms = clock_now_ms() + HAND_OVER_LIMIT_MS;
        }
        if (self->lanes[i].owner == child) {
            self->lanes[i].owner = NULL;
            self->lanes[i].served = false;
            self->lanes[i].left = self->stopping ? -1 : ask_keeper(child, i);
        }
    }
    lanes_advance(self);
    settled(self);
    /* Every lane had its chance. The rest comes by respawn, and the next reload may be what mends it. */
    if (child->generation == self->running && child->role == PROCESS_WORKER)
        reload_lanes_served(self);
}

/* Killed once, whatever else it is late with. */
static void kill_late(struct master *self, struct child *child, const char *what, uint32_t lane)
{
    char name[32];

    log_write(&self->log, LOG_WARNING, "%s has not %s lane %u within %u ms: killed", child_name(child, name), what,
              lane, HAND_OVER_LIMIT_MS);
    child_kill(child);
    for (uint32_t i = 0; i < self->segment->lane_count; i++)
        if (self->lanes[i].giver == child || (self->lanes[i].giver == NULL && self->lanes[i].owner == child))
            self->lanes[i].deadline_ms = UINT64_MAX;
}

void lanes_put_off(struct master *self, uint64_t by_ms)
{
    for (uint32_t i = 0; i < self->segment->lane_count; i++)
        if (self->lanes[i].deadline_ms != UINT64_MAX)
            self->lanes[i].deadline_ms += by_ms;
}

void lanes_deadlines(struct master *self, uint64_t now_ms)
{
    for (uint32_t i = 0; i < self->segment->lane_count; i++) {
        const struct lane *lane = &self->lanes[i];

        if (now_ms < lane->deadline_ms)
            continue;
        if (lane->giver != NULL)
            kill_late(self, lane->giver, "given", i);
        else if (lane->owner != NULL && !lane->served)
            kill_late(self, lane->owner, "taken", i);
    }
}
