/* SPDX-License-Identifier: Apache-2.0 */
/* After the table: the last run goes on, and a line says how many clients are still where they began. */
#ifndef CLI_DEMO_STAY_H
#define CLI_DEMO_STAY_H

#include "cli/demo/client.h"
#include "cli/demo/console.h"
#include "cli/demo/responders.h"

struct stay {
    struct console *console;
    struct clients *clients;
    struct responders *responders;
    char (*servers)[32];
    /* private */
    int home[DEMO_CLIENTS + 1];
    char said[128];
    uint64_t since_ms, said_ms;
    bool open;
    uv_timer_t timer;
};

/* The first four members are set by the caller; the structure stays where it is until stay_close. */
void stay_open(struct stay *stay, uv_loop_t *loop);
void stay_close(struct stay *stay, uv_loop_t *loop);
/* A server's process died. */
void stay_lost(struct stay *stay, uint32_t server);

#endif
