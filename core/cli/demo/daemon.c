/* SPDX-License-Identifier: Apache-2.0 */
/* fork, exec of this very binary, its standard error on a pipe -> a line with "ready:" -> SIGTERM -> it ends with 0.
 * Fails: it ends by itself          -> daemon_gone; its lines have told why
 *        it does not end in ten seconds -> killed, its workers with it, -ETIMEDOUT
 *        the demo is killed         -> the kernel sends it SIGTERM
 *        a line is too long         -> told in pieces */
#include "cli/demo/daemon.h"
#include "cli/demo/fork.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { END_WITHIN_MS = 10000 };

struct daemon {
    uv_loop_t *loop;
    struct daemon_events events;
    pid_t pid;
    bool ready, gone, late;
    int status; /* as waitpid has it */
    int output;
    size_t size; /* octets of line */
    char line[1024];
    uint32_t open; /* handles that the loop still has */
    uv_poll_t watcher;
    uv_timer_t timer;
};

static void tell(struct daemon *self)
{
    self->line[self->size] = '\0';
    self->size = 0;
    if (strstr(self->line, "ready:") != NULL)
        self->ready = true;
    self->events.line(self->events.arg, self->line);
}

static void hear(struct daemon *self, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '\n')
            self->line[self->size++] = text[i];
        if (text[i] == '\n' || self->size == sizeof self->line - 1)
            tell(self);
    }
}

/* False: there will be nothing more. */
static bool read_output(struct daemon *self)
{
    char text[4096];
    ssize_t size;

    while ((size = read(self->output, text, sizeof text)) > 0)
        hear(self, text, (size_t)size);
    return size < 0 && errno == EAGAIN;
}

static void on_output(uv_poll_t *watcher, int status, int events)
{
    struct daemon *self = watcher->data;

    (void)status, (void)events;
    if (!read_output(self))
        uv_poll_stop(watcher);
}

/* In the new process, until exec. */
static _Noreturn void become_daemon(const char *config, int output, pid_t parent)
{
    int nothing = open("/dev/null", O_RDWR);

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    (void)dup2(nothing, STDIN_FILENO);
    (void)dup2(output, STDOUT_FILENO);
    (void)dup2(output, STDERR_FILENO);
    execl("/proc/self/exe", "homeport", "run", "-c", config, (char *)NULL);
    dprintf(STDERR_FILENO, "cannot start /proc/self/exe: %s\n", strerror(errno));
    _exit(127);
}

static int start(struct daemon *self, const char *config, struct error *error)
{
    pid_t parent = getpid();
    int ends[2], status;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
    self->pid = fork_clean();
    if (self->pid == 0)
        become_daemon(config, ends[1], parent);
    status = self->pid < 0 ? error_set(error, -errno, "cannot start homeport: %s", strerror(errno)) : 0;
    close(ends[1]);
    if (status < 0) {
        close(ends[0]);
        return status;
    }
    self->output = ends[0];
    (void)fcntl(self->output, F_SETFL, O_NONBLOCK); /* this end only: the other is another open file */
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct daemon *self = handle->data;

    self->open--;
}

static void on_late(uv_timer_t *timer)
{
    struct daemon *self = timer->data;

    self->late = true;
}

int daemon_open(struct daemon **out, uv_loop_t *loop, const char *config, const struct daemon_events *events,
                struct error *error)
{
    struct daemon *self = calloc(1, sizeof *self);
    int status;

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory for the daemon");
    self->loop = loop;
    self->events = *events;
    status = start(self, config, error);
    if (status < 0) {
        free(self);
        return status;
    }
    uv_poll_init(loop, &self->watcher, self->output);
    uv_timer_init(loop, &self->timer);
    self->watcher.data = self->timer.data = self;
    self->open = 2;
    uv_poll_start(&self->watcher, UV_READABLE | UV_DISCONNECT, on_output);
    *out = self;
    return 0;
}

static void end(struct daemon *self)
{
    if (!self->gone)
        kill(self->pid, SIGTERM);
    uv_update_time(self->loop);
    uv_timer_start(&self->timer, on_late, END_WITHIN_MS, 0);
    while (!self->gone && !self->late)
        uv_run(self->loop, UV_RUN_ONCE);
    if (!self->gone || WIFSIGNALED(self->status)) /* its processes outlive a master that has died */
        kill(-self->pid, SIGKILL);
    if (!self->gone)
        (void)waitpid(self->pid, &self->status, 0);
}

int daemon_close(struct daemon *self, struct error *error)
{
    int status = 0;

    if (self == NULL)
        return 0;
    end(self);
    (void)read_output(self);
    if (self->late)
        status = error_set(error, -ETIMEDOUT, "homeport did not end within %d s of SIGTERM", END_WITHIN_MS / 1000);
    else if (!WIFEXITED(self->status) || WEXITSTATUS(self->status) != 0)
        status = error_set(error, -ECHILD, "homeport ended with %s %d", WIFEXITED(self->status) ? "status" : "signal",
                           WIFEXITED(self->status) ? WEXITSTATUS(self->status) : WTERMSIG(self->status));
    uv_close((uv_handle_t *)&self->watcher, on_closed);
    uv_close((uv_handle_t *)&self->timer, on_closed);
    close(self->output);
    while (self->open > 0)
        uv_run(self->loop, UV_RUN_ONCE);
    free(self);
    return status;
}

bool daemon_ready(const struct daemon *self)
{
    return self->ready;
}

bool daemon_gone(const struct daemon *self)
{
    return self->gone;
}

pid_t daemon_pid(const struct daemon *self)
{
    return self->pid;
}

void daemon_reap(struct daemon *self)
{
    if (!self->gone && waitpid(self->pid, &self->status, WNOHANG) == self->pid)
        self->gone = true;
}
