/* SPDX-License-Identifier: Apache-2.0 */
/* What the check child hands back to the master: plain data in a memfd that both map, of one fixed size. The child has
 * parsed a file that may be hostile and run foreign code, so the master believes nothing until plan_valid. */
#ifndef PROCESS_PLAN_H
#define PROCESS_PLAN_H

#include "base/error.h"
#include "config/config.h"
#include "segment/layout.h"
#include <stdbool.h>
#include <sys/types.h>

#define PLAN_MAGIC 0x6e616c70u
#define PLAN_LISTENERS 512u

struct plan_server {
    char name[SEGMENT_NAME];
    struct hp_endpoint address;
    uint32_t state; /* enum server_state */
    uint32_t probe_count;
    uint32_t probes[SEGMENT_PROBES]; /* protocol << 16 | port */
};
struct plan_name {
    char name[SEGMENT_NAME];
};
struct plan_listener {
    struct hp_endpoint address;
    uint32_t protocol;
    char service[SEGMENT_NAME];
};

struct plan {
    uint32_t magic; /* written last: the whole plan is there */
    uint32_t workers;
    uint32_t uid, gid;
    char state[256];
    uint32_t log_level, log_format;
    uint32_t records, sessions;
    uint32_t server_count, pool_count, profile_count, service_count, listener_count;
    struct plan_server servers[SEGMENT_SERVERS];
    struct plan_name pools[SEGMENT_POOLS], profiles[SEGMENT_PROFILES], services[SEGMENT_SERVICES];
    struct plan_listener listeners[PLAN_LISTENERS];
    struct hp_endpoint sources[SEGMENT_SOURCES]; /* own addresses of source lists */
    uint32_t source_count;
    uint32_t transparent; /* 1: some service is: workers need the capabilities for it */
    char doing[160];      /* "plugin NAME of profile PROFILE": what the child was at, should it die there */
};

/* [check] Fills the plan from the model. Errors: -E2BIG more of something than a table holds. magic stays 0. */
int plan_fill(struct plan *plan, const struct config *config, struct error *error);
/* [check] The user that workers and monitor run as, when the daemon is root. -ENOENT: no such user (error has the
 * remedy). */
int plan_user(struct plan *plan, const struct config *config, struct error *error);
/* [master] Every count and enumeration in range, every string ended, addresses of a known family. */
bool plan_valid(const struct plan *plan);

#endif
