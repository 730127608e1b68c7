/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/health/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void probe_init(struct probe *probe, uv_loop_t *loop, const struct probe_target *target,
                const struct probe_events *events)
{
    probe->target = *target;
    probe->events = *events;
    probe->loop = loop;
    probe->fd = -1;
    uv_timer_init(loop, &probe->timer);
    probe->timer.data = probe;
}

int probe_watch(struct probe *probe, int events, uv_poll_cb on_poll)
{
    uv_poll_t *poll = calloc(1, sizeof *poll);
    int code;

    if (poll == NULL)
        return ENOMEM;
    code = -uv_poll_init(probe->loop, poll, probe->fd);
    if (code != 0) {
        free(poll);
        return code;
    }
    poll->data = probe;
    probe->poll = poll;
    uv_poll_start(poll, events, on_poll);
    return 0;
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

/* The watcher is let go of before its descriptor is closed. */
void probe_close_socket(struct probe *probe)
{
    if (probe->poll != NULL)
        uv_close((uv_handle_t *)probe->poll, on_poll_closed);
    probe->poll = NULL;
    if (probe->fd >= 0)
        close(probe->fd);
    probe->fd = -1;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct probe *probe = handle->data;

    probe->closed(probe->closed_arg);
    free(probe);
}

void probe_close(struct probe *probe, void (*closed)(void *arg), void *arg)
{
    probe->closed = closed;
    probe->closed_arg = arg;
    probe_close_socket(probe);
    uv_close((uv_handle_t *)&probe->timer, on_timer_closed);
}
