/* SPDX-License-Identifier: Apache-2.0 */
/* Start and reload: one way.
 * Happy path: read the file into a sealed memfd; the check child validates it; open what is new to listen on, assign
 * slots; start a successor for each worker and the monitor; all say READY; apply server states; the lanes go over; the
 * old processes are told to stop; whoever asked is answered.
 * Fails: the file cannot be read, the check finds errors, a capability lacks that the file asks for, an address is
 *        taken, a successor cannot start or is not ready
 *        within PREPARE_LIMIT_MS -> successors end, what was opened is closed, the running ones never noticed; at the
 *        first start the daemon ends with status 1
 *        asked while one is under way -> it runs once more afterwards; the last file wins
 *        SIGTERM meanwhile -> abandoned */
#include "process/master.h"

#include "base/clock.h"
#include "process/sandbox.h"
#include "process/source.h"
#include "segment/tables.h"
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAITERS 16u
#define FINDING_MAX 4000 /* of one line: below PIPE_BUF, so that a pipe that takes anything takes it whole */

struct reload {
    struct check *check;
    int source;
    uint64_t deadline_ms; /* of the preparation; 0: not preparing */
    bool handing_over;
    char *text;                        /* what the check said */
    uint32_t lifted[SEGMENT_PROFILES]; /* quarantines that are back if it fails */
    int waiters[WAITERS];              /* connections that want the answer */
    uint32_t waiter_count;
    bool again; /* asked meanwhile */
    int later[WAITERS];
    uint32_t later_count;
};

static void begin(struct master *self, const int *waiters, uint32_t count);

static char *answer_text(const struct reload *reload, const struct error *error)
{
    json_t *answer = json_pack("{s:b, s:s*}", "ok", error->code == 0, "diagnostics",
                               reload->text != NULL && reload->text[0] != '\0' ? reload->text : NULL);
    char *text, *line;

    if (error->code != 0) {
        json_object_set_new(answer, "error", json_string(error->what));
        json_object_set_new(answer, "next", json_string(error->next));
    }
    text = json_dumps(answer, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(answer);
    if (text == NULL || asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    return line;
}

static void answer(struct reload *reload, struct log *log, const struct error *error)
{
    char *text = reload->waiter_count > 0 ? answer_text(reload, error) : NULL;

    for (uint32_t i = 0; i < reload->waiter_count; i++) {
        int connection = reload->waiters[i];

        /* Small enough for the socket's buffer; who reads too slowly for that gets what fits. */
        if (text != NULL && send(connection, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            log_write(log, LOG_WARNING, "who asked for the reload has gone: %s", strerror(errno));
        close(connection);
    }
    reload->waiter_count = 0;
    free(text);
}

static void reload_free(struct reload *reload)
{
    check_close(reload->check);
    if (reload->source >= 0)
        close(reload->source);
    free(reload->text);
    free(reload);
}

/* Ends this round; the next one begins when somebody asked meanwhile. */
static void finish(struct master *self, const struct error *error)
{
    struct reload *reload = self->reload;

    answer(reload, &self->log, error);
    self->reload = NULL;
    if (reload->again && !self->stopping) {
        begin(self, reload->later, reload->later_count);
        reload->later_count = 0;
    }
    while (reload->later_count > 0)
        close(reload->later[--reload->later_count]);
    reload_free(reload);
}

/* A successor does not load the plugin of a quarantined profile: lifted before it starts. */
static void lift_quarantines(struct master *self)
{
    for (uint32_t i = 0; i < SEGMENT_PROFILES; i++)
        self->reload->lifted[i] = atomic_exchange(&self->segment->profiles[i].quarantined, 0);
}

static void restore_quarantines(struct master *self)
{
    for (uint32_t i = 0; self->segment != NULL && i < SEGMENT_PROFILES; i++)
        if (self->reload->lifted[i] != 0)
            atomic_store(&self->segment->profiles[i].quarantined, 1);
}

static void fail(struct master *self, struct error *error)
{
    struct generation *next = self->next;
    bool start = self->running == NULL || self->running->adopted;

    self->next = NULL;
    restore_quarantines(self);
    for (struct child *child = self->children; child != NULL; child = child->next)
        if (child->generation == next && next != NULL) {
            child->state = CHILD_LEAVING;
            child_kill(child);
        }
    if (start)
        self->status = 1;
    else
        error_under(error, "reload refused, everything runs on");
    log_failure(&self->log, LOG_ERROR, error);
    /* Of a start that failed, STOPPING=1 and the exit status tell the rest. */
    notify_say(&self->notify, &self->log, start ? "STOPPING=1" : "READY=1", error->what);
    finish(self, error);
    if (next != NULL)
        generation_release(self, next);
    if (start) {
        adoption_abandon(self);
        master_stop(self, 1);
    }
}

/* What a reload cannot change: those that the segment's shape or the folder hold. */
static int check_against_running(struct master *self, const struct plan *plan, struct error *error)
{
    if (plan->workers > self->segment->lane_count) {
        error_set(error, -EINVAL, "%u workers are more than the %u lanes of the segment", plan->workers,
                  self->segment->lane_count);
        return error_next(error, "stop homeport, remove %s/segment and start it: records and sessions are lost",
                          plan->state);
    }
    if (self->segment->bucket_count != segment_bucket_count(plan->records) ||
        self->segment->rows_per_lane != segment_rows_per_lane(plan->sessions, self->segment->lane_count))
        log_write(&self->log, LOG_WARNING, "other capacities take effect at the next start");
    if (self->running == NULL || self->running->adopted || strcmp(plan->state, self->running->plan->state) == 0)
        return 0;
    error_set(error, -EINVAL, "the state folder cannot change while homeport runs");
    return error_next(error, "restart it, or write state: %s again", self->running->plan->state);
}

static uint32_t lanes_for(uint32_t workers)
{
    uint32_t lanes = 8;

    while (lanes < 2 * workers)
        lanes *= 2;
    return lanes;
}

/* The first start: what the daemon as a whole needs before it has a generation. */
static int found(struct master *self, const struct plan *plan, struct error *error)
{
    struct segment_shape shape = {plan->records, plan->sessions, lanes_for(plan->workers)};
    int status = state_folder_open(self, plan, error);

    if (status == 0)
        status = adoption_open(self, &shape, error);
    if (status < 0)
        return status;
    if (process_begin(self->segment, PROCESS_MASTER, 0) != 0)
        return error_set(error, -EINVAL, "the segment has no slot for the master");
    atomic_store(&self->segment->processes[0].pid, getpid());
    return 0;
}

static int start_successors(struct master *self, struct error *error)
{
    int status = 0;

    for (uint32_t i = 0; i < self->next->plan->workers && status == 0; i++)
        status = child_start(self, self->next, PROCESS_WORKER, i, error);
    return status == 0 ? child_start(self, self->next, PROCESS_MONITOR, 0, error) : status;
}

static int prepare(struct master *self, const struct plan *plan, struct error *error)
{
    struct reload *reload = self->reload;
    int status = plan->transparent ? sandbox_check_transparent(error) : 0;

    if (status == 0 && self->segment == NULL)
        status = found(self, plan, error);
    if (status == 0)
        status = check_against_running(self, plan, error);
    if (status < 0)
        return status;
    self->next = generation_make(plan, reload->source);
    if (self->next == NULL)
        return error_set(error, -ENOMEM, "no memory for a configuration");
    reload->source = -1;
    status = generation_assign(self, self->next, error);
    if (status == 0)
        status = listeners_open(self->next, self->running, self->segment->lane_count, error);
    if (status < 0)
        return status;
    if (!self->announced)
        notices_write(self, plan);
    lift_quarantines(self);
    status = start_successors(self, error);
    reload->deadline_ms = clock_now_ms() + PREPARE_LIMIT_MS;
    return status;
}

/* As they are in the text form, FILE:LINE:COLUMN first; a JSON log stays one. Like any log line they never wait for who
 * reads standard error. */
static void report_findings(struct master *self, const char *text, enum log_level level)
{
    while (*text != '\0') {
        int length = (int)strcspn(text, "\n"), shown = length < FINDING_MAX ? length : FINDING_MAX;
        struct pollfd ready = {.fd = self->log.fd, .events = POLLOUT};

        if (self->log.format == LOG_JSON)
            log_write(&self->log, level, "%.*s", shown, text);
        else if (poll(&ready, 1, 0) != 1 || dprintf(self->log.fd, "%.*s\n", shown, text) < 0)
            self->log.dropped++;
        text += length + (text[length] == '\n');
    }
}

static void log_as(struct master *self, const struct plan *plan)
{
    self->log.level = (enum log_level)plan->log_level;
    self->log.format = (enum log_format)plan->log_format;
}

static void on_checked(void *arg, const struct plan *plan, const char *text, const struct error *why)
{
    struct master *self = arg;
    struct error error = *why;

    self->reload->text = strdup(text);
    if (plan != NULL && !self->announced)
        log_as(self, plan); /* the first one to say how; a later one when it is accepted */
    report_findings(self, text, plan == NULL ? LOG_ERROR : LOG_WARNING);
    if (plan == NULL || prepare(self, plan, &error) < 0)
        fail(self, &error);
}

/* Takes over the connections that wait for the answer: it may come at once. */
static void begin(struct master *self, const int *waiters, uint32_t count)
{
    struct reload *reload = calloc(1, sizeof *reload);
    struct error error = {0};

    if (reload == NULL) {
        log_write(&self->log, LOG_ERROR, "no memory for a reload");
        while (count > 0)
            close(waiters[--count]);
        return;
    }
    for (; reload->waiter_count < count; reload->waiter_count++)
        reload->waiters[reload->waiter_count] = waiters[reload->waiter_count];
    reload->source = -1;
    self->reload = reload;
    reaping_begin(self);
    if (self->running != NULL)
        notify_reloading(&self->notify, &self->log);
    if (source_read(&reload->source, self->path, &error) < 0 ||
        check_start(&reload->check, self->loop, reload->source, self->path, on_checked, self, &error) < 0)
        fail(self, &error);
    else
        calm(self, check_pid(reload->check));
}

void reload_request(struct master *self, int connection)
{
    struct reload *reload = self->reload;

    if (self->stopping) {
        struct reload refused = {.waiters = {connection}, .waiter_count = connection >= 0};
        struct error error = {0};

        error_set(&error, -ECANCELED, "homeport is stopping");
        answer(&refused, &self->log, &error);
        return;
    }
    if (reload == NULL) {
        begin(self, &connection, connection >= 0 ? 1 : 0);
        return;
    }
    reload->again = true;
    if (connection >= 0 && reload->later_count == WAITERS)
        close(connection);
    else if (connection >= 0)
        reload->later[reload->later_count++] = connection;
}

/* Everybody is ready: from here on nothing can be refused any more. */
static void commit(struct master *self)
{
    struct generation *before = self->running;
    struct error error = {0};

    self->reload->deadline_ms = 0;
    self->reload->handing_over = true;
    generation_apply(self, self->next);
    log_as(self, self->next->plan);
    /* A crash of the old workers since the preparation is no fault of the plugins that come now. */
    for (uint32_t i = 0; i < SEGMENT_PROFILES; i++)
        atomic_store(&self->segment->profiles[i].quarantined, 0);
    self->running = self->next;
    self->next = NULL;
    if (state_folder_announce(self, &error) < 0)
        log_failure(&self->log, LOG_ERROR, &error);
    /* In this order: should we die right here, one of them keeps the listening sockets. */
    child_say(self->running->monitor, MESSAGE_BEGIN);
    if (before != NULL && before->monitor != NULL)
        child_stop(before->monitor);
    if (before != NULL)
        listeners_retire(before, self->running, self->segment->lane_count);
    lanes_advance(self);
    if (before != NULL)
        generation_release(self, before); /* when none of its processes is left to do so by its end */
}

void reload_child_ready(struct master *self, struct child *child)
{
    const struct generation *next = child->generation;

    for (uint32_t i = 0; i < next->plan->workers; i++)
        if (next->workers[i] == NULL || next->workers[i]->state != CHILD_READY)
            return;
    if (next->monitor != NULL && next->monitor->state == CHILD_READY)
        commit(self);
}

void reload_child_failed(struct master *self, struct child *child, struct error *why)
{
    char name[32];

    error_under(why, "%s cannot start", child_name(child, name));
    if (child->generation == self->next && self->next != NULL)
        fail(self, why);
    else if (child->state == CHILD_STARTING) {
        if (child->number == SPARE)
            error_next(why, "nobody stands by, and a worker that dies now is likely to meet the same: mend that first");
        log_failure(&self->log, LOG_ERROR, why);
    }
}

void reload_put_off(struct master *self, uint64_t by_ms)
{
    if (self->reload != NULL && self->reload->deadline_ms != 0)
        self->reload->deadline_ms += by_ms;
}

void reload_deadline(struct master *self, uint64_t now_ms)
{
    struct error error = {0};

    if (self->reload == NULL || self->reload->deadline_ms == 0 || now_ms < self->reload->deadline_ms)
        return;
    error_set(&error, -ETIMEDOUT, "the new processes were not ready within %u s", PREPARE_LIMIT_MS / 1000);
    fail(self, &error);
}

void reload_lanes_served(struct master *self)
{
    struct error none = {0};
    char text[128];

    if (self->reload == NULL || !self->reload->handing_over)
        return;
    atomic_fetch_add(&self->segment->header->reloads, self->announced ? 1 : 0);
    snprintf(text, sizeof text, "%s: %u workers, %u lanes, %u listening addresses",
             self->announced ? "reloaded" : "ready", self->running->plan->workers, self->segment->lane_count,
             self->running->listener_count);
    log_write(&self->log, LOG_INFO, "%s", text);
    notify_say(&self->notify, &self->log, "READY=1", text);
    self->announced = true;
    finish(self, &none);
}

void reload_abandon(struct master *self)
{
    struct error error = {0};

    if (self->reload == NULL)
        return;
    self->reload->again = false;
    error_set(&error, -ECANCELED, "homeport is stopping");
    self->next = NULL;
    finish(self, &error);
}
