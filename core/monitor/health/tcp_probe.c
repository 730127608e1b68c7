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

struct tcp_probe {
    struct probe base; /* its socket: of the probe under way */
};

struct tcp_probe *tcp_probe_open(uv_loop_t *loop, const struct probe_target *target, const struct probe_events *events)
{
    struct tcp_probe *self = calloc(1, sizeof *self);

    if (self != NULL)
        probe_init(&self->base, loop, target, events);
    return self;
}

void tcp_probe_close(struct tcp_probe *probe, void (*closed)(void *arg), void *arg)
{
    probe_close(&probe->base, closed, arg);
}

static void finish(struct probe *probe, enum probe_result result, const char *why)
{
    probe_close_socket(probe);
    uv_timer_stop(&probe->timer);
    probe->events.result(probe->events.arg, result, why);
}

static void finish_by(struct probe *probe, int code)
{
    switch (code) {
    case 0:
        finish(probe, PROBE_ANSWERED, "");
        break;
    case ECONNREFUSED:
    case ECONNRESET:
        finish(probe, PROBE_REFUSED, "connection refused");
        break;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case ENOPROTOOPT:
    case ETIMEDOUT:
    case EACCES: /* administratively prohibited */
    case EPERM:
        finish(probe, PROBE_FAILED, strerror(code));
        break;
    default:
        finish(probe, PROBE_UNSENT, strerror(code));
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct probe *probe = poll->data;
    int code = 0;
    socklen_t size = sizeof code;

    (void)status; /* libuv's word for an error that waits on the socket */
    (void)events;
    if (getsockopt(probe->fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
        code = errno;
    finish_by(probe, code);
}

static void on_timeout(uv_timer_t *timer)
{
    finish(timer->data, PROBE_SILENT, "");
}

/* 0 or an errno value. */
static int begin(struct probe *probe)
{
    struct sockaddr_storage server, source;
    socklen_t size = endpoint_to_sockaddr(&probe->target.server, &server), source_size;

    probe->fd = socket(server.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe->fd < 0)
        return errno;
    source_size = probe->target.source.family != 0 ? endpoint_to_sockaddr(&probe->target.source, &source) : 0;
    if (source_size > 0 && bind(probe->fd, (const struct sockaddr *)&source, source_size) < 0)
        return errno;
    if (connect(probe->fd, (const struct sockaddr *)&server, size) < 0 && errno != EINPROGRESS)
        return errno;
    return probe_watch(probe, UV_WRITABLE, on_poll);
}

void tcp_probe_send(struct tcp_probe *probe, uint64_t timeout_ms)
{
    int code;

    probe_close_socket(&probe->base);
    uv_timer_stop(&probe->base.timer);
    code = begin(&probe->base);
    if (code != 0)
        finish_by(&probe->base, code);
    else
        uv_timer_start(&probe->base.timer, on_timeout, timeout_ms, 0);
}
