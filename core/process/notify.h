/* SPDX-License-Identifier: Apache-2.0 */
/* What a service manager is told (sd_notify(3)): one datagram a change to the socket that $NOTIFY_SOCKET names. The
 * protocol is a page of code, so libsystemd stays out of the process that keeps privileges.
 *
 * Master only, on its loop. No call blocks or fails: who asked for notifications and cannot be reached costs one line
 * of the log. */
#ifndef PROCESS_NOTIFY_H
#define PROCESS_NOTIFY_H

#include "base/log.h"
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#define NOTIFY_TEXT 1024u

struct notify {
    int fd; /* -1: nobody wants to know */
    struct sockaddr_un address;
    socklen_t size;
    uint64_t every_ms, pinged_ms; /* watchdog; every_ms 0: it does not want pings */
    bool complained;              /* that it cannot be reached */
    char unsent[NOTIFY_TEXT];     /* the last change, while its queue is full; "": none */
};

/* Reads $NOTIFY_SOCKET (a path, or @ and an abstract name), $WATCHDOG_USEC and $WATCHDOG_PID, and takes them out of the
 * environment: none of our children speaks for us. */
void notify_open(struct notify *self, struct log *log);
void notify_close(struct notify *self);

/* state: "READY=1" or other assignments, a line each. status: what people read in `systemctl status`, NULL: nothing
 * new. It may quote a child or a file, so what could end its line is replaced: a child must not add assignments. */
void notify_say(struct notify *self, struct log *log, const char *state, const char *status);
/* A reload begins: RELOADING=1 with the time that newer systemd wants beside it. */
void notify_reloading(struct notify *self, struct log *log);
/* From the master's tick: a ping to the watchdog when half of its time is over, and what its full queue refused. */
void notify_tick(struct notify *self, struct log *log, uint64_t now_ms);

#endif
