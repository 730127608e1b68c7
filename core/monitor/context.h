/* SPDX-License-Identifier: Apache-2.0 */
/* What every part of the monitor works on. Borrowed; made by monitor_open, the same for its whole life. Monitor only.
 */
#ifndef MONITOR_CONTEXT_H
#define MONITOR_CONTEXT_H

#include "base/log.h"
#include "pool/topology.h"
#include <uv.h>

struct monitor_context {
    uv_loop_t *loop;
    const struct config *config;
    struct topology *topology;
    struct segment *segment;
    struct process_slot *process; /* our own */
    struct log *log;
};

#endif
