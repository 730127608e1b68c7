/* SPDX-License-Identifier: Apache-2.0 */
/* One server's TCP port, asked "do you accept?". Knows nothing of states. Monitor only; nothing blocks. */
#ifndef MONITOR_HEALTH_TCP_PROBE_H
#define MONITOR_HEALTH_TCP_PROBE_H

#include "monitor/health/probe.h"

struct tcp_probe;

/* NULL: no memory. */
struct tcp_probe *tcp_probe_open(uv_loop_t *loop, const struct probe_target *target, const struct probe_events *events);
/* One connection; result is called once for it, at the latest after timeout_ms, perhaps before this returns. A probe
 * that is still under way is given up without a result. */
void tcp_probe_send(struct tcp_probe *probe, uint64_t timeout_ms);
/* Frees itself when the loop has let go of it, then calls closed. No result comes after this. */
void tcp_probe_close(struct tcp_probe *probe, void (*closed)(void *arg), void *arg);

#endif
