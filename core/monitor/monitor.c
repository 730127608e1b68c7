/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: open puts the parts together and changes nothing outside; start lets them run: probes, recount, control
 * socket.
 * Fails: a part cannot be opened      -> what was opened is closed again, on the loop that the caller still runs
 *        the control socket is broken -> said in the log; probes and recount go on without it */
#include "monitor/monitor.h"

#include "monitor/control/control.h"
#include "monitor/health/health.h"
#include "monitor/recount.h"

#include <errno.h>
#include <stdlib.h>

struct monitor {
    struct monitor_context context;
    struct monitor_host host;
    struct recount *recount;
    struct health *health;
    struct control *control;
    struct control_sources sources;
    int open_parts;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void ignore(void *arg)
{
    (void)arg;
}

int monitor_open(struct monitor **out, uv_loop_t *loop, const struct config *config, struct topology *topology,
                 struct segment *segment, uint32_t self, int control, const struct monitor_host *host, struct log *log,
                 struct error *error)
{
    struct monitor *monitor = calloc(1, sizeof *monitor);
    int status;

    if (monitor == NULL)
        return error_set(error, -ENOMEM, "no memory for the monitor");
    monitor->context =
        (struct monitor_context){loop, config, topology, segment, &segment->processes[self % SEGMENT_PROCESSES], log};
    if (host != NULL)
        monitor->host = *host;
    status = recount_open(&monitor->recount, &monitor->context, error);
    if (status < 0)
        goto fail_recount;
    status = health_open(&monitor->health, &monitor->context, error);
    if (status < 0)
        goto fail_health;
    monitor->sources = (struct control_sources){&monitor->context, monitor->recount, monitor->health, &monitor->host};
    status = control_open(&monitor->control, &monitor->sources, control, error);
    if (status < 0)
        goto fail_control;
    *out = monitor;
    return 0;

fail_control:
    health_close(monitor->health, ignore, NULL);
fail_health:
    recount_close(monitor->recount, ignore, NULL);
fail_recount:
    free(monitor);
    return status;
}

void monitor_start(struct monitor *monitor)
{
    struct error error = {0};

    recount_start(monitor->recount);
    health_start(monitor->health);
    if (control_start(monitor->control, &error) < 0)
        log_failure(monitor->context.log, LOG_ERROR, &error);
}

static void on_part_closed(void *arg)
{
    struct monitor *monitor = arg;

    if (--monitor->open_parts > 0)
        return;
    monitor->closed(monitor->closed_arg);
    free(monitor);
}

/* The control socket's connections use the recount: they let go of it first, in control_close itself. */
void monitor_close(struct monitor *monitor, void (*done)(void *arg), void *arg)
{
    if (monitor == NULL) {
        done(arg);
        return;
    }
    monitor->closed = done;
    monitor->closed_arg = arg;
    monitor->open_parts = 3;
    control_close(monitor->control, on_part_closed, monitor);
    health_close(monitor->health, on_part_closed, monitor);
    recount_close(monitor->recount, on_part_closed, monitor);
}
