/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: a socket is opened, bound to the source where one is written, and connects; as soon as the server has
 * accepted it is closed, without an octet said. Fails:
 *   nothing comes                               -> SILENT when the time is over
 *   the server resets                           -> REFUSED at once
 *   no route to the server                      -> FAILED at once
 *   no socket, source address not on this machine, no port left -> UNSENT at once */
#include "monitor/health/tcp_probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct tcp_probe {
    struct probe_target target;
    struct probe_events events;
    uv_loop_t *loop;
    uv_timer_t timer; /* the time-out of the probe under way */
    uv_poll_t *poll;  /* NULL: none is under way */
    int fd;
    void (*closed)(void *arg);
    void *closed_arg;
};

struct tcp_probe *tcp_probe_open(uv_loop_t *loop, const struct probe_target *target, const struct probe_events *events)
{
    struct tcp_probe *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
    self->target = *target;
    self->events = *events;
    self->loop = loop;
    self->fd = -1;
    uv_timer_init(loop, &self->timer);
    self->timer.data = self;
    return self;
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

/* The watcher is let go of before its descriptor is closed. */
static void close_socket(struct tcp_probe *self)
{
    if (self->poll != NULL)
        uv_close((uv_handle_t *)self->poll, on_poll_closed);
    self->poll = NULL;
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct tcp_probe *self = handle->data;

    self->closed(self->closed_arg);
    free(self);
}

void tcp_probe_close(struct tcp_probe *probe, void (*closed)(void *arg), void *arg)
{
    probe->closed = closed;
    probe->closed_arg = arg;
    close_socket(probe);
    uv_close((uv_handle_t *)&probe->timer, on_timer_closed);
}

static void finish(struct tcp_probe *self, enum probe_result result, const char *why)
{
    close_socket(self);
    uv_timer_stop(&self->timer);
    self->events.result(self->events.arg, result, why);
}

static void finish_by(struct tcp_probe *self, int code)
{
    switch (code) {
    case 0:
        finish(self, PROBE_ANSWERED, "");
        break;
    case ECONNREFUSED:
    case ECONNRESET:
        finish(self, PROBE_REFUSED, "connection refused");
        break;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case ENOPROTOOPT:
    case ETIMEDOUT:
    case EACCES: /* administratively prohibited */
    case EPERM:
        finish(self, PROBE_FAILED, strerror(code));
        break;
    default:
        finish(self, PROBE_UNSENT, strerror(code));
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct tcp_probe *self = poll->data;
    int code = 0;
    socklen_t size = sizeof code;

    (void)status; /* libuv's word for an error that waits on the socket */
    (void)events;
    if (getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
        code = errno;
    finish_by(self, code);
}

static void on_timeout(uv_timer_t *timer)
{
    finish(timer->data, PROBE_SILENT, "");
}

/* 0 or an errno value. */
static int begin(struct tcp_probe *self)
{
    struct sockaddr_storage server, source;
    socklen_t size = endpoint_to_sockaddr(&self->target.server, &server), source_size;
    int code;

    self->fd = socket(server.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (self->fd < 0)
        return errno;
    source_size = self->target.source.family != 0 ? endpoint_to_sockaddr(&self->target.source, &source) : 0;
    if (source_size > 0 && bind(self->fd, (const struct sockaddr *)&source, source_size) < 0)
        return errno;
    if (connect(self->fd, (const struct sockaddr *)&server, size) < 0 && errno != EINPROGRESS)
        return errno;
    self->poll = calloc(1, sizeof *self->poll);
    if (self->poll == NULL)
        return ENOMEM;
    code = -uv_poll_init(self->loop, self->poll, self->fd);
    if (code != 0) {
        free(self->poll);
        self->poll = NULL;
        return code;
    }
    self->poll->data = self;
    uv_poll_start(self->poll, UV_WRITABLE, on_poll);
    return 0;
}

void tcp_probe_send(struct tcp_probe *probe, uint64_t timeout_ms)
{
    int code;

    close_socket(probe);
    uv_timer_stop(&probe->timer);
    code = begin(probe);
    if (code != 0)
        finish_by(probe, code);
    else
        uv_timer_start(&probe->timer, on_timeout, timeout_ms, 0);
}
