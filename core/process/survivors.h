/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that have outlived their master. Each listens on a socket of its own in the state folder,
 * process-SLOT.sock, which its master has bound there (root's, 0700) and the process alone accepts on: who can connect
 * is root, or the user of a daemon without root; who answers is the process that was started in that slot. Its pid
 * comes from the kernel, and is pinned by a pidfd while the connection shows that it lives, so that it cannot mean
 * another one. */
#ifndef PROCESS_SURVIVORS_H
#define PROCESS_SURVIVORS_H

#include "base/error.h"
#include "segment/layout.h"
#include <stdbool.h>
#include <sys/types.h>

struct survivor {
    uint32_t slot; /* of the segment's processes */
    pid_t pid;
    int pidfd;
    int connection; /* a channel's: from now on we are its master; -1: it is somebody else's by now */
};

/* [master] The socket of the process that is going to be started in this slot, bound and not listening yet. Negative:
 * error is set. */
int survivor_socket(int folder, uint32_t slot, struct error *error);
/* [master] The process of this slot has ended. */
void survivor_forget(int folder, uint32_t slot);

/* [who holds the master's lock] Connects to every one that lives, and removes the names of those that do not. Returns
 * how many; negative: error is set, because one cannot be told dead from alive, and all keep their names. */
int survivors_find(int folder, struct survivor found[SEGMENT_PROCESSES], struct error *error);
/* Tells all to stop, waits, kills those that do not within limit_ms, waits for their end, and lets go of them. Errors:
 * -ETIMEDOUT one has not ended (no right to kill it, or the kernel keeps it); it keeps its name. */
int survivors_end(int folder, struct survivor *found, int count, int limit_ms, struct error *error);
bool pidfd_wait(int pidfd, uint64_t limit_ms);   /* for the end of any process; false: not in time */
void survivor_let_go(struct survivor *survivor); /* closes its descriptors; it is without a master again */

#endif
