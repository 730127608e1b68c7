/* SPDX-License-Identifier: Apache-2.0 */
/* How a worker or monitor that has outlived its master finds the next one: it is found, by its socket in the state
 * folder (survivors.h). */
#ifndef PROCESS_NEXT_MASTER_H
#define PROCESS_NEXT_MASTER_H

#include "base/error.h"
#include <sys/types.h>
#include <uv.h>

struct next_master;

/* fd: the bound socket, taken over. uid: whom the master runs as; others, but for root, are turned away. came: a
 * connection that is the callee's from then on; who connects holds the master's lock, so the last master is dead. */
int next_master_open(struct next_master **out, uv_loop_t *loop, int fd, uid_t uid,
                     void (*came)(void *arg, int connection), void *arg, struct error *error);
void next_master_close(struct next_master *self); /* frees itself when the loop has let go of it; NULL is fine */

#endif
