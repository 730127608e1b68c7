/* SPDX-License-Identifier: Apache-2.0 */
/* What all probes of a server's port have in common: whom they ask, what they find out, and how what the loop watches
 * for them begins and ends. Monitor only. */
#ifndef MONITOR_HEALTH_PROBE_H
#define MONITOR_HEALTH_PROBE_H

#include "base/endpoint.h"
#include <uv.h>

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

struct probe { /* first member of each kind, which is one piece of malloc's memory */
    struct probe_target target;
    struct probe_events events;
    uv_loop_t *loop;
    uv_timer_t timer; /* the time-out of the probe under way */
    uv_poll_t *poll;  /* of fd; NULL: no socket is watched */
    int fd;
    void (*closed)(void *arg);
    void *closed_arg;
};

void probe_init(struct probe *probe, uv_loop_t *loop, const struct probe_target *target,
                const struct probe_events *events);
/* Watches fd; poll.data is the probe. 0 or an errno value: then there is no watcher. */
int probe_watch(struct probe *probe, int events, uv_poll_cb on_poll);
void probe_close_socket(struct probe *probe); /* no event comes after this; without one it does nothing */
/* Frees it when the loop has let go of it, then calls closed. No result comes after this. */
void probe_close(struct probe *probe, void (*closed)(void *arg), void *arg);

#endif
