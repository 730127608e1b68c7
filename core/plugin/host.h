/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the decider: the instance of a profile's plugin, and the call that it is in. Private to core/plugin.
 *
 * A host function finds its instance behind the hp_host that the plugin hands back, and through it the call. It trusts
 * nothing else that comes from the plugin: not the flow (the call has its own), not a server's number, not a size. */
#ifndef PLUGIN_HOST_H
#define PLUGIN_HOST_H

#include "base/log.h"
#include "plugin/decide.h"
#include "plugin/values.h"
#include "segment/record.h"

struct instance {            /* of one profile */
    struct hp_host host;     /* first: host functions come back with its address */
    struct decider *decider; /* NULL in check(): every function but problem answers that there is nothing */
    const struct profile_values *values;
    struct diagnostics *diagnostics; /* for problem(); NULL: to the log and problem_text */
    char problem_text[256];          /* the last one */
    struct position problem_at;
    struct plugin *plugin; /* NULL: quarantined when the worker began, so not loaded */
    struct profile_values *owned_values;
    void *self; /* what create() returned */
    bool created;
    const struct config_profile *config;
    uint64_t identity;  /* of the profile: part of every key */
    uint32_t slot;      /* of the segment's profiles */
    uint32_t *counters; /* plugin counter -> entry of the process slot, SEGMENT_NO_INDEX: no room */
    uint64_t log_second, tick_at_ms;
    uint32_t log_lines, log_dropped; /* in that second */
};

/* What a host function may do at the moment: made by decide() and the like, gone when the plugin has returned. */
struct call {
    const struct decision_request *request; /* NULL: no flow (tick, create) */
    const struct topology_service *service;
    struct hp_flow flow;
    bool new_sa;
    /* answers of the last claim */
    bool claimed;
    int32_t claimed_server;
    enum decision_reason reason;
    uint32_t record;
    uint64_t watch;
    uint32_t flags;
    bool heard;
    /* what get() answered last: a plugin that keeps its own records may serve a draining server's client */
    int32_t got_server;
};

struct decider {
    const struct config *config;
    struct topology *topology;
    struct segment *segment;
    uint32_t self;
    bool root;                    /* homeport was started as root */
    struct process_slot *process; /* own slot; a private one where there is no segment */
    struct process_slot *private_process;
    struct log *log;
    struct instance *instances; /* by position in config.profiles */
    uint32_t instance_count;
    uint64_t now_ms;   /* of the present or last call into a plugin */
    struct call *call; /* NULL: not inside a plugin */
};

/* For check(): functions filled in, nothing behind them but problem(). */
void instance_init(struct instance *instance, const struct profile_values *values, struct diagnostics *diagnostics);

/* The flow as the plugin sees it, no answer yet. instance may be NULL. request and what it points to must outlive it.
 */
void call_begin(struct call *call, const struct decider *decider, const struct instance *instance,
                const struct decision_request *request);

/* The breadcrumb around each call into a plugin. call may be NULL. */
void instance_enter(struct instance *instance, enum plugin_operation operation, struct call *call);
void instance_leave(struct instance *instance);
bool instance_quarantined(const struct instance *instance);
/* NULL: the service has no profile, or nobody may call its plugin. */
struct instance *instance_of_service(const struct decider *decider, uint32_t service);

/* The claim of hp_host, and the same for the key that derive_key gave. Only inside a call with a request. */
int32_t claim_server(struct instance *instance, const struct hp_claim *claim);

/* A live session's own server may go on with it, by the state of the server alone. */
bool own_may_serve(const struct decider *decider, const struct call *call);
/* Without a record: a live session's own server, else the pool's scheduler. -1: none. */
int32_t server_pick(struct decider *decider, const struct call *call, int32_t prefer, bool any_pool, uint64_t hash);
/* A new client through a service that is at its max_clients? */
bool service_refuses(struct decider *decider, const struct call *call);
/* Maglev's hash: no secret in it, so that a key has the same place after a reboot and on another balancer. */
uint64_t maglev_hash(const void *key, size_t size);
uint64_t client_hash(const struct call *call); /* where there is no key */
/* Seconds that a record lives: rounded up, at least 1, at most what the clock of records can tell. */
uint32_t record_seconds(uint64_t ttl_ms);

#endif
