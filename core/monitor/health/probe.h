/* SPDX-License-Identifier: Apache-2.0 */
/* What all probes of a server's port have in common: whom they ask, and what they find out. */
#ifndef MONITOR_HEALTH_PROBE_H
#define MONITOR_HEALTH_PROBE_H

#include "base/endpoint.h"

enum probe_result {
    PROBE_ANSWERED, /* the server is there */
    PROBE_SILENT,   /* nothing of that kind within the time-out */
    PROBE_REFUSED,  /* nobody is at the port: ICMP port unreachable, a reset */
    PROBE_FAILED,   /* the network says that there is no way to the server */
    PROBE_UNSENT,   /* this machine could not send it: says nothing about the server */
};

struct probe_target {
    struct hp_endpoint server; /* with port */
    struct hp_endpoint source; /* family 0: the system's choice */
};
struct probe_events {
    void *arg;
    /* why: a phrase for people, valid during the call; "" for answered and silent. */
    void (*result)(void *arg, enum probe_result result, const char *why);
};

#endif
