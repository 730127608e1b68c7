/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the story share. */
#ifndef CLI_DEMO_DEMO_H
#define CLI_DEMO_DEMO_H

#include "cli/demo/client.h"
#include "cli/demo/console.h"
#include "cli/demo/daemon.h"
#include "cli/demo/place.h"
#include "cli/demo/responders.h"
#include "cli/demo/stay.h"
#include "cli/demo/table.h"

#include <limits.h>

enum { DEMO_SIGNALS = 5, DEMO_TAIL = 40 };

struct demo_run {
    const char *name;  /* of the plugin and of its file in configs/ */
    const char *label; /* what the table says of it */
    bool homes;        /* it must bring all clients home; false: it must not */
};

struct demo {
    bool once;
    uint64_t seed;
    struct console console;
    struct place place;
    char self[PATH_MAX];            /* this binary */
    char configs[PATH_MAX];         /* where NAME.yaml is */
    char plugins[PATH_MAX];         /* where NAME/NAME.so is; "" wherever the daemon looks by itself */
    char folder[64];                /* ours, removed at the end; "" none yet */
    char config[128];               /* the file of this run */
    char servers[DEMO_SERVERS][32]; /* their names in it */
    char tail[DEMO_TAIL][1024];     /* the daemon's last lines, round and round */
    uint32_t told;                  /* how many lines there were in this run */
    uv_loop_t loop;
    uv_signal_t signals[DEMO_SIGNALS];
    uv_timer_t timer;
    uint32_t open; /* handles of the above that the loop has */
    bool interrupted, late;
    const struct demo_run *run;
    struct daemon *daemon;
    struct responders *responders;
    struct clients *clients;
    struct stay *stay; /* NULL: not there yet */
};

/* Folder, ports, loop and signals. demo_close undoes whatever was done, also after a failure. */
int demo_open(struct demo *demo, struct error *error);
void demo_close(struct demo *demo);
/* One persistence from scratch: fresh folder, fresh servers, a daemon, 60 clients. Daemon and clients go on after it.
 */
int demo_connect(struct demo *demo, const struct demo_run *run, struct result *result, struct error *error);
/* Ends what demo_connect began. Errors: the daemon did not end as it should. */
int demo_end(struct demo *demo, struct error *error);
/* The daemon's last lines, for people, on standard error. */
void demo_tell_tail(const struct demo *demo);

#endif
