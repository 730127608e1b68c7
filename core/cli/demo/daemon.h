/* SPDX-License-Identifier: Apache-2.0 */
/* The very daemon, started as its own command line would: SELF run -c FILE. */
#ifndef CLI_DEMO_DAEMON_H
#define CLI_DEMO_DAEMON_H

#include "base/error.h"
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct daemon;

struct daemon_events {
    void *arg;
    void (*line)(void *arg, const char *line); /* of its standard error */
};

/* Starts it; it is ready when it says so. */
int daemon_open(struct daemon **out, uv_loop_t *loop, const char *config, const struct daemon_events *events,
                struct error *error);
/* SIGTERM, and waits until it has ended. NULL is fine. Errors: -ETIMEDOUT it had to be killed,
 * -ECHILD it ended with another status than 0. */
int daemon_close(struct daemon *daemon, struct error *error);

bool daemon_ready(const struct daemon *daemon);
bool daemon_gone(const struct daemon *daemon);
pid_t daemon_pid(const struct daemon *daemon);
void daemon_reap(struct daemon *daemon); /* call it on SIGCHLD */

#endif
