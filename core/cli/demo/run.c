/* SPDX-License-Identifier: Apache-2.0 */
/* A run: rewrite NAME.yaml -> servers -> daemon, until it says that it is ready -> clients, until each is connected or
 * has given up -> what was seen.
 * Fails: the daemon ends, or is not ready in time -> error, its last lines are kept to be shown
 *        a signal asks us to end    -> -EINTR
 *        anything                   -> demo_end ends whatever was begun */
#include "cli/demo/demo.h"
#include "cli/demo/rewrite.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READY_WITHIN_MS = 10000, CONNECT_WITHIN_MS = 10000 };

static void on_line(void *arg, const char *line)
{
    struct demo *self = arg;

    snprintf(self->tail[self->told++ % DEMO_TAIL], sizeof self->tail[0], "%s", line);
    if (self->stay != NULL)
        console_line(&self->console, "  %s", line);
}

void demo_tell_tail(const struct demo *self)
{
    uint32_t first = self->told > DEMO_TAIL ? self->told - DEMO_TAIL : 0;

    for (uint32_t i = first; i < self->told; i++)
        fprintf(stderr, "    %s\n", self->tail[i % DEMO_TAIL]);
}

static void on_changed(void *arg)
{
    struct demo *self = arg;
    struct clients_count count = clients_count(self->clients);

    if (self->stay == NULL)
        console_progress(&self->console, "  %-23s %u of %u connected, %u error 809", self->run->name, count.connected,
                         DEMO_CLIENTS, count.failed);
}

static void on_late(uv_timer_t *timer)
{
    struct demo *self = timer->data;

    self->late = true;
}

static bool is_ready(const struct demo *self)
{
    return daemon_ready(self->daemon);
}

static bool clients_done(const struct demo *self)
{
    struct clients_count count = clients_count(self->clients);

    return count.connected + count.failed == DEMO_CLIENTS;
}

static int await(struct demo *self, bool (*done)(const struct demo *), uint32_t within_ms, const char *what,
                 struct error *error)
{
    self->late = false;
    uv_update_time(&self->loop);
    uv_timer_start(&self->timer, on_late, within_ms, 0);
    while (!done(self) && !self->late && !self->interrupted && !daemon_gone(self->daemon))
        uv_run(&self->loop, UV_RUN_ONCE);
    uv_timer_stop(&self->timer);
    if (self->interrupted)
        return error_set(error, -EINTR, "interrupted");
    if (daemon_gone(self->daemon))
        return error_set(error, -ECHILD, "%s: homeport ended by itself", self->run->name);
    if (!done(self))
        return error_set(error, -ETIMEDOUT, "%s: %s within %u s", self->run->name, what, within_ms / 1000);
    return 0;
}

static int rewrite(struct demo *self, struct error *error)
{
    char from[PATH_MAX + 64], state[128];
    struct rewrite task = {.from = from, .to = self->config, .state = state, .place = &self->place};
    int status;

    snprintf(from, sizeof from, "%s/%s.yaml", self->configs, self->run->name);
    snprintf(self->config, sizeof self->config, "%s/%s.yaml", self->folder, self->run->name);
    snprintf(state, sizeof state, "%s/%s", self->folder, self->run->name);
    if (geteuid() == 0 && getpwnam("homeport") == NULL)
        task.user = "nobody";
    if (self->plugins[0] != '\0')
        task.plugins = self->plugins;
    status = rewrite_config(&task, error);
    memcpy(self->servers, task.servers, sizeof self->servers);
    return status;
}

static int begin(struct demo *self, struct error *error)
{
    struct daemon_events events = {.arg = self, .line = on_line};
    int status = rewrite(self, error);

    if (status == 0)
        status = responders_open(&self->responders, &self->loop, &self->place, error);
    if (status == 0)
        status = clients_open(&self->clients, &self->loop, &self->place, self->seed, on_changed, self, error);
    if (status == 0)
        status = daemon_open(&self->daemon, &self->loop, self->config, &events, error);
    return status;
}

int demo_connect(struct demo *self, const struct demo_run *run, struct result *result, struct error *error)
{
    int status;

    self->run = run;
    self->told = 0;
    if (self->interrupted)
        return error_set(error, -EINTR, "interrupted");
    status = begin(self, error);
    console_progress(&self->console, "  %-23s starting", run->name);
    if (status == 0)
        status = await(self, is_ready, READY_WITHIN_MS, "homeport is not ready", error);
    if (status == 0) {
        clients_connect(self->clients);
        status = await(self, clients_done, CONNECT_WITHIN_MS, "clients are not done", error);
    }
    console_progress(&self->console, "%s", "");
    if (status == 0)
        table_count(result, self->clients, self->responders);
    return status;
}

int demo_end(struct demo *self, struct error *error)
{
    int status = daemon_close(self->daemon, error);

    self->daemon = NULL;
    clients_close(self->clients);
    self->clients = NULL;
    responders_close(self->responders);
    self->responders = NULL;
    return status;
}
