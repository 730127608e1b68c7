/* SPDX-License-Identifier: Apache-2.0 */
/* What a pool's scheduler is built from, once for all services of the pool: weights in lowest terms, the sequence of
 * weighted round robin, the table of maglev. Private to core/pool. */
#ifndef POOL_SCHEDULER_H
#define POOL_SCHEDULER_H

#include "pool/topology.h"

#define MAGLEV_SIZE 65537u /* prime: every step of a permutation visits all entries */
#define SEQUENCE_MAX 4096u /* entries of weighted round robin; larger sums of weights are scaled down */

struct scheduler {
    uint32_t *weights;  /* by position in members, without a common factor */
    uint16_t *sequence; /* positions; weighted_round_robin alone, else NULL */
    uint32_t sequence_length;
    uint16_t *maglev; /* positions; memory that nobody touches until the table is first needed */
    bool maglev_filled;
};

/* NULL: no memory. */
struct scheduler *scheduler_open(const struct topology_service *service);
void scheduler_close(struct scheduler *scheduler); /* NULL is fine */

/* Fills the table of maglev. Which server stands where depends on names and weights alone: not on the order of the
 * configuration, not on the balancer. */
void maglev_fill(struct scheduler *scheduler, const struct topology_service *service);

/* Members that may be picked for a new key now, by position. */
struct candidates {
    uint32_t count;
    uint16_t positions[SEGMENT_SERVERS];
};
void candidates_collect(struct topology *topology, const struct topology_service *service, struct candidates *out);
/* Clients of a server: the monitor's last recount and what this process has added since. */
uint32_t server_clients(struct topology *topology, uint32_t slot);

#endif
