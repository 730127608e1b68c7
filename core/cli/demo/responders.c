/* SPDX-License-Identifier: Apache-2.0 */
/* Bind all sockets -> fork a process for each server -> reports come in on a socket pair each -> close: the pair ends,
 * so does the process.
 * Fails: an address is taken        -> error, whoever was started ends
 *        a responder is killed      -> responders_reap names it; its sightings stay
 *        the demo is killed         -> every responder sees its pair end and exits */
#include "cli/demo/responders.h"
#include "cli/demo/fork.h"
#include "cli/demo/responder.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct process {
    struct responders *all;
    pid_t pid;
    int report;
    bool watched;
    uv_poll_t watcher;
};

struct responders {
    uv_loop_t *loop;
    uint32_t open; /* handles that the loop still has */
    struct process processes[DEMO_SERVERS];
    struct sighting seen[DEMO_CLIENTS + 1];
};

static void note(struct responders *self, int server, const struct responder_report *report)
{
    struct sighting *seen = &self->seen[report->client <= DEMO_CLIENTS ? report->client : 0];

    switch ((enum responder_saw)report->saw) {
    case SAW_SA_INIT:
        seen->sa_init = server;
        break;
    case SAW_HOME:
        seen->home = server;
        break;
    case SAW_STRANGER:
        seen->stranger = server;
        break;
    }
}

static void on_report(uv_poll_t *watcher, int status, int events)
{
    struct process *process = watcher->data;
    struct responder_report report;
    ssize_t size;

    (void)events;
    while ((size = recv(process->report, &report, sizeof report, MSG_DONTWAIT)) == (ssize_t)sizeof report)
        note(process->all, (int)(process - process->all->processes), &report);
    if (size == 0 || status < 0)
        uv_poll_stop(watcher);
}

/* In the new process. Everything but its three descriptors is the demo's. */
static _Noreturn void become_responder(int ike, int nat_t, int report)
{
    int mine[3] = {ike, nat_t, report};

    for (int i = 0; i < 3; i++)
        mine[i] = fcntl(mine[i], F_DUPFD, 6);
    for (int i = 0; i < 3; i++)
        (void)dup2(mine[i], 3 + i);
    (void)close_range(6, ~0u, 0);
    responder_run(3, 4, 5);
}

static int process_fork(struct process *self, int ike, int nat_t, struct error *error)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set(error, -errno, "cannot make a socket pair: %s", strerror(errno));
    self->pid = fork_clean();
    if (self->pid == 0)
        become_responder(ike, nat_t, pair[1]);
    close(pair[1]);
    if (self->pid < 0) {
        int status = error_set(error, -errno, "cannot start a responder: %s", strerror(errno));
        close(pair[0]);
        self->pid = 0;
        return status;
    }
    self->report = pair[0];
    return 0;
}

static int process_watch(struct process *self, struct error *error)
{
    int status = uv_poll_init(self->all->loop, &self->watcher, self->report);

    if (status < 0)
        return error_set(error, status, "cannot watch a responder: %s", uv_strerror(status));
    self->watcher.data = self;
    self->watched = true;
    self->all->open++;
    uv_poll_start(&self->watcher, UV_READABLE | UV_DISCONNECT, on_report);
    return 0;
}

static int process_start(struct responders *all, uint32_t server, const struct place *place, struct error *error)
{
    struct process *self = &all->processes[server];
    struct sockaddr_in at = place_server(server, place->ike), at_nat_t = place_server(server, place->nat_t);
    int ike, nat_t, status;

    ike = place_bind(&at, error);
    if (ike < 0)
        return ike;
    nat_t = place_bind(&at_nat_t, error);
    if (nat_t < 0) {
        close(ike);
        return nat_t;
    }
    status = process_fork(self, ike, nat_t, error);
    close(ike);
    close(nat_t);
    return status < 0 ? status : process_watch(self, error);
}

static void on_closed(uv_handle_t *handle)
{
    struct process *process = handle->data;

    process->all->open--;
}

static void process_stop(struct process *self)
{
    if (self->watched)
        uv_close((uv_handle_t *)&self->watcher, on_closed);
    if (self->report >= 0)
        close(self->report);
    if (self->pid == 0)
        return;
    kill(self->pid, SIGKILL);
    (void)waitpid(self->pid, NULL, 0);
}

int responders_open(struct responders **out, uv_loop_t *loop, const struct place *place, struct error *error)
{
    struct responders *self = calloc(1, sizeof *self);
    int status = 0;

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory for the responders");
    self->loop = loop;
    for (uint32_t i = 0; i <= DEMO_CLIENTS; i++)
        self->seen[i] = (struct sighting){-1, -1, -1};
    for (uint32_t i = 0; i < DEMO_SERVERS; i++) {
        self->processes[i].all = self;
        self->processes[i].report = -1;
    }
    for (uint32_t i = 0; i < DEMO_SERVERS && status == 0; i++)
        status = process_start(self, i, place, error);
    if (status < 0) {
        responders_close(self);
        return status;
    }
    *out = self;
    return 0;
}

void responders_close(struct responders *self)
{
    if (self == NULL)
        return;
    for (uint32_t i = 0; i < DEMO_SERVERS; i++)
        process_stop(&self->processes[i]);
    while (self->open > 0)
        uv_run(self->loop, UV_RUN_ONCE);
    free(self);
}

const struct sighting *responders_seen(const struct responders *self, uint32_t client)
{
    return &self->seen[client];
}

pid_t responders_pid(const struct responders *self, uint32_t server)
{
    return self->processes[server].pid;
}

int responders_reap(struct responders *self)
{
    for (uint32_t i = 0; i < DEMO_SERVERS; i++) {
        struct process *process = &self->processes[i];
        if (process->pid != 0 && waitpid(process->pid, NULL, WNOHANG) == process->pid) {
            process->pid = 0;
            return (int)i;
        }
    }
    return -1;
}
