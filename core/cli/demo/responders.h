/* SPDX-License-Identifier: Apache-2.0 */
/* The demo's servers: starts their processes, collects what they report, notices when one dies. */
#ifndef CLI_DEMO_RESPONDERS_H
#define CLI_DEMO_RESPONDERS_H

#include "base/error.h"
#include "cli/demo/place.h"
#include <sys/types.h>
#include <uv.h>

struct sighting { /* of one client; a server's number, -1: none */
    int sa_init;  /* saw its latest IKE_SA_INIT */
    int stranger; /* got an IKE_AUTH of an IKE_SA that it does not have */
    int home;     /* answered its latest IKE_AUTH */
};

struct responders;

int responders_open(struct responders **out, uv_loop_t *loop, const struct place *place, struct error *error);
void responders_close(struct responders *responders); /* ends the processes and waits for them; NULL is fine */

const struct sighting *responders_seen(const struct responders *responders, uint32_t client);
pid_t responders_pid(const struct responders *responders, uint32_t server); /* 0: it is gone */
/* Call it on SIGCHLD. Returns the number of the server that died, or -1; call it until it says -1. */
int responders_reap(struct responders *responders);

#endif
