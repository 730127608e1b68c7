/* SPDX-License-Identifier: Apache-2.0 */
/* Starting ourselves in another role: fork and exec of our own file, so that a new binary in its place is what the next
 * process runs. Descriptors arrive at fixed numbers. */
#ifndef PROCESS_SPAWN_H
#define PROCESS_SPAWN_H

#include "base/error.h"
#include <uv.h>

enum {                    /* descriptors of a started process */
       SPAWN_CHANNEL = 3, /* worker, monitor: to the master; check: the plan */
       SPAWN_CONFIG = 4,  /* sealed configuration */
       SPAWN_SEGMENT = 5, /* worker, monitor */
       SPAWN_CONTROL = 6, /* monitor: the listening control socket */
       SPAWN_NEXT = 7,    /* worker, monitor: its socket for the next master (survivors.h) */
       SPAWN_KEEPER = 8,  /* worker: its keeper's channel to the master (relay/keeper.h) */
       SPAWN_DESCRIPTORS = 9
};

/* descriptors[0..SPAWN_DESCRIPTORS-1]: ours, to arrive at that number; -1: none (0 is then /dev/null). process->data is
 * the caller's. exited: by libuv's loop after reaping. Errors: uv codes. */
int spawn_role(uv_loop_t *loop, uv_process_t *process, char **arguments, const int descriptors[SPAWN_DESCRIPTORS],
               uv_exit_cb exited, struct error *error);

#endif
