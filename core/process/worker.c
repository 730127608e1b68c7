/* SPDX-License-Identifier: Apache-2.0 */
/* A worker from birth to end.
 * Happy path: privileges dropped, configuration, plugins, relay, READY; listeners arrive, then TAKE for each lane;
 * later GIVE for each lane, STOP, and it ends with status 0. A spare one is READY long before it is given its number.
 *
 * Fails:
 * - anything before READY: FAILED with the reason, status 1
 * - the master has gone: without a lane we end; with one we serve on, finish what is being given or
 *   taken, and tell the next master what we hold
 * - a lane cannot be taken, or a message came without its descriptors (the limit of them): logged, status 1; the
 *   replacement tries again */
#include "plugin/decide.h"
#include "process/role.h"
#include "process/spawn.h"
#include "relay/relay.h"

#include "base/clock.h"
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OTHER_DESCRIPTORS 256u /* besides those of sessions */

struct worker {
    struct role role;
    char *place; /* the argument that says its number: ps shows it */
    struct decider *decider;
    struct keeper *keeper;
    struct relay *relay;
    bool stopping;
    int status;
};

static void on_relay_closed(void *arg)
{
    struct worker *self = arg;

    self->relay = NULL;
    role_stop(&self->role);
}

static void stop(struct worker *self, int status)
{
    if (self->stopping)
        return;
    self->stopping = true;
    self->status = status;
    relay_close(self->relay, on_relay_closed, self);
}

static void on_taken(void *arg, uint32_t lane)
{
    struct worker *self = arg;

    role_say(&self->role, MESSAGE_TAKEN, lane);
}

static void on_given(void *arg, uint32_t lane)
{
    struct worker *self = arg;

    role_say(&self->role, MESSAGE_GIVEN, lane);
    if (self->role.masterless && !relay_holds_lanes(self->relay))
        stop(self, 0); /* nobody is there to dismiss it */
}

/* The kernel cuts descriptors for which there is no room. Without them a lane would be taken as if nobody held it. */
static int check_whole(const struct message *message, uint32_t count, struct error *error)
{
    bool carries = message->kind == MESSAGE_LISTENERS || message->kind == MESSAGE_TAKE || message->kind == MESSAGE_GIVE;

    if (!carries || message->count == count)
        return 0;
    error_set(error, -EMFILE, "%u descriptors of the master's message have not arrived", message->count - count);
    return error_next(error, "raise LimitNOFILE (ulimit -n), or lower sessions.capacity");
}

static void name_it(struct worker *self, uint32_t number)
{
    size_t room = strlen(self->place);

    self->role.number = number;
    snprintf(self->role.log.process, sizeof self->role.log.process, "worker %u", number);
    memset(self->place, 0, room);
    snprintf(self->place, room + 1, "%u", number);
}

static void on_message(void *arg, const struct message *message, int *descriptors, uint32_t count)
{
    struct worker *self = arg;
    struct error error = {0};
    uint32_t used = 0;
    int status = check_whole(message, count, &error);

    if (self->stopping || status < 0) {
        /* nothing is taken on any more */
    } else if (message->kind == MESSAGE_LISTENERS) {
        for (; used < count && status == 0; used++)
            status = relay_add_listener(self->relay, message->listeners[used], message->lanes[used], descriptors[used],
                                        &error);
    } else if (message->kind == MESSAGE_TAKE) {
        status =
            relay_take(self->relay, message->lanes[0], count > 0 ? descriptors[used++] : -1, on_taken, self, &error);
    } else if (message->kind == MESSAGE_GIVE) {
        status = relay_give(self->relay, message->lanes[0], descriptors[used++], on_given, self, &error);
    } else if (message->kind == MESSAGE_NUMBER) {
        name_it(self, message->lanes[0]);
    } else if (message->kind == MESSAGE_STOP) {
        stop(self, 0);
    }
    while (used < count)
        close(descriptors[used++]);
    if (status < 0 && !self->stopping) {
        log_failure(&self->role.log, LOG_ERROR, &error);
        stop(self, 1);
    }
}

static void on_closed(void *arg)
{
    struct worker *self = arg;

    if (!self->stopping && relay_holds_lanes(self->relay))
        role_outlive(&self->role);
    else
        stop(self, 1);
}

static void add_lane(void *arg, uint32_t lane, enum lane_state state)
{
    series_add(arg, state, lane, -1);
}

static void add_listener(void *arg, uint32_t lane, int fd)
{
    series_add(arg, 0, lane, fd);
}

static void on_next_master(struct role *role)
{
    const struct worker *self = (struct worker *)role; /* its first member */
    struct channel_series series;

    if (self->relay == NULL)
        return;
    series_begin(&series, role->channel, MESSAGE_HOLDS);
    relay_describe(self->relay, &(struct relay_view){&series, add_lane, NULL});
    series_end(&series);
    series_begin(&series, role->channel, MESSAGE_LISTENERS);
    relay_describe(self->relay, &(struct relay_view){&series, NULL, add_listener});
    series_end(&series);
}

static void on_second(struct role *role)
{
    struct worker *self = (struct worker *)role; /* its first member */

    decider_tick(self->decider, clock_now_ms());
}

static int open_relay(struct worker *self, struct error *error)
{
    struct role *role = &self->role;
    uint32_t lanes = role->segment->lane_count / role->config->workers + 1, each = 1;
    int status;

    for (uint32_t i = 0; i < role->config->service_count; i++)
        if (role->config->services[i].protocol == IPPROTO_TCP)
            each = 2;
    if (keeper_open(&self->keeper, role->segment, lanes * role->segment->rows_per_lane * each + OTHER_DESCRIPTORS,
                    SPAWN_KEEPER, error) < 0)
        log_failure(&role->log, LOG_WARNING, error);
    status = decider_open(&self->decider, role->config, role->topology, role->segment, role->slot, role->root,
                          &role->log, error);

    if (status < 0)
        return status;
    return relay_open(&self->relay, &role->loop, role->config, role->topology, self->decider, role->segment,
                      self->keeper, role->slot, &role->log, error);
}

int worker_main(char **argv)
{
    struct worker self = {.status = 0, .place = argv[3]};
    struct channel_events events = {&self, on_message, on_closed};
    struct error error = {0};
    char name[32];

    snprintf(name, sizeof name, "worker %.8s", argv[3]);
    if (role_open(&self.role, argv, name, &events) < 0) {
        self.status = 1;
    } else if (open_relay(&self, &error) < 0) {
        role_failed(&self.role, &error);
        self.status = 1;
    } else {
        self.role.on_second = on_second;
        self.role.on_next_master = on_next_master;
        relay_reserve(self.relay, self.role.config->workers);
        if (strcmp(argv[3], ROLE_SPARE) == 0)
            relay_warm(self.relay, self.role.config->workers);
        role_run(&self.role);
    }
    decider_close(self.decider);
    keeper_close(self.keeper);
    role_close(&self.role);
    return self.status;
}
