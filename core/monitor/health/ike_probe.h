/* SPDX-License-Identifier: Apache-2.0 */
/* One server's IKE port, asked "are you there?" over a connected UDP socket of its own. Knows the wire and nothing of
 * states. Monitor only; nothing blocks. */
#ifndef MONITOR_HEALTH_IKE_PROBE_H
#define MONITOR_HEALTH_IKE_PROBE_H

#include "monitor/health/probe.h"

struct ike_probe;

/* NULL: no memory. */
struct ike_probe *ike_probe_open(uv_loop_t *loop, const struct probe_target *target, const struct probe_events *events);
/* Sends one probe; result is called once for it, at the latest after timeout_ms, perhaps before this returns; REFUSED
 * may come at any time, with no probe under way. A probe that is still under way is given up without a result. */
void ike_probe_send(struct ike_probe *probe, uint64_t timeout_ms);
/* Frees itself when the loop has let go of it, then calls closed. No result comes after this. */
void ike_probe_close(struct ike_probe *probe, void (*closed)(void *arg), void *arg);

#endif
