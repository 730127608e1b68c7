/* SPDX-License-Identifier: Apache-2.0 */
/* A shipped configuration, moved to the loopback: servers' addresses, listening addresses and ports, state folder,
 * the user where it does not exist, and where the plugins are. Everything else stays as it was written; comments are
 * lost. */
#ifndef CLI_DEMO_REWRITE_H
#define CLI_DEMO_REWRITE_H

#include "base/error.h"
#include "cli/demo/place.h"

struct rewrite {
    const char *from, *to; /* files */
    const char *state;     /* folder */
    const char *user;      /* NULL: as written */
    const char *plugins;   /* the folder of the plugins; NULL: as written */
    const struct place *place;
    char servers[DEMO_SERVERS][32]; /* out: their names, cut if need be */
};

/* Errors: -EINVAL the file is no YAML, or not of the shape that the demo can move (three servers; services); -errno of
 * reading and writing. */
int rewrite_config(struct rewrite *rewrite, struct error *error);

#endif
