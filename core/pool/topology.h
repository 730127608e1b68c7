/* SPDX-License-Identifier: Apache-2.0 */
/* Which servers may serve which service, now: the configuration tied to the segment's slots, with group health,
 * limits and schedulers. Built once per process (worker, monitor, check child without a segment is not needed), never
 * changed; what changes is read from the segment at each call. Nothing here allocates after topology_open.
 *
 * Down: a server's down bits that count for a service are those of the service's own port and, when the service belongs
 * to a group (UDP services of one profile, `health: { group: no }` excepted), of every port of the group. */
#ifndef POOL_TOPOLOGY_H
#define POOL_TOPOLOGY_H

#include "config/config.h"
#include "segment/segment.h"

struct member {
    uint32_t slot; /* of the segment's servers */
    uint32_t weight, max_clients;
    uint64_t down_mask; /* bits of the server word: own port and the group's */
    const struct config_server *config;
};
struct scheduler; /* private: sequence of weighted round robin, maglev table */

struct topology_service {
    const struct config_service *config;
    const struct config_pool *pool;
    uint64_t identity; /* hash_identity("service", name) */
    uint32_t slot;     /* of the segment's services */
    uint32_t pool_slot;
    struct member *members;
    uint32_t member_count;
    struct scheduler *scheduler;
    uint8_t *sources; /* own addresses towards the servers, positions in the segment's; nat: the route's choice alone */
    uint32_t source_count;
};

struct topology {
    const struct config *config;
    struct segment *segment;
    struct topology_service *services; /* by position in config.services */
    uint32_t service_count;
    /* clients that this process has added to each server and service since the last recount */
    uint64_t recount_seen;
    uint32_t *added_servers;  /* by server slot */
    uint32_t *added_services; /* by service slot */
    uint64_t random_state;
};

/* Borrows config and segment. The master has assigned all slots before. Errors: -ENOENT a name has no slot, -ENOMEM. */
int topology_open(struct topology **out, const struct config *config, struct segment *segment, struct error *error);
void topology_close(struct topology *topology);

const struct member *topology_member(const struct topology_service *service, uint32_t slot); /* NULL: not in its pool */
/* The service's own member, else any other service's; NULL: no pool names the server any more. */
const struct member *topology_member_anywhere(const struct topology *topology, const struct topology_service *service,
                                              uint32_t slot);
/* By the probes' view, group included; a server that is in no probe is up. */
bool topology_is_up(const struct topology *topology, const struct member *member);
/* No enabled member of the service is up: with all_down serve, all count as up. */
bool topology_all_down(const struct topology *topology, const struct topology_service *service);
/* Server's limit reached (max_clients, counted as topology_count_client counts). */
bool topology_is_full(struct topology *topology, const struct member *member);
bool topology_service_full(struct topology *topology, const struct topology_service *service);
/* Enabled, up (or all down and all_down serve), does not refuse new clients (likewise), not full: may be picked for a
 * new key. */
bool topology_takes_new(struct topology *topology, const struct topology_service *service, const struct member *member);

/* May the server of a record serve this flow? The state table of config.md, first three columns. */
struct topology_question {
    bool any_pool;   /* HP_CLAIM_ANY_POOL: members of other services' pools are fine */
    bool heard;      /* the record was used within the service's idle time: a live session */
    bool new_sa;     /* IKE_SA_INIT request of an IKE service */
    bool over_limit; /* HP_CLAIM_OVER_LIMIT */
    bool taken_out;  /* the record is of this very pool, which named its server then: drained there, if not there now */
};
enum topology_answer {
    TOPOLOGY_HONOUR,       /* serve and extend the record */
    TOPOLOGY_HONOUR_STILL, /* serve, do not extend (offline) */
    TOPOLOGY_MOVE,         /* elsewhere, the record moves */
    TOPOLOGY_FOREIGN,      /* this flow's pool does not name it: elsewhere, the record stays */
    TOPOLOGY_FULL, /* at its limit and the client is not counted there yet: the claim's flags say what follows */
};
enum topology_answer topology_ask(struct topology *topology, const struct topology_service *service, uint32_t slot,
                                  const struct topology_question *question);

/* What becomes of one datagram of a live session by its server's state alone (last column of the table). member NULL:
 * its server is in no pool any more and drains, so the datagram passes; topology_member_anywhere finds the one whose
 * state still counts when only this service's pool has let it go. */
enum topology_pass { TOPOLOGY_PASS, TOPOLOGY_DECIDE_ANEW, TOPOLOGY_DROP };
enum topology_pass topology_datagram(const struct topology *topology, const struct topology_service *service,
                                     const struct member *member, bool new_sa);

/* Which own address a client reaches its server from: the one that stands in its record, once it was chosen there; for
 * a new client the one with the fewest clients not yet proven at that server, of those that it does not refuse. Without
 * a record all flows of a client's address come from one, by a hash. */
struct topology_source_question {
    uint32_t server; /* slot */
    uint32_t record; /* SEGMENT_NO_INDEX: none */
    uint64_t watch;  /* RECORD_DECISION of it */
    bool heard;      /* the record was used within the idle time: a session may live that comes from its source */
    int32_t prefer;  /* of the session that goes on; -1: none */
    const struct hp_endpoint *client;
};
/* SEGMENT_NO_INDEX: none of them is on this machine. */
uint32_t topology_source(struct topology *topology, const struct topology_service *service,
                         const struct topology_source_question *question);
/* One of the service's sources is on this machine, and of the server's family. */
bool topology_has_source(const struct topology *topology, const struct topology_service *service, uint32_t slot);
/* No new client may go to the server: it refuses new IKE_SAs from each of the service's sources that is here, or none
 * is here. */
bool topology_refuses(const struct topology *topology, const struct topology_service *service, uint32_t slot);
/* Every server of the service that is enabled and up refuses: with all_down serve, as if none did. */
bool topology_all_refuse(const struct topology *topology, const struct topology_service *service);

/* The pool's scheduler. hash: of the key (maglev); any number where there is none. A server slot, or -1: none may be
 * picked. topology_maglev ignores the pool's own scheduler (table full). */
int32_t topology_schedule(struct topology *topology, const struct topology_service *service, uint64_t hash);
int32_t topology_maglev(struct topology *topology, const struct topology_service *service, uint64_t hash);
/* A new client went to the server through the service: counts until the monitor's next recount. */
void topology_count_client(struct topology *topology, const struct topology_service *service, uint32_t slot);

#endif
