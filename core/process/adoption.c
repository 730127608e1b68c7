/* SPDX-License-Identifier: Apache-2.0 */
/* A start that finds the workers and the monitor of a master that has died (design: the master's death).
 * Happy path: each is connected to; the segment is opened as it is, and whatever lives keeps its slot; each says who it
 * is, which lanes it has, and hands over copies of its listening sockets, the monitor those of all lanes. They are the
 * running generation from then on, and the start goes on as a reload does: successors are made ready and take the
 * lanes, with every socket. No datagram is lost on the way.
 * Fails: none lives                       -> the segment is opened as after a stop
 *        one does not answer in time      -> killed; what it held is taken from the rows
 *        one has died since               -> its lanes have no holder; their sockets are the monitor's copies
 *        two say that they hold a lane    -> the second is killed
 *        one takes a lane that its holder was never asked to give -> killed: it would take it behind our back
 *        one cannot be ended              -> the start fails: two would have its lanes
 *        the segment does not fit us      -> all are ended, then as after a stop
 *        the start fails later on         -> they are let go of and serve on without a master
 * Listening sockets that nobody has any more (the monitor and a worker have both died) are opened anew. */
#include "process/master.h"

#include "base/clock.h"
#include "base/endpoint.h"
#include "process/survivors.h"
#include "relay/relay.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_LIMIT_MS 2000u        /* for all together: they have been asked at the same time */
#define ANSWER_LEAST_MS 200u         /* for each, whoever was waited for before it */
#define MESSAGES_MAX 4096            /* of one process, which may be hostile */
#define WORKERS (SEGMENT_LANES / 2u) /* as many as there can be */

/* Its place among the generation's listeners; NULL: no memory. */
static struct listener *listener_of(struct generation *generation, const struct listener *like)
{
    struct listener *more = listener_find(generation, like);

    if (more != NULL)
        return more;
    more = realloc(generation->listeners, (generation->listener_count + 1) * sizeof *more);
    if (more == NULL)
        return NULL;
    generation->listeners = more;
    more += generation->listener_count;
    *more = *like;
    more->sockets = malloc(SEGMENT_LANES * sizeof *more->sockets);
    for (uint32_t i = 0; more->sockets != NULL && i < SEGMENT_LANES; i++)
        more->sockets[i] = -1;
    generation->listener_count += more->sockets != NULL;
    return more->sockets != NULL ? more : NULL;
}

/* Takes the descriptor over. What is no listening socket any more, or is one that we have, is closed. */
static void listener_keep(struct generation *generation, uint32_t lane, int fd)
{
    struct sockaddr_storage name;
    struct listener like = {.sockets = NULL}, *listener = NULL;
    socklen_t size = sizeof name, number = sizeof like.protocol;

    if (!listener_retired(fd) && getsockname(fd, (struct sockaddr *)&name, &size) == 0 &&
        endpoint_from_sockaddr(&like.address, (struct sockaddr *)&name, size) &&
        getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &like.protocol, &number) == 0)
        listener = listener_of(generation, &like);
    if (listener != NULL && listener->sockets[lane] < 0)
        listener->sockets[lane] = fd;
    else
        close(fd);
}

/* false: two hold one lane. */
static bool lane_claim(struct master *self, struct child *child, uint32_t number, uint32_t state)
{
    struct lane *lane = &self->lanes[number];

    if (state == LANE_GIVING) {
        lane->giver = child;
    } else if (state == LANE_TAKING) {
        lane->taker = child;
    } else if (state == LANE_HELD) {
        if (lane->owner != NULL)
            return false;
        lane->owner = child;
        lane->served = true;
    }
    return true;
}

/* The monitor has all sockets; of a worker those of lanes that it says it has. */
static bool may_have(const struct master *self, const struct child *child, uint32_t number)
{
    const struct lane *lane;

    if (number >= self->segment->lane_count)
        return false;
    lane = &self->lanes[number];
    return child->role == PROCESS_MONITOR || lane->owner == child || lane->taker == child || lane->giver == child;
}

static bool take_in(struct master *self, struct child *child, const struct message *message, int *descriptors,
                    uint32_t count)
{
    bool fine = true;

    for (uint32_t i = 0; message->kind == MESSAGE_HOLDS && i < message->count && fine; i++)
        fine = message->lanes[i] < self->segment->lane_count &&
               lane_claim(self, child, message->lanes[i], message->listeners[i]);
    if (message->kind == MESSAGE_HELLO) {
        child->role = message->listeners[0] == PROCESS_MONITOR ? PROCESS_MONITOR : PROCESS_WORKER;
        child->number = message->lanes[0] % WORKERS;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (message->kind == MESSAGE_LISTENERS && i < message->count && may_have(self, child, message->lanes[i]))
            listener_keep(child->generation, message->lanes[i], descriptors[i]);
        else
            close(descriptors[i]);
    }
    return fine;
}

/* All that it says up to READY. */
static bool hear(struct master *self, struct child *child, int connection, uint64_t deadline_ms)
{
    struct message message = {.kind = MESSAGE_KINDS};
    int descriptors[MESSAGE_ITEMS], status;

    /* What it has said already counts, however late we are ourselves. */
    for (int i = 0; message.kind != MESSAGE_READY; i++) {
        uint64_t now_ms = clock_now_ms();
        uint32_t count = 0;

        if (i == MESSAGES_MAX)
            return false;
        status = channel_receive(connection, &message, descriptors, &count,
                                 now_ms < deadline_ms ? (int)(deadline_ms - now_ms) : 0);
        if (status == -ETIMEDOUT || status == -EPIPE)
            return false;
        if (status == 0 && !take_in(self, child, &message, descriptors, count))
            return false;
    }
    return true;
}

static void place(struct master *self, struct child *child)
{
    struct generation *generation = child->generation;

    child->next = self->children;
    self->children = child;
    if (child->role == PROCESS_WORKER)
        generation->workers[child->number] = child;
    else if (generation->monitor == NULL)
        generation->monitor = child;
    else
        child_stop(child); /* was told so already */
}

/* Claims of one that will not be a child after all. */
static void lanes_forget(struct master *self, const struct child *child)
{
    for (uint32_t i = 0; i < self->segment->lane_count; i++) {
        if (self->lanes[i].giver == child)
            self->lanes[i].giver = NULL;
        if (self->lanes[i].taker == child)
            self->lanes[i].taker = NULL;
        if (self->lanes[i].owner == child)
            self->lanes[i] = (struct lane){.giver = self->lanes[i].giver, .taker = self->lanes[i].taker, .left = -1};
    }
}

/* On failure the survivor's descriptors are still the caller's, and the child is gone. */
static int watch(struct master *self, struct child *child, const struct survivor *survivor)
{
    struct error error = {0};

    child->pidfd = survivor->pidfd;
    if (child_watch(child) < 0) {
        lanes_forget(self, child);
        free(child);
        return -1;
    }
    if (child_connect(child, survivor->connection, &error) < 0) {
        lanes_forget(self, child);
        child->pidfd = -1;
        child_let_go(child);
        return -1;
    }
    return 0;
}

/* false: it must be killed. */
static bool adopt(struct master *self, struct generation *generation, struct survivor *survivor, uint64_t deadline_ms)
{
    struct child *child = calloc(1, sizeof *child);

    if (child == NULL)
        return false;
    *child = (struct child){.master = self,
                            .generation = generation,
                            .slot = survivor->slot,
                            .pid = survivor->pid,
                            .keeper = -1,
                            .keeper_pidfd = -1};
    child->state = CHILD_READY;
    child->pidfd = -1;
    child->running = true;
    if (!hear(self, child, survivor->connection, deadline_ms)) {
        lanes_forget(self, child);
        free(child);
        return false;
    }
    if (watch(self, child, survivor) < 0)
        return false;
    place(self, child);
    return true;
}

static struct generation *generation_of_strangers(void)
{
    struct plan *plan = calloc(1, sizeof *plan);
    struct generation *generation = NULL;

    if (plan != NULL) {
        plan->workers = WORKERS;
        generation = generation_make(plan, -1);
    }
    if (generation != NULL)
        generation->adopted = true;
    free(plan);
    return generation;
}

/* Nobody but us knows of it: the lane's holder was never asked to give. When that one dies, it would take the lane
 * behind our back. */
static void taker_end(struct child *taker)
{
    child_kill(taker);
    (void)pidfd_wait(taker->pidfd, HAND_OVER_LIMIT_MS);
}

/* Who has which lane, now that all have spoken. A taker has it as soon as its giver has given it. */
static void lanes_settle(struct master *self)
{
    for (uint32_t i = 0; i < self->segment->lane_count; i++) {
        struct lane *lane = &self->lanes[i];

        if (lane->taker != NULL && lane->owner == NULL)
            lane->owner = lane->taker;
        else if (lane->taker != NULL)
            taker_end(lane->taker);
        lane->taker = NULL;
    }
    for (uint32_t i = 0; i < self->segment->lane_count; i++)
        self->lanes[i].deadline_ms = clock_now_ms() + HAND_OVER_LIMIT_MS;
}

static int adopt_all(struct master *self, struct survivor *found, int count, struct error *error)
{
    struct generation *generation = generation_of_strangers();
    uint64_t deadline_ms = clock_now_ms() + ANSWER_LIMIT_MS;
    int adopted = 0, status = 0;

    if (generation == NULL)
        return error_set(error, -ENOMEM, "no memory for the processes of the last master");
    self->running = generation;
    for (int i = 0; i < count; i++) {
        uint64_t least_ms = clock_now_ms() + ANSWER_LEAST_MS;

        if (status < 0) {
            survivor_let_go(&found[i]);
            continue;
        }
        if (adopt(self, generation, &found[i], deadline_ms > least_ms ? deadline_ms : least_ms)) {
            adopted++;
            continue;
        }
        log_write(&self->log, LOG_WARNING, "process %d of the last master does not answer: killed", (int)found[i].pid);
        status = survivors_end(self->folder, &found[i], 1, 0, error);
        if (status == 0)
            process_end(self->segment, found[i].slot);
    }
    if (status < 0)
        return status;
    lanes_settle(self);
    log_write(&self->log, LOG_INFO, "the last master has died: %d processes that have served on are taken over",
              adopted);
    return 0;
}

static void lanes_clear(struct master *self)
{
    for (uint32_t i = 0; i < self->segment->lane_count; i++)
        self->lanes[i] = (struct lane){.left = -1};
}

static int lanes_make(struct master *self, struct error *error)
{
    self->lanes = calloc(self->segment->lane_count, sizeof *self->lanes);
    if (self->lanes == NULL)
        return error_set(error, -ENOMEM, "no memory for lanes");
    lanes_clear(self);
    return 0;
}

int adoption_open(struct master *self, const struct segment_shape *shape, struct error *error)
{
    struct survivor found[SEGMENT_PROCESSES];
    bool alive[SEGMENT_PROCESSES] = {false};
    int count = survivors_find(self->folder, found, error), status = count;

    for (int i = 0; i < count; i++)
        alive[found[i].slot] = true;
    if (count > 0)
        status = segment_adopt(&self->segment, self->folder, alive, error);
    if (count > 0 && status < 0) {
        log_write(&self->log, LOG_WARNING, "the last master's processes cannot be taken over and are ended: %s",
                  error->what);
        status = survivors_end(self->folder, found, count, STOP_LIMIT_MS, error);
        if (status < 0)
            return status;
        count = 0;
    }
    if (count == 0)
        status = segment_open(&self->segment, self->folder, shape, &self->log, error);
    if (status >= 0)
        status = lanes_make(self, error);
    if (status >= 0 && count > 0)
        return adopt_all(self, found, count, error);
    for (int i = 0; i < count; i++)
        survivor_let_go(&found[i]);
    return status < 0 ? status : 0;
}

void adoption_abandon(struct master *self)
{
    struct generation *generation = self->running;
    struct child *child, *next;

    if (generation == NULL || !generation->adopted)
        return;
    for (child = self->children; child != NULL; child = next) {
        next = child->next;
        if (child->generation != generation)
            continue;
        child_unlink(child);
        child_let_go(child);
    }
    lanes_clear(self); /* they were its owners */
    self->running = NULL;
    generation_release(self, generation);
}
