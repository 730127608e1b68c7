/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: the first reload is the start (reload.c); signals ask for the next ones; a tick keeps the loop's time in
 * the segment, looks at deadlines, at hung plugins and at who is to be started again.
 * SIGTERM, SIGINT -> every process is told to stop, and killed after STOP_LIMIT_MS; records and sessions stay in the
 * segment for the next start. A service manager hears of all that (notify.c). The master dies -> its processes are
 * killed by the kernel (sandbox.c), the segment stays.
 */
#include "process/master.h"

#include "base/clock.h"
#include "process/process.h"
#include "process/sandbox.h"
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define TICK_MS 100u

/* The end is certain now. Another SIGTERM must not make it an end by a signal, with the control socket left behind:
 * closing libuv's handles puts the default actions back. */
static void close_handles(struct master *self)
{
    sigset_t ends;

    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    for (int i = 0; i < 3; i++)
        if (!uv_is_closing((uv_handle_t *)&self->signals[i]))
            uv_close((uv_handle_t *)&self->signals[i], NULL);
    if (!uv_is_closing((uv_handle_t *)&self->tick))
        uv_close((uv_handle_t *)&self->tick, NULL);
}

void master_stop(struct master *self, int status)
{
    if (status != 0)
        self->status = status;
    if (!self->stopping) {
        self->stopping = true;
        self->stop_deadline_ms = clock_now_ms() + STOP_LIMIT_MS;
        notify_say(&self->notify, &self->log, "STOPPING=1", NULL);
        reaping_begin(self);
        reload_abandon(self);
        for (struct child *child = self->children; child != NULL; child = child->next)
            child_stop(child);
    }
    if (self->children == NULL)
        close_handles(self);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct master *self = handle->data;

    if (number == SIGHUP) {
        if (!self->stopping)
            reload_request(self, -1);
        return;
    }
    if (!self->stopping)
        log_write(&self->log, LOG_INFO, "stopping: %s", number == SIGTERM ? "SIGTERM" : "SIGINT");
    master_stop(self, 0);
}

static void on_tick(uv_timer_t *timer)
{
    struct master *self = timer->data;
    uint64_t now_ms = clock_now_ms();

    reaping_tick(self);
    notify_tick(&self->notify, &self->log, now_ms);
    if (self->segment == NULL)
        return;
    atomic_store(&self->segment->processes[0].loop_ms, now_ms);
    deadlines_put_off(self, now_ms);
    if (self->stopping) {
        for (struct child *child = self->children; child != NULL && now_ms >= self->stop_deadline_ms;
             child = child->next)
            child_kill(child);
        return;
    }
    children_calm(self, now_ms);
    watchdog_look(self, now_ms);
    lanes_deadlines(self, now_ms);
    reload_deadline(self, now_ms);
    respawn_due(self, now_ms);
}

/* With the capability SYS_NICE alone: a limit of nice values (RLIMIT_NICE) would let us begin, but not calm others. */
static void be_urgent(struct master *self)
{
    self->nice = getpriority(PRIO_PROCESS, 0);
    if (!sandbox_has_capability(CAP_SYS_NICE) || setpriority(PRIO_PROCESS, 0, self->nice - NICE_STEP) < 0)
        self->nice = NICE_NO_STEP;
}

static void watch_signals(struct master *self)
{
    static const int numbers[3] = {SIGTERM, SIGINT, SIGHUP};

    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 3; i++) {
        uv_signal_init(self->loop, &self->signals[i]);
        self->signals[i].data = self;
        uv_signal_start(&self->signals[i], on_signal, numbers[i]);
    }
    uv_timer_init(self->loop, &self->tick);
    self->tick.data = self;
    uv_timer_start(&self->tick, on_tick, TICK_MS, TICK_MS);
}

static void release(struct master *self)
{
    struct generation *generation = self->running;

    self->running = NULL;
    if (generation != NULL)
        generation_release(self, generation);
    for (uint32_t i = 0; self->lanes != NULL && i < self->segment->lane_count; i++)
        if (self->lanes[i].left >= 0)
            close(self->lanes[i].left);
    if (self->segment != NULL)
        process_end(self->segment, 0);
    segment_close(self->segment);
    free(self->lanes);
    state_folder_close(self);
    notify_close(&self->notify);
}

int master_run(const char *path)
{
    struct master self = {.path = path, .folder = -1, .lock = -1, .control = -1};
    uv_loop_t loop;

    umask(077); /* what must be wider says so itself */
    log_init(&self.log, "master");
    notify_open(&self.notify, &self.log);
    sandbox_descriptors();
    uv_loop_init(&loop);
    self.loop = &loop;
    be_urgent(&self);
    watch_signals(&self);
    reload_request(&self, -1);
    uv_run(&loop, UV_RUN_DEFAULT);
    release(&self);
    uv_run(&loop, UV_RUN_DEFAULT); /* what release has closed */
    uv_loop_close(&loop);
    if (self.status == 0)
        log_write(&self.log, LOG_INFO, "stopped");
    return self.status;
}
