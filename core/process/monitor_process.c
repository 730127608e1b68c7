/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor from birth to end.
 * Happy path: privileges dropped, configuration, READY; BEGIN when it is the one; STOP, and it ends with status 0.
 * Fails: anything before READY -> FAILED with the reason, status 1
 *        the master has gone   -> the kernel kills us (sandbox.c) */
#include "monitor/monitor.h"
#include "process/role.h"
#include "process/spawn.h"

#include <stdbool.h>
#include <unistd.h>

struct monitor_process {
    struct role role;
    struct monitor *monitor;
    bool stopping;
};

static void on_monitor_closed(void *arg)
{
    struct monitor_process *self = arg;

    self->monitor = NULL;
    role_stop(&self->role);
}

static void stop(struct monitor_process *self)
{
    if (self->stopping)
        return;
    self->stopping = true;
    monitor_close(self->monitor, on_monitor_closed, self);
}

static void on_message(void *arg, const struct message *message, int *descriptors, uint32_t count)
{
    struct monitor_process *self = arg;

    while (count > 0)
        close(descriptors[--count]);
    if (message->kind == MESSAGE_BEGIN && !self->stopping)
        monitor_start(self->monitor);
    else if (message->kind == MESSAGE_STOP)
        stop(self);
}

static void on_closed(void *arg)
{
    stop(arg);
}

static void pass_reload_on(void *arg, int connection)
{
    struct monitor_process *self = arg;
    struct message message = {.kind = MESSAGE_RELOAD, .count = 1};

    channel_send(self->role.channel, &message, &connection, 1);
    close(connection);
}

static int open_monitor(struct monitor_process *self, const struct monitor_host *host, struct error *error)
{
    struct role *role = &self->role;

    return monitor_open(&self->monitor, &role->loop, role->config, role->topology, role->segment, role->slot,
                        SPAWN_CONTROL, host, &role->log, error);
}

int monitor_main(char **argv)
{
    struct monitor_process self = {.stopping = false};
    struct channel_events events = {&self, on_message, on_closed};
    struct monitor_host host = {&self, pass_reload_on};
    struct error error = {0};
    int status = 0;

    if (role_open(&self.role, argv, "monitor", &events) < 0) {
        status = 1;
    } else if (open_monitor(&self, &host, &error) < 0) {
        role_failed(&self.role, &error);
        status = 1;
    } else {
        role_run(&self.role);
    }
    role_close(&self.role);
    return status;
}
