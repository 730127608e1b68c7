/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor from birth to end.
 * Happy path: privileges dropped, configuration, READY; a copy of every listening socket, never read, for the next
 * master; BEGIN when it is the one; STOP, and it ends with status 0.
 * Fails: anything before READY        -> FAILED with the reason, status 1
 *        the master goes before BEGIN -> we end; after it we serve on until the next one has come
 *        a reload is asked for then   -> the answer is that there is no master */
#include "monitor/monitor.h"
#include "process/role.h"
#include "process/spawn.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct kept { /* a listening socket */
    uint32_t lane;
    int fd;
};

struct monitor_process {
    struct role role;
    struct monitor *monitor;
    struct kept *kept;
    uint32_t kept_count;
    bool begun, stopping;
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

/* Returns how many of them it keeps, from the first: all, or for want of memory none. */
static uint32_t keep(struct monitor_process *self, const struct message *message, const int *descriptors,
                     uint32_t count)
{
    struct kept *more = realloc(self->kept, (self->kept_count + count + 1) * sizeof *more);

    if (more == NULL)
        return 0;
    self->kept = more;
    for (uint32_t i = 0; i < count; i++)
        self->kept[self->kept_count++] = (struct kept){message->lanes[i], descriptors[i]};
    return count;
}

static void on_message(void *arg, const struct message *message, int *descriptors, uint32_t count)
{
    struct monitor_process *self = arg;

    if (message->kind == MESSAGE_LISTENERS)
        count -= keep(self, message, descriptors, count);
    while (count > 0)
        close(descriptors[--count]);
    if (message->kind == MESSAGE_BEGIN && !self->stopping && !self->begun) {
        self->begun = true;
        monitor_start(self->monitor);
    } else if (message->kind == MESSAGE_STOP) {
        stop(self);
    }
}

static void on_closed(void *arg)
{
    struct monitor_process *self = arg;

    if (self->begun && !self->stopping)
        role_outlive(&self->role);
    else
        stop(self);
}

static void on_next_master(struct role *role)
{
    const struct monitor_process *self = (struct monitor_process *)role; /* its first member */
    struct channel_series series;

    series_begin(&series, role->channel, MESSAGE_LISTENERS);
    for (uint32_t i = 0; i < self->kept_count; i++)
        series_add(&series, 0, self->kept[i].lane, self->kept[i].fd);
    series_end(&series);
}

static const char no_master[] = "{\"ok\":false,\"error\":\"the master has gone\","
                                "\"next\":\"start homeport again: it takes over what runs\"}\n";

static void pass_reload_on(void *arg, int connection)
{
    struct monitor_process *self = arg;
    struct message message = {.kind = MESSAGE_RELOAD, .count = 1};

    if (channel_send(self->role.channel, &message, &connection, 1) < 0)
        (void)send(connection, no_master, sizeof no_master - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
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
        self.role.on_next_master = on_next_master;
        role_run(&self.role);
    }
    role_close(&self.role);
    free(self.kept);
    return status;
}
