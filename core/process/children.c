/* SPDX-License-Identifier: Apache-2.0 */
/* A started process, from the master's side.
 * Happy path: a slot of the segment, a channel, a socket for the next master, spawn; it says READY, is given lanes
 * (worker) or BEGIN (monitor), later STOP, ends with status 0 and is reaped. Its pidfd says that it has ended: that is
 * earlier than reaping, in which the kernel forgets each of its descriptors in /proc before we get on.
 * Fails: it cannot start      -> FAILED with a text: the start or reload that wanted it fails; a respawn is tried again
 *        it dies              -> deaths.c, respawn.c: slot freed, lanes without a holder, another one
 *        its messages are odd -> ignored: a hostile child can only hurt itself */
#include "process/master.h"

#include "base/clock.h"
#include "process/role.h"
#include "process/spawn.h"
#include "process/survivors.h"
#include "relay/keeper.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

const char *child_name(const struct child *child, char text[32])
{
    if (child->role == PROCESS_MONITOR)
        snprintf(text, 32, "monitor");
    else if (child->number == SPARE)
        snprintf(text, 32, "spare worker");
    else
        snprintf(text, 32, "worker %u", child->number);
    return text;
}

static void on_ready(struct child *child)
{
    if (child->state != CHILD_STARTING)
        return;
    child->state = CHILD_READY;
    if (child->generation == child->master->next) {
        reload_child_ready(child->master, child);
        return;
    }
    if (child->role == PROCESS_MONITOR) {
        child_say(child, MESSAGE_BEGIN);
        child_calm(child);
    }
    lanes_advance(child->master);
}

static void say_failed(struct child *child, const char *text)
{
    struct error error = {0};

    error_set(&error, -ECHILD, "%s", text); /* cause and next step, as the child has put them */
    reload_child_failed(child->master, child, &error);
}

static void on_message(void *arg, const struct message *message, int *descriptors, uint32_t count)
{
    struct child *child = arg;
    struct master *master = child->master;
    bool about_lane = message->kind == MESSAGE_TAKEN || message->kind == MESSAGE_GIVEN;
    uint32_t used = 0;

    if (about_lane && (message->count < 1 || message->lanes[0] >= master->segment->lane_count))
        about_lane = false;
    if (message->kind == MESSAGE_READY)
        on_ready(child);
    else if (message->kind == MESSAGE_FAILED)
        say_failed(child, message->text);
    else if (message->kind == MESSAGE_TAKEN && about_lane)
        lanes_taken(master, child, message->lanes[0]);
    else if (message->kind == MESSAGE_GIVEN && about_lane)
        lanes_given(master, child, message->lanes[0]);
    else if (message->kind == MESSAGE_RELOAD && count > 0 && child->role == PROCESS_MONITOR)
        reload_request(master, descriptors[used++]);
    while (used < count)
        close(descriptors[used++]);
}

static void on_closed(void *arg)
{
    struct child *child = arg;

    /* It was told to stop: its plugins are being destroyed, and STOP_LIMIT_MS is for those that hang. */
    if (child->state == CHILD_LEAVING)
        return;
    /* It is dying, or it has lost its mind. Reaping tells; make sure that there is one. */
    child_kill(child);
}

void child_unlink(struct child *child)
{
    struct child **link = &child->master->children;

    while (*link != child)
        link = &(*link)->next;
    *link = child->next;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct child *child = handle->data;

    if (--child->handles > 0)
        return;
    if (child->pidfd >= 0)
        close(child->pidfd);
    free(child);
}

/* It gives what it was asked for, and ends. */
static void keeper_let_go(struct child *child)
{
    if (child->keeper >= 0)
        close(child->keeper);
    if (child->keeper_pidfd >= 0)
        close(child->keeper_pidfd);
    child->keeper = child->keeper_pidfd = -1;
}

void child_let_go(struct child *child)
{
    channel_close(child->channel);
    child->channel = NULL;
    if (child->ended.type != 0)
        uv_close((uv_handle_t *)&child->ended, on_handle_closed);
}

static void child_ended(struct child *child, int64_t status, int number)
{
    child->running = false;
    channel_drain(child->channel); /* it may have said why */
    child_unlink(child);
    child_let_go(child);
    survivor_forget(child->master->folder, child->slot);
    child_died(child, status, number);
    keeper_let_go(child);
}

/* How it has ended is known of our own children alone. */
static void on_ended(uv_poll_t *poll, int status, int events)
{
    struct child *child = poll->data;
    siginfo_t how = {0};
    bool exited;

    (void)status;
    (void)events;
    if (waitid(P_PIDFD, (id_t)child->pidfd, &how, WEXITED | WNOHANG | WNOWAIT) < 0)
        how.si_code = CLD_EXITED;
    exited = how.si_code == CLD_EXITED;
    child_ended(child, exited ? how.si_status : 0, exited ? 0 : how.si_status);
}

int child_watch(struct child *child)
{
    int status = uv_poll_init(child->master->loop, &child->ended, child->pidfd);

    if (status < 0)
        return status;
    child->handles++;
    child->ended.data = child;
    (void)uv_poll_start(&child->ended, UV_READABLE, on_ended);
    return 0;
}

/* The loop looks at signals behind all else: its end is known by now. */
static void on_reaped(uv_process_t *process, int64_t status, int number)
{
    struct child *child = process->data;

    if (child->running)
        child_ended(child, status, number);
    uv_close((uv_handle_t *)process, on_handle_closed);
}

static int spawn(struct child *child, int channel, int next, int keeper, struct error *error)
{
    struct master *self = child->master;
    const struct plan *plan = child->generation->plan;
    bool transparent = child->role == PROCESS_WORKER && plan->transparent;
    char slot[16], number[16], uid[16], gid[16], parent[16];
    char *arguments[] = {"homeport",
                         child->role == PROCESS_MONITOR ? "_monitor" : "_worker",
                         slot,
                         number,
                         uid,
                         gid,
                         parent,
                         (char *)self->path,
                         transparent ? ROLE_TRANSPARENT : ROLE_NAT,
                         NULL};
    int descriptors[SPAWN_DESCRIPTORS] = {-1, 1,    2,     channel, child->generation->source, self->segment->fd,
                                          -1, next, keeper};

    snprintf(slot, sizeof slot, "%u", child->slot);
    if (child->number == SPARE)
        snprintf(number, sizeof number, "%s", ROLE_SPARE);
    else
        snprintf(number, sizeof number, "%u", child->number);
    snprintf(uid, sizeof uid, "%u", plan->uid);
    snprintf(gid, sizeof gid, "%u", plan->gid);
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    if (child->role == PROCESS_MONITOR)
        descriptors[SPAWN_CONTROL] = self->control;
    return spawn_role(self->loop, &child->process, arguments, descriptors, on_reaped, error);
}

int child_connect(struct child *child, int fd, struct error *error)
{
    struct channel_events events = {child, on_message, on_closed};

    return channel_open(&child->channel, child->master->loop, fd, &events, error);
}

static int connect_and_spawn(struct child *child, struct error *error)
{
    int pair[2], keepers[2] = {-1, -1}, status, next = -1;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set(error, -errno, "cannot make a channel: %s", strerror(errno));
    status = child_connect(child, pair[0], error);
    if (status < 0) {
        close(pair[0]);
        close(pair[1]);
        return status;
    }
    if (child->role == PROCESS_WORKER && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, keepers) < 0)
        status = error_set(error, -errno, "cannot make a channel: %s", strerror(errno));
    child->keeper = keepers[0];
    if (child->keeper >= 0)
        keeper_channel(child->keeper);
    if (status == 0)
        status = next = survivor_socket(child->master->folder, child->slot, error);
    if (status >= 0)
        status = spawn(child, pair[1], next, keepers[1], error);
    close(pair[1]);
    if (keepers[1] >= 0)
        close(keepers[1]);
    if (next >= 0)
        close(next);
    if (status < 0) {
        channel_close(child->channel);
        child->channel = NULL;
        keeper_let_go(child);
        survivor_forget(child->master->folder, child->slot);
    }
    return status;
}

/* Chosen from our own list: what the segment says any process may have written. */
static uint32_t free_slot(const struct master *self)
{
    bool taken[SEGMENT_PROCESSES] = {true}; /* 0: our own */

    for (const struct child *child = self->children; child != NULL; child = child->next)
        taken[child->slot] = true;
    for (uint32_t i = 1; i < SEGMENT_PROCESSES; i++)
        if (!taken[i])
            return i;
    return SEGMENT_NO_INDEX;
}

int child_start(struct master *self, struct generation *generation, enum process_role role, uint32_t number,
                struct error *error)
{
    struct child *child = calloc(1, sizeof *child);
    int status;

    if (child == NULL)
        return error_set(error, -ENOMEM, "no memory for a process");
    child->master = self;
    child->generation = generation;
    child->role = role;
    child->number = number;
    child->process.data = child;
    child->pidfd = child->keeper = child->keeper_pidfd = -1;
    child->slot = free_slot(self);
    if (child->slot == SEGMENT_NO_INDEX) {
        free(child);
        return error_set(error, -ENOSPC, "all %u process slots of the segment are taken", SEGMENT_PROCESSES);
    }
    segment_header_restore(self->segment);
    process_begin_at(self->segment, child->slot, role, number);
    status = connect_and_spawn(child, error);
    if (status < 0) {
        process_end(self->segment, child->slot);
        child->handles = 1;
        if (child->process.type != 0) /* uv_spawn has got as far as to initialise it */
            uv_close((uv_handle_t *)&child->process, on_handle_closed);
        else
            free(child);
        return status;
    }
    child->running = true;
    child->handles = 1;
    child->pid = child->process.pid;
    child->pidfd = pidfd_open(child->pid, 0);
    if (child->pidfd >= 0)
        (void)child_watch(child);                    /* else reaping tells */
    if (generation == self->next || number == SPARE) /* prepared while others serve */
        child_calm(child);
    child->started_ms = clock_now_ms();
    atomic_store(&self->segment->processes[child->slot].pid, child->pid);
    child->next = self->children;
    self->children = child;
    if (role == PROCESS_MONITOR)
        generation->monitor = child;
    else if (number == SPARE)
        generation->spare = child;
    else
        generation->workers[number] = child;
    return number == SPARE ? 0 : child_equip(child, error);
}

int child_equip(struct child *child, struct error *error)
{
    int status = listeners_send(child->generation, child, child->master->segment->lane_count, error);

    if (status == 0)
        return 0;
    child->state = CHILD_LEAVING; /* with half of its listeners it would end the sessions of the others */
    child_kill(child);
    return status;
}

void calm(const struct master *self, pid_t pid)
{
    if (self->nice != NICE_NO_STEP)
        (void)setpriority(PRIO_PROCESS, (id_t)pid, self->nice);
}

void child_calm(struct child *child)
{
    child->calm_ms = UINT64_MAX;
    if (child->running)
        calm(child->master, child->pid);
}

void hurry(const struct master *self, pid_t pid)
{
    if (self->nice != NICE_NO_STEP)
        (void)setpriority(PRIO_PROCESS, (id_t)pid, self->nice - NICE_STEP);
}

static void keeper_meet(struct child *child)
{
    if (child->keeper >= 0 && child->keeper_pidfd < 0)
        child->keeper_pidfd = keeper_process(child->keeper, child->pid, &child->keeper_pid);
}

/* Its keeper, which slept until now: others wait for it. That it lives is asked again, a moment before. */
void child_hurry_keeper(struct child *child)
{
    keeper_meet(child);
    if (child->keeper_pidfd >= 0 && pidfd_send_signal(child->keeper_pidfd, 0, NULL, 0) == 0)
        hurry(child->master, child->keeper_pid);
}

void child_hurry(struct child *child)
{
    child->calm_ms = 0;
    if (child->running)
        hurry(child->master, child->pid);
}

void children_calm(struct master *self, uint64_t now_ms)
{
    for (struct child *child = self->children; child != NULL; child = child->next) {
        keeper_meet(child);
        if (child->calm_ms != 0 && child->calm_ms != UINT64_MAX && now_ms >= child->calm_ms)
            child_calm(child);
    }
}

void child_say(struct child *child, enum message_kind kind)
{
    struct message message = {.kind = kind};

    if (child->channel != NULL)
        channel_send(child->channel, &message, NULL, 0);
}

void child_stop(struct child *child)
{
    child->state = CHILD_LEAVING;
    child->stop_ms = clock_now_ms();
    keeper_let_go(child); /* it has nothing to keep any more, whatever becomes of its worker */
    child_say(child, MESSAGE_STOP);
}

void child_kill(struct child *child)
{
    if (child->running && child->pidfd >= 0)
        (void)pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
    else if (child->running)
        uv_process_kill(&child->process, SIGKILL);
}
