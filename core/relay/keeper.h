/* SPDX-License-Identifier: Apache-2.0 */
/* What keeps a worker's sockets open when it is killed: a small process of its own, made by the worker, that shares the
 * worker's table of descriptors (CLONE_FILES) and sleeps. The worker's death closes nothing; what servers send waits in
 * the sockets; the next holder of each lane is sent them as in a planned hand-over. */
#ifndef RELAY_KEEPER_H
#define RELAY_KEEPER_H

#include "base/error.h"
#include "segment/segment.h"
#include <sys/types.h>

struct keeper;

/* [worker] Before there are threads. descriptors: how many this process may come to need. channel: taken over; its
 * other end is the master's, whose keeper_ask it awaits when this process has died. Errors: no memory, no process: the
 * worker can do without. */
int keeper_open(struct keeper **out, const struct segment *segment, uint32_t descriptors, int channel,
                struct error *error);
void keeper_close(struct keeper *keeper); /* [worker] ends it, so that what we close is closed; NULL is fine */
void keeper_warm(struct keeper *keeper);  /* [worker] so that noting causes no page faults; NULL is fine */
/* [worker] The socket of a row, after it was opened; -1 before it is closed. keeper may be NULL. */
void keeper_note(struct keeper *keeper, const struct session_row *row, int fd);
/* [worker] Watches those of a lane. Not closed as soon as the worker has died: that alone takes as long as all the
 * rest.
 */
void keeper_note_epoll(struct keeper *keeper, uint32_t lane, int fd);

/* [master] Our end of the channel of a keeper that is still to be made: makes keeper_process possible. */
void keeper_channel(int keeper);
/* [master] The keeper, as the kernel knows it: its pid and, returned, a pidfd of it, the caller's. -1: it has not begun
 * yet, or who has spoken is the worker itself. */
int keeper_process(int keeper, pid_t worker, pid_t *pid);
/* [master] Of a worker that has died: its sockets of this lane shall come over fd, for relay_take. keeper: our end of
 * the channel. fd stays the caller's. When the channel is closed, the keeper does what it was asked for, and ends;
 * while its worker lives it ends at once.
 * Negative errno values: there is none. */
int keeper_ask(int keeper, uint32_t lane, int fd);

#endif
