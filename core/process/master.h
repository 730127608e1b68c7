/* SPDX-License-Identifier: Apache-2.0 */
/* The master's parts, private to this layer. One loop, one thread, the only process that keeps privileges. It parses no
 * byte from the network, no YAML, and loads no plugin.
 *
 *   master.c      start, signals, stop
 *   children.c    a started process: spawn, messages, reap
 *   adoption.c    what a dead master has left
 *   succession.c  who holds which lane, and how it gets to the next holder
 *   deaths.c      why a process died, who is to blame; the watchdog
 *   respawn.c     who takes the place of a dead one, and when; the spare worker
 *   reload.c      check, prepare, hand over
 *   generation.c  one configuration and what belongs to it
 *   listeners.c   the listening sockets
 *   notices.c     what could be better at this start
 *   notify.c      what a service manager is told
 *   state_folder.c  folder, lock, control socket */
#ifndef PROCESS_MASTER_H
#define PROCESS_MASTER_H

#include "base/log.h"
#include "process/channel.h"
#include "process/check.h"
#include "process/notify.h"
#include "process/plan.h"
#include "segment/segment.h"
#include <stdbool.h>
#include <uv.h>

#define PREPARE_LIMIT_MS 30000u  /* successors must be ready by then */
#define HAND_OVER_LIMIT_MS 2000u /* a holder that misses it is killed (design: lanes) */
#define STOP_LIMIT_MS 3000u      /* processes told to stop are killed then */
#define PAUSE_LIMIT_MS 5000u     /* the longest before a process is started again */

/* Whoever replaces the dead must not wait behind the living, who may keep every core busy: the master, and from its
 * birth until it serves a process that replaces one, run at a nice value that is this much lower; so does a keeper. */
#define NICE_STEP 20
#define NICE_NO_STEP 100
#define CATCH_UP_MS 300u /* for what has waited in its lanes */

#define SPARE SEGMENT_NO_INDEX /* the number of a worker that has no place yet */

struct master;
struct generation;

enum child_state { CHILD_STARTING, CHILD_READY, CHILD_LEAVING };

struct child {
    struct master *master;
    struct generation *generation;
    enum process_role role;
    uint32_t number; /* worker 0..N-1, or SPARE */
    uint32_t slot;   /* of the segment's processes */
    enum child_state state;
    uv_process_t process; /* not of an adopted one */
    int pidfd;
    uv_poll_t ended;  /* the pidfd is readable: it has ended */
    uint32_t handles; /* that the loop has not let go of */
    pid_t pid;
    pid_t keeper_pid;
    int keeper_pidfd; /* -1: not known, or none */
    int keeper;       /* our end of its keeper's channel (relay/keeper.h); -1: none */
    struct channel *channel;
    bool running; /* not reaped yet */
    uint64_t started_ms;
    uint64_t calls_seen; /* watchdog: inside_calls at its last look */
    bool inside_seen;
    bool hung;          /* killed by the watchdog */
    uint64_t stop_ms;   /* when it was told to stop; 0: not yet */
    uint64_t calm_ms;   /* from when on it is as urgent as everybody; 0: not known yet, UINT64_MAX: it is */
    uint64_t lost_ms;   /* of its life, in which the master was stopped */
    struct child *next; /* in master->children */
};

struct listener { /* of a generation, in the order of the plan */
    struct hp_endpoint address;
    uint32_t protocol;
    int *sockets; /* one a lane; shared with the generation before or after by dup */
};

/* One configuration with the processes that were born with it. */
struct generation {
    bool adopted; /* what another master has left: no configuration, nobody is started again, no lane is given to it */
    struct plan *plan;
    int source; /* sealed configuration */
    struct listener *listeners;
    uint32_t listener_count;
    struct child **workers; /* plan->workers; NULL: dead, to be started again */
    struct child *monitor;
    struct child *spare; /* takes the place of the next worker that dies; NULL: none */
    uint64_t *pauses;    /* respawn of worker i (monitor: at plan->workers, spare: behind it) not before this time */
    struct deaths {
        uint64_t last_ms;
        uint32_t in_a_row;
    } * deaths; /* likewise */
};

struct lane {
    struct child *owner;  /* holds it, or is taking it; NULL: nobody */
    struct child *giver;  /* still has to give it to owner */
    struct child *taker;  /* adoption alone: says that it is taking it */
    int left;             /* without owner: where its sockets come from, which a dead one has left; -1: nowhere */
    uint64_t deadline_ms; /* for the giver; without one, for the owner that is taking it */
    bool served;          /* owner said TAKEN */
};

struct reload;

struct master {
    uv_loop_t *loop;
    const char *path; /* of the configuration */
    struct log log;
    struct notify notify;
    struct segment *segment;
    int folder, lock, control;
    char control_path[320];
    bool control_named;                /* it has its name: somebody answers on it */
    struct generation *running, *next; /* next: being prepared */
    struct child *children;            /* all that are not reaped */
    struct lane *lanes;                /* segment->lane_count */
    struct reload *reload;
    uv_signal_t signals[3];     /* SIGTERM, SIGINT, SIGHUP */
    uv_timer_t tick;            /* every TICK_MS: loop time, deadlines, respawns */
    uint64_t watch_ms, tick_ms; /* the last ones */
    uint64_t taken_ms;          /* when a lane was taken last */
    bool reaping_waits;         /* SIGCHLD is blocked */
    uint64_t reaping_due_ms;
    bool stopping, announced; /* announced: it has said that it is ready */
    uint64_t stop_deadline_ms;
    int status; /* exit status */
    int nice;   /* as we were started; NICE_NO_STEP: we may not go below it */
};

/* state_folder.c. Errors name cause and next step; -EBUSY: another daemon, with its pid. */
int state_folder_open(struct master *self, const struct plan *plan, struct error *error);
int state_folder_announce(struct master *self, struct error *error); /* whoever asks is answered from now on */
void state_folder_close(struct master *self);

/* listeners.c. Sockets that the generation before has for the same address are used again (dup). */
int listeners_open(struct generation *generation, const struct generation *before, uint32_t lanes, struct error *error);
/* The one with the same address and protocol; NULL: there is none. */
struct listener *listener_find(const struct generation *generation, const struct listener *like);
/* Those that the generation after has no more: others who listen there get what comes from here on. */
void listeners_retire(const struct generation *generation, const struct generation *after, uint32_t lanes);
void listeners_close(struct generation *generation, uint32_t lanes);
/* A child that is gone already is no error: its end says why. */
int listeners_send(const struct generation *generation, struct child *child, uint32_t lanes, struct error *error);

/* adoption.c. Opens the segment, with the living processes of a dead master as the running generation; without any, as
 * the last life has left it. */
int adoption_open(struct master *self, const struct segment_shape *shape, struct error *error);
void adoption_abandon(struct master *self); /* they serve on without a master, as before */

/* notices.c. To the log; the first generation's listeners are open. */
void notices_write(struct master *self, const struct plan *plan);

/* generation.c */
struct generation *generation_make(const struct plan *plan,
                                   int source);                      /* copies plan, takes source over; NULL: memory */
void generation_free(struct generation *generation, uint32_t lanes); /* NULL is fine; its processes are gone */
/* Frees it once it is neither running nor next and none of its processes is left. */
void generation_release(struct master *self, struct generation *generation);
/* Slots of the segment for every name of the plan. -ENOSPC: a table is full. */
int generation_assign(struct master *self, const struct generation *generation, struct error *error);
void generation_apply(struct master *self, const struct generation *generation); /* server states; deaths forgotten */
/* Before one of its processes is started again: a hostile one may have overwritten what the new one looks for. */
int generation_restore(struct master *self, const struct generation *generation, struct error *error);

/* children.c */
int child_start(struct master *self, struct generation *generation, enum process_role role, uint32_t number,
                struct error *error);
int child_connect(struct child *child, int fd, struct error *error); /* its channel; takes fd over unless it fails */
int child_watch(struct child *child);   /* tells when its pidfd says that it has ended; negative: uv's */
void child_let_go(struct child *child); /* it ends without us; freed when the loop has let go of it */
void child_unlink(struct child *child); /* from the master's list */
void child_say(struct child *child, enum message_kind kind);
void child_stop(struct child *child);
void child_kill(struct child *child);
void calm(const struct master *self, pid_t pid);  /* from here on as urgent as everybody; 0: we */
void hurry(const struct master *self, pid_t pid); /* from here on as urgent as the master */
void child_calm(struct child *child);
void child_hurry(struct child *child); /* until it has caught up */
void child_hurry_keeper(struct child *child);
int child_equip(struct child *child, struct error *error); /* with its listeners; otherwise it is killed */
void children_calm(struct master *self, uint64_t now_ms);  /* those whose time it is */
const char *child_name(const struct child *child, char text[32]);

/* reaping.c */
void reaping_begin(struct master *self); /* at once, until nobody waits for the end of processes any more */
void reaping_tick(struct master *self);

/* succession.c */
void lanes_advance(struct master *self); /* whatever can be done now for each lane; idempotent */
void lanes_taken(struct master *self, struct child *child, uint32_t lane);
void lanes_given(struct master *self, struct child *child, uint32_t lane);
void lanes_child_died(struct master *self, struct child *child);
void lanes_deadlines(struct master *self, uint64_t now_ms);
void lanes_put_off(struct master *self, uint64_t by_ms);
bool lanes_all_served(const struct master *self);

/* deaths.c */
void child_died(struct child *child, int64_t status, int number);
void watchdog_look(struct master *self, uint64_t now_ms);
/* Each tick, first: time in which we were stopped is given back to all whom we have set a limit. */
void deadlines_put_off(struct master *self, uint64_t now_ms);

/* respawn.c */
void respawn_due(struct master *self, uint64_t now_ms);

/* reload.c. connection: who wants to know how it went, or -1. */
void reload_request(struct master *self, int connection);
void reload_child_ready(struct master *self, struct child *child);
void reload_child_failed(struct master *self, struct child *child, struct error *why);
void reload_deadline(struct master *self, uint64_t now_ms);
void reload_put_off(struct master *self, uint64_t by_ms);
void reload_lanes_served(struct master *self);
void reload_abandon(struct master *self); /* the daemon stops */

/* master.c */
void master_stop(struct master *self, int status);

#endif
