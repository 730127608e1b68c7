/* SPDX-License-Identifier: Apache-2.0 */
/* One server's IKE port, asked "are you there?" over a connected UDP socket of its own. Knows the wire and nothing of
 * states. Monitor only; nothing blocks. */
#ifndef MONITOR_HEALTH_IKE_PROBE_H
#define MONITOR_HEALTH_IKE_PROBE_H

#include "base/endpoint.h"
#include <uv.h>

enum ike_probe_result {
    IKE_PROBE_ANSWERED, /* a well-formed IKEv2 message with our SPI */
    IKE_PROBE_SILENT,   /* nothing of that kind within the time-out */
    IKE_PROBE_REFUSED,  /* ICMP port unreachable; may come at any time, with no probe under way */
    IKE_PROBE_FAILED,   /* the network says that there is no way to the server */
    IKE_PROBE_UNSENT,   /* this machine could not send it: says nothing about the server */
};

struct ike_probe;

struct ike_probe_target {
    struct hp_endpoint server; /* with port */
    struct hp_endpoint source; /* family 0: the system's choice */
};
struct ike_probe_events {
    void *arg;
    /* why: a phrase for people, valid during the call; "" for answered and silent. */
    void (*result)(void *arg, enum ike_probe_result result, const char *why);
};

/* NULL: no memory. */
struct ike_probe *ike_probe_open(uv_loop_t *loop, const struct ike_probe_target *target,
                                 const struct ike_probe_events *events);
/* Sends one probe; result is called once for it, at the latest after timeout_ms, perhaps before this returns. A probe
 * that is still under way is given up without a result. */
void ike_probe_send(struct ike_probe *probe, uint64_t timeout_ms);
/* Frees itself when the loop has let go of it, then calls closed. No result comes after this. */
void ike_probe_close(struct ike_probe *probe, void (*closed)(void *arg), void *arg);

#endif
