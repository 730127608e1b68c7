/* SPDX-License-Identifier: Apache-2.0 */
/* When ended processes are taken out of the process table. That they have ended, and how, is known before, by their
 * pidfds (children.c).
 *
 * Happy path: a worker dies; the signal that has libuv reap it is blocked until its lanes are served. Reaping can be
 * long, for the kernel drops what others have looked at in the /proc of the dead one: 40 ms for 12,500 descriptors.
 * Then it comes through, and for one tick we are no more urgent than those who serve.
 *
 * At once: while a start, a reload or a stop may wait for the end of a process.
 *
 * Strangers: process 1 of a container inherits what plugins have left behind; it reaps them at each tick. */
#include "process/master.h"

#include "base/clock.h"
#include <signal.h>
#include <sys/wait.h>

#define WAIT_MS 1000u /* a worker that cannot be started leaves lanes unserved for long, and ends again and again */

struct search {
    uv_pid_t pid;
    bool found;
};

static void compare_pid(uv_handle_t *handle, void *arg)
{
    struct search *search = arg;

    if (handle->type == UV_PROCESS && uv_process_get_pid((uv_process_t *)handle) == search->pid)
        search->found = true;
}

/* As process 1 of a container the master inherits what plugins have left behind, and nobody else takes them out of the
 * process table: libuv waits for what it has started, by pid. That it does later in this turn of the loop; whoever
 * stands behind one of those is reaped at the next tick. */
static void reap_strangers(struct master *self)
{
    siginfo_t ended = {0};

    while (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != 0) {
        struct search search = {.pid = ended.si_pid};

        uv_walk(self->loop, compare_pid, &search);
        if (search.found)
            return;
        waitpid(ended.si_pid, NULL, WNOHANG);
        ended.si_pid = 0;
    }
}

static void set_reaping(struct master *self, bool reaping)
{
    sigset_t ends;

    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigprocmask(reaping ? SIG_UNBLOCK : SIG_BLOCK, &ends, NULL);
    self->reaping_waits = !reaping;
    self->reaping_due_ms = UINT64_MAX;
}

/* Somebody has ended, and nobody waits, or has done so for long enough. */
static bool is_due(struct master *self)
{
    sigset_t pending;
    uint64_t now_ms = clock_now_ms();

    if (sigpending(&pending) < 0 || sigismember(&pending, SIGCHLD) != 1)
        return false;
    if (self->reaping_due_ms == UINT64_MAX)
        self->reaping_due_ms = now_ms + WAIT_MS;
    return now_ms >= self->reaping_due_ms || lanes_all_served(self);
}

void reaping_begin(struct master *self)
{
    set_reaping(self, true);
}

void reaping_tick(struct master *self)
{
    if (getpid() == 1)
        reap_strangers(self);
    if (self->running == NULL || self->reload != NULL || self->stopping)
        return;
    if (!self->reaping_waits) {
        set_reaping(self, false);
        hurry(self, 0);
    } else if (is_due(self)) {
        calm(self, 0);
        set_reaping(self, true);
    }
}
