/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor: probes servers, recounts loads, deletes expired records, answers the control socket. One libuv loop in a
 * process of its own, unprivileged. Killed: traffic goes on, the last health state stays.
 *
 * Control socket: a stream socket at STATE/control.sock (0660, made and kept by the master); one JSON object a line as
 * request, {"verb":"servers"}; one JSON object as answer, then the connection is closed. `reload` is passed on: the
 * connection's descriptor goes to the master, which answers on it. */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include "base/log.h"
#include "pool/topology.h"
#include <uv.h>

struct monitor;

struct monitor_host { /* what the process layer does for it */
    void *arg;
    /* Passes a control connection on to the master for a reload; the descriptor is taken over. */
    void (*reload)(void *arg, int connection);
};

/* control: the listening control socket (taken over), -1: none. Borrows the rest. */
int monitor_open(struct monitor **out, uv_loop_t *loop, const struct config *config, struct topology *topology,
                 struct segment *segment, uint32_t self, int control, const struct monitor_host *host, struct log *log,
                 struct error *error);
/* Begins to probe, recount and answer; before that it only holds. */
void monitor_start(struct monitor *monitor);
void monitor_close(struct monitor *monitor, void (*done)(void *arg), void *arg);

#endif
