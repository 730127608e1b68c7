/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: one JSON line in, one JSON object out, close (trace: one a line, until its reader goes). Monitor
 * only; nothing blocks, and no client of it can hold up the probes: requests are bounded, answers are written in
 * pieces, everybody has five seconds a piece. */
#ifndef MONITOR_CONTROL_CONTROL_H
#define MONITOR_CONTROL_CONTROL_H

#include "monitor/health/health.h"
#include "monitor/monitor.h"
#include "monitor/recount.h"

#define CONTROL_CONNECTIONS 64u
#define CONTROL_REQUEST_MAX 65536u
#define CONTROL_TIMEOUT_MS 5000u
#define CONTROL_TRACES 8u /* of the connections; the others are for who asks something */

struct control;
struct control_sources { /* what is answered from; borrowed */
    const struct monitor_context *context;
    struct recount *recount;
    const struct health *health;
    const struct monitor_host *host;
};

/* listener: a listening stream socket, taken over unless this fails. -1: nobody can ask. */
int control_open(struct control **out, const struct control_sources *sources, int listener, struct error *error);
int control_start(struct control *control, struct error *error);
/* done is called when the loop has let go of it; NULL is fine (done is called at once). */
void control_close(struct control *control, void (*done)(void *arg), void *arg);

#endif
