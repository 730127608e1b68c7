/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon can do without, but not as well: said once, at the start, with what it costs and how to mend it. What
 * it cannot do without is an error where it is needed. */
#include "process/master.h"

#include "process/sandbox.h"
#include "relay/relay.h"
#include <linux/capability.h>
#include <netinet/in.h>
#include <unistd.h>

#define WORKER_DESCRIPTORS 64u /* besides sessions: listeners, channel, configuration, segment */

static uint32_t descriptors_each(const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->listener_count; i++)
        if (plan->listeners[i].protocol == IPPROTO_TCP)
            return 2;
    return 1;
}

/* A session needs a descriptor of its worker, one of TCP two. Processes inherit the master's limit. */
static void note_descriptors(struct master *self, const struct plan *plan)
{
    uint64_t limit = sandbox_descriptors(), lanes = self->segment->lane_count;
    uint64_t share = self->segment->rows_per_lane * ((lanes + plan->workers - 1) / plan->workers);

    uint32_t each = descriptors_each(plan);

    if (share * each + WORKER_DESCRIPTORS > limit)
        log_write(
            &self->log, LOG_WARNING,
            "sessions.capacity lets a worker hold %llu sessions, but the limit of descriptors is %llu: about %llu "
            "fit%s; raise LimitNOFILE (ulimit -n)",
            (unsigned long long)share, (unsigned long long)limit,
            (unsigned long long)(limit > WORKER_DESCRIPTORS ? (limit - WORKER_DESCRIPTORS) / each : 0),
            each > 1 ? ", if all are TCP, which needs two" : "");
}

/* Those that are not here stop the start where they lack: NET_BIND_SERVICE, SETUID, SETGID. */
static void note_capabilities(struct master *self, const struct plan *plan)
{
    if (geteuid() != 0)
        return;
    if (plan->uid != 0 && !sandbox_has_capability(CAP_KILL))
        log_write(&self->log, LOG_WARNING,
                  "without the capability KILL the master cannot end a worker that hangs; add it (container: "
                  "--cap-add=KILL)");
    if (plan->gid != 0 && !sandbox_has_capability(CAP_CHOWN))
        log_write(&self->log, LOG_INFO,
                  "without the capability CHOWN only root may ask over the control socket, not the group %u",
                  plan->gid);
}

/* Bursts that a small buffer does not hold are lost before any worker sees them. */
static void note_buffers(struct master *self)
{
    const struct generation *generation = self->next;
    uint32_t got, first = 0;

    while (first < generation->listener_count && generation->listeners[first].protocol != IPPROTO_UDP)
        first++;
    if (first == generation->listener_count)
        return;
    got = listener_buffer(generation->listeners[first].sockets[0]);
    if (got < LISTENER_BUFFER)
        log_write(&self->log, LOG_WARNING,
                  "a listener's receive buffer holds %u KiB instead of %u: bursts of new clients may be lost; raise "
                  "sysctl net.core.rmem_max to %u (on the host of a container)",
                  got >> 10, LISTENER_BUFFER >> 10, LISTENER_BUFFER);
}

void notices_write(struct master *self, const struct plan *plan)
{
    note_descriptors(self, plan);
    note_capabilities(self, plan);
    note_buffers(self);
}
