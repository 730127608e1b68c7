/* SPDX-License-Identifier: Apache-2.0 */
/* What worker and monitor have in common: arguments, descriptors, privileges, configuration, segment, channel. */
#ifndef PROCESS_ROLE_H
#define PROCESS_ROLE_H

#include "base/log.h"
#include "config/config.h"
#include "pool/topology.h"
#include "process/channel.h"
#include "process/next_master.h"
#include "segment/segment.h"

struct role {
    enum process_role kind;
    uint32_t slot, number;
    bool root; /* started as root, whoever we are by now */
    struct log log;
    uv_loop_t loop;
    uv_prepare_t turn; /* writes the loop's time into the slot */
    uv_timer_t second; /* turns an idle loop */
    struct segment *segment;
    struct process_slot *self;
    const char *text; /* of the configuration */
    size_t text_size;
    struct config *config;
    struct topology *topology;
    struct channel_events events;
    struct channel *channel; /* to the master; after its death to nobody, then to the next one */
    bool masterless;
    struct next_master *next_master;
    void (*on_second)(struct role *role);
    void (*on_next_master)(struct role *role); /* says HOLDS and LISTENERS */
};

#define ROLE_ARGUMENTS 9               /* NAME _ROLE SLOT NUMBER UID GID PARENT PATH SOURCE */
#define ROLE_TRANSPARENT "transparent" /* SOURCE of a worker that keeps what sandbox_check_transparent is about */
#define ROLE_NAT "nat"                 /* of one that keeps nothing */
#define ROLE_SPARE "spare"             /* NUMBER of a worker that has no place yet */

/* Does it all, in this order: privileges first, then everything that reads. Fails: says why over the channel;
 * role_close is still due. */
int role_open(struct role *role, char **argv, const char *name, const struct channel_events *events);
/* Says READY, or FAILED with the error, and runs the loop until role_stop. */
void role_run(struct role *role);
/* The channel is closed, and the process serves on: until another master has come. */
void role_outlive(struct role *role);
void role_failed(struct role *role, const struct error *error);
void role_say(struct role *role, enum message_kind kind, uint32_t lane);
void role_stop(struct role *role); /* closes the loop's own handles: the loop ends when the others are closed as well */
void role_close(struct role *role);

int worker_main(char **argv);
int monitor_main(char **argv);

#endif
