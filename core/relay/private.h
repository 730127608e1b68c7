/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the relay share. Nothing here is seen outside this folder.
 *
 * The loop watches an epoll instance of each lane, and these the listeners and the sockets towards servers: a handle of
 * the loop for each session would cost three system calls and 160 octets more, and would stop at the first ICMP error.
 * A lane that is given away goes with one call, not with one a socket. */
#ifndef RELAY_PRIVATE_H
#define RELAY_PRIVATE_H

#include "relay/batch.h"
#include "relay/flow_index.h"
#include "relay/keeper.h"
#include "relay/relay.h"
#include "relay/run.h"
#include "relay/stream_half.h"
#include "segment/record.h"
#include "segment/session.h"
#include "segment/trace.h"

#include <sys/queue.h>

#define RELAY_TICK_MS 25u /* the sweep visits a fortieth of the rows each time: every row once a second */
#define RELAY_TICKS 40u
#define RELAY_REST_TICKS 4u     /* for which a listener rests that finds no descriptor for who comes */
#define RELAY_REOPEN 64u        /* sockets taken or opened per loop turn behind a hand-over */
#define RELAY_REKEY 128u        /* rows looked at per loop turn for another key */
#define RELAY_QUIET_MS 5000u    /* a session that was heard since: its record has not expired */
#define RELAY_PROBATION_S 10u   /* of a record that a proven session has claimed */
#define RELAY_NO_SLOT UINT8_MAX /* end of a chain of slots of a vector */
/* Row flag: watch and record are written. A holder that was killed before it came so far leaves it out. */
#define RELAY_ROW_DECIDED (1u << 31)

_Static_assert(BATCH_SLOTS < RELAY_NO_SLOT, "a slot's number fits its chain");

struct service { /* a service of the configuration, by its position there */
    const struct config_service *config;
    const struct topology_service *topology;
    uint32_t position;
    uint32_t observes; /* HP_OBSERVE_ bits that its plugin wants */
    uint32_t decides;  /* HP_DECIDE_ bits */
    uint64_t settings; /* decider_settings */
};

enum watched_kind { WATCHED_LISTENER, WATCHED_PATH, WATCHED_ACCEPTOR, WATCHED_STREAM };
struct watched { /* first member of what epoll watches */
    enum watched_kind kind;
    int fd;  /* -1: closed; an event that is still in hand is for nobody */
    bool on; /* epoll watches it */
};

struct listener { /* the lane's socket of a listening address */
    struct watched watched;
    struct lane *lane;
    const struct service *service;
    struct hp_endpoint address;
    uint32_t number;
    bool wildcard;
    uint32_t drops;                  /* SO_RXQ_OVFL as last seen */
    bool one_speaks;                 /* has filled the last vector alone */
    uint8_t reply_first, reply_last; /* slots of relay.replies that wait for this socket */
    struct listener *next;           /* of the lane */
    struct listener *next_waiting;   /* with replies */
};

/* The living side of a session's row: the socket towards its server and what needs no survival. One for each live row
 * of a lane that is held; all of it can be made again from the row. */
struct path {
    struct watched watched; /* fd -1: to be taken or opened with the client's next datagram, or when the loop is idle */
    struct stream *stream;  /* TCP: both its sockets are there; NULL: UDP */
    struct lane *lane;
    struct session_row *row;
    const struct service *service;
    struct listener *listener;
    struct hp_endpoint server;   /* with port, as the socket is connected */
    const struct member *member; /* NULL: its server is not in the service's pool (any more) */
    struct path *next;           /* with datagrams to send, or buried */
    uint8_t first, last;         /* slots of relay.arrivals to be sent */
    uint8_t count;               /* of these */
    struct backlog *backlog;     /* what has come and waits for its turn; NULL: nothing */
    uint32_t zone;               /* of our own address, as its client last wrote to it; 0: none, or not heard yet */
    uint32_t sights;             /* for observe */
    uint32_t esp_spi;            /* the last that its plugin was asked about; 0: the next one is new */
    uint32_t asked_s, asks[2];   /* when that was, and how often in that second: ESP, IKE */
    bool ask_again;              /* see path_ask_again */
    bool leaving;                /* its service has gone: what its server still answers is passed on */
    bool stays;                  /* at its server, though another one has its key */
    bool table_full;             /* has no record for want of room: to be asked again */
    uint64_t init_ms;            /* when its client's IKE_SA_INIT came that is not answered yet; 0: none */
    uint8_t init_spi[8];         /* of the last one that was counted: repeats are not */
    uint32_t esp_told[2];        /* generation of the traces that know of ESP to the server, to the client */
};

struct cells { /* free source ports of one lane from one source towards one address: a ring, longest free first */
    struct cells *next;
    struct hp_endpoint server;
    uint32_t source;
    uint32_t capacity, first, count;
    uint16_t ports[];
};

struct lane {
    int epoll;         /* -1: the lane is neither held nor being taken */
    struct look *look; /* the loop's, at it; NULL: there is none */
    struct relay *relay;
    uint32_t number;
    enum lane_state state;
    struct listener *listeners;
    struct session_row *rows; /* the partition */
    uint32_t row_count;
    struct path **paths; /* by row; NULL: not live. NULL as a whole: the lane is not held nor being taken */
    struct flow_index index;
    uint32_t *free_rows; /* a ring, longest free first: ended rows remember when their port was used last */
    uint32_t free_first, free_count;
    bool free_listed;
    bool frozen;  /* nobody writes its rows: they can be adopted before its sockets have come */
    bool adopted; /* its rows have their paths */
    struct cells *cells;
    uint64_t crowd_ms;      /* when a full vector was last one with a light session */
    struct stream **coming; /* by row: streams from the last holder that are not adopted yet; NULL: none */
    int *incoming;          /* by row: sockets from the last holder that are not used yet, else -1; NULL: none */
    bool looked_at;         /* by the last holder: each comes from where its row says */
    /* Rows whose socket is still closed, most recently used first; NULL: not listed yet, or no memory. */
    uint32_t *reopen;
    uint32_t reopen_next, reopen_count;
    bool no_descriptor;            /* left, while they were opened */
    uint32_t rekey_next;           /* the first row whose session was not asked about its key yet */
    bool from_route, from_address; /* it has had sessions of either kind of source: see cell_take */
    struct lane *next;
};

struct transfer; /* handover.c */
struct backlog;  /* backlog.c */

struct flow {
    struct listener *listener;
    const struct hp_endpoint *client, *local;
};

struct arrival { /* what is known of a datagram in relay.arrivals */
    struct hp_endpoint client, local;
    struct ike_datagram ike;
    struct path *path;
    uint8_t next; /* of the same path */
    uint8_t mark; /* DSCP and ECN, as it came */
};

struct relay {
    uv_loop_t *loop;
    const struct config *config;
    struct topology *topology;
    struct decider *decider;
    struct segment *segment;
    struct process_slot *slot;
    struct keeper *keeper; /* NULL: none */
    uint32_t self;
    struct log *log;
    struct service *services;
    struct lane *lanes;
    uint8_t secret[16]; /* of the flow indices */
    uint64_t now_ms;    /* read once per wake-up */
    uv_timer_t tick;
    uv_idle_t catching_up;
    uv_idle_t backlog_turn;
    TAILQ_HEAD(, backlog) backlogs; /* of all sessions that have one */
    uint32_t backlog_count, backlog_octets;
    uint32_t backlog_came, backlog_came_octets; /* since their last turn */
    uint64_t light_ms;                          /* when a session was last read that had little in its vector */
    bool first_things_first;                    /* what has waited in the listeners, before it catches up */
    uint32_t ticks;                             /* since it began to catch up */
    struct batch arrivals, replies;
    struct arrival arrival[BATCH_SLOTS];
    struct path *sending; /* paths with datagrams of relay.arrivals */
    struct path *reply_path[BATCH_SLOTS];
    uint8_t reply_next[BATCH_SLOTS];
    struct listener *waiting; /* listeners with replies */
    struct runs runs;
    struct path *buried; /* ended paths: an event in hand may still name them */
    struct transfer *transfers;
    int stream_limit;            /* descriptors from here on are for what a hand-over needs */
    int spare;                   /* a descriptor for refusing a connection when none is left; -1: none */
    uint8_t chunk[STREAM_CHUNK]; /* what was read of a stream, or of another relay; as long as a call */
    uint64_t source_checked_ms[SEGMENT_SOURCES]; /* whether the address is here, when the kernel took no datagram */
    uint32_t handles;                            /* that the loop has not let go of */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
    bool tracing; /* somebody follows a client, at this wake-up */
};

static inline void relay_count(struct relay *relay, enum counter counter, uint64_t by)
{
    counter_add(relay->slot, counter, by);
}
/* Refused or dropped: for all, and for the lane. note: who decides has counted it for all already. */
static inline void lane_note_loss(struct lane *lane, enum lane_loss loss, uint64_t by)
{
    /* a giver still counts what its listeners have dropped when the taker serves */
    atomic_fetch_add_explicit(&lane->relay->segment->lanes[lane->number].losses[loss], by, memory_order_relaxed);
}
static inline void lane_lose(struct lane *lane, enum lane_loss loss, uint64_t by)
{
    if (by == 0)
        return;
    relay_count(lane->relay, lane_loss_counter(loss), by);
    lane_note_loss(lane, loss, by);
}
static inline uint32_t relay_now_s(const struct relay *relay)
{
    return (uint32_t)(relay->now_ms / 1000);
}

static inline bool row_proven(const struct session_row *row)
{
    return (atomic_load_explicit(&row->flags, memory_order_relaxed) & SESSION_PROVEN) != 0;
}
static inline bool row_transparent(const struct session_row *row)
{
    return (atomic_load_explicit(&row->flags, memory_order_relaxed) & SESSION_TRANSPARENT) != 0;
}
static inline uint64_t row_last_ms(const struct session_row *row) /* last datagram of either side */
{
    uint64_t client_ms = atomic_load_explicit(&row->client_ms, memory_order_relaxed);
    uint64_t server_ms = atomic_load_explicit(&row->server_ms, memory_order_relaxed);

    return client_ms > server_ms ? client_ms : server_ms;
}
static inline void row_add(_Atomic uint64_t *word, uint64_t by) /* one writer: the holder */
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + by, memory_order_relaxed);
}

/* relay.c */
void relay_wake(struct relay *relay); /* reads the clock; at the start of every callback */
void relay_rest(struct relay *relay); /* frees what was buried; at the end of every callback */
int relay_watch(int epoll, struct watched *watched);
void relay_unwatch(int epoll, struct watched *watched); /* the descriptor stays open */
int relay_look_open(struct lane *lane);                 /* at its epoll instance; reads nothing yet */
void relay_look_at(struct lane *lane);                  /* what it watches is read from now on */
void relay_look_away(struct lane *lane);                /* nothing of it is read any more */
void relay_look_close(struct lane *lane);               /* before its epoll instance is closed */
void relay_let_go(struct relay *relay);                 /* one handle less */
void relay_catch_up(struct relay *relay);               /* a lane has rows to be keyed anew, or sockets to be opened */

/* listener.c */
uint32_t listener_drops(int fd); /* what the kernel has dropped at this socket until now */
void listener_count_drops(struct listener *listener, uint32_t drops); /* those that are new */

/* lane.c */
struct lane *lane_find(struct relay *relay, uint32_t number); /* made when it is not there yet; NULL: no memory */
int lane_prepare(struct lane *lane, struct error *error);     /* memory for holding it */
void lane_adopt(struct lane *lane);  /* becomes the holder and rebuilds from the rows: nobody writes them any more */
void lane_hold(struct lane *lane);   /* the same, unless that is done, and serves */
void lane_let_go(struct lane *lane); /* says that it is not the holder any more */
void lane_forget(struct lane *lane); /* closes its descriptors, frees its memory; no session ends */
void lane_free(struct lane *lane);
struct listener *lane_listener(const struct lane *lane, const struct session_row *row);
/* Of a row whose service is gone: a wildcard, by which an answer can still leave from where the client wrote to. */
struct listener *lane_listener_behind(const struct lane *lane, const struct session_row *row);
struct session_row *lane_take_row(struct lane *lane); /* NULL: full */
void lane_give_row(struct lane *lane, struct session_row *row);
bool lane_is_full(struct lane *lane);
/* Of the last holder, for the row at this position; -1: none. */
void lane_keep_socket(struct lane *lane, uint32_t position, int fd);
int lane_take_socket(struct lane *lane, const struct session_row *row); /* -1: there is none; the caller's by now */
bool lane_rekey(struct lane *lane, uint32_t limit);                     /* false: no row left to look at */
bool lane_reopen(struct lane *lane, uint32_t limit);                    /* false: nothing left to open */

/* cell.c: source is a position in the segment's sources */
bool cell_take(struct lane *lane, const struct hp_endpoint *server, uint32_t source, uint16_t *port); /* false: none */
/* Has been used (or cannot be): to the end of the queue. */
void cell_give(struct lane *lane, const struct hp_endpoint *server, uint32_t source, uint16_t port);
/* Has not been used: to its head. */
void cell_give_back(struct lane *lane, const struct hp_endpoint *server, uint32_t source, uint16_t port);
void cell_free_all(struct lane *lane);
void cell_note_source(struct lane *lane,
                      const struct session_row *row); /* a session of the lane: which kind it is of */

/* upstream.c. Negative errno values; -ENXIO: the source's address is not on this machine; -EPERM, -EACCES: a
 * transparent row, and this worker has no capability for it. */
int upstream_open(int *out, const struct segment *segment, const struct session_row *row,
                  const struct hp_endpoint *server);
int upstream_bind(int fd, const struct hp_endpoint *own, bool transparent);
/* Of connect: -ENXIO where the address is not here, though net.ipv4.ip_nonlocal_bind has let us bind it. */
int upstream_connect_status(int status, const struct hp_endpoint *own);
void upstream_prefer_lasting(int fd); /* of our IPv6 addresses, a socket that is to be connected */
/* Of a socket from another process: is it what the row says? The server of its number may have another address now. */
bool upstream_leads_to(int fd, const struct hp_endpoint *server);
bool upstream_comes_from(int fd, const struct segment *segment, const struct session_row *row,
                         const struct hp_endpoint *server);
struct hp_endpoint upstream_server(const struct segment *segment, const struct session_row *row);
/* As whom the server sees the row: its client, or its source's address with the cell's port; without an address the
 * route chooses it. */
struct hp_endpoint upstream_own(const struct segment *segment, const struct session_row *row,
                                const struct hp_endpoint *server);

/* source.c */
/* The own address that a session which begins comes from; before: the row that it goes on from, NULL: none.
 * SEGMENT_NO_INDEX: none is here. */
uint32_t source_choose(struct relay *relay, const struct flow *flow, const struct decision *decision,
                       const struct session_row *before);
void source_is_absent(struct relay *relay, uint32_t source); /* a cell could not be bound for that */
/* Its record's client comes from another address by now: the session follows. */
bool source_differs(const struct path *path, const struct decision *decision);
/* "Refuses clients": an IKE_SA_INIT has come from the client; something has come from its server; a second has passed.
 */
void source_asked(struct path *path, const struct ike_datagram *ike);
void source_answered(struct path *path, const uint8_t *data, uint32_t size);
void source_look(struct path *path);
void source_dropped(struct path *path); /* the kernel took no datagram: has the address gone? */

/* path.c */
struct path *path_make(struct lane *lane, struct session_row *row, struct listener *listener,
                       const struct hp_endpoint *server); /* NULL: no memory */
void path_enter(struct path *path);                       /* its row is live: it can be found */
void path_free(struct path *path);
/* A session begins at the decision's server. before: the row of the one that it goes on from, NULL: a new one. NULL:
 * refused and counted. */
struct path *path_begin(const struct flow *flow, const struct decision *decision, const struct session_row *before);
/* In a row that is still to begin: as whom its server shall see it. */
void row_source(struct session_row *row, const struct service *service);
struct path *path_adopt(struct lane *lane, struct session_row *row, struct listener *listener); /* no socket yet */
/* reason: for the log of sessions; NULL: nothing is said. */
void path_end(struct path *path, const char *reason);
int path_forget(struct path *path); /* the row lives on; its socket, which nobody watches by now: to be closed; or -1 */
/* Takes the socket that came for it, or opens its cell; negative errno values. */
int path_open(struct path *path);
void path_watch_record(struct path *path, const struct decision *decision);
/* The record as it is now. false: there is none, or it is another decision than `watch` by now. */
bool path_finds(const struct path *path, uint32_t record, uint64_t watch, struct record_ref *ref);
void path_keep_record(const struct path *path, struct record_ref *ref); /* does not expire while the session lives */
bool path_watched(const struct path *path, struct record_ref *ref); /* false: no record, or another decision by now */
void path_refresh(struct path *path, struct record_ref *ref); /* traffic: the record was used, and is as proven as we */
void path_prove(struct path *path);
void path_prove_record(const struct path *path, struct record_ref *ref); /* the watched one, if it is time */
/* Who forges datagrams of a proven session makes it claim records: those are proven only when they are old enough and
 * its server has answered since. */
bool path_has_borne_out(const struct path *path, const struct record_ref *ref);
/* The configuration may give the flow another key than it was decided by, or there may be room for a record by now.
 * Unless settings and key are those of its record: decided once more, with its own server preferred. Where another
 * server has the key already the session stays where it is, without a record: new flows follow that record, and this
 * one when its client begins a new IKE_SA. Only for a session whose own server may serve on. */
void path_ask_again(struct path *path, const struct decision_request *request);
/* After it was adopted, where the plugin needs no datagram for its key: with the next sweep, or, where a new flow of
 * its client could go elsewhere until then (other settings, no record or one that may have expired), before that. */
void path_rekey(struct path *path);
bool path_may_wait(const struct path *path);
void path_refused(const struct flow *flow, int status); /* counts what a failed path_open means */

/* kept.c: records that the session has claimed besides the one that it watches */
bool kept_add(struct path *path, const struct decision *decision);      /* false: it is to be watched */
void kept_copy(struct session_row *to, const struct session_row *from); /* a new row of the same session */
void kept_refresh(struct path *path);                                   /* once a second */
void kept_delete(struct path *path);                                    /* the records */

/* udp.c, reply.c */
bool udp_read(struct listener *listener); /* true: there may be more to read */
/* What has been read goes out. crowded: who has more than its share of a vector waits. */
void udp_send_waiting(struct relay *relay, bool crowded);
void udp_add(struct relay *relay, const struct path *path, const struct run_datagram *datagram);
void udp_send_runs(struct relay *relay, struct path *path); /* what was added, on the session's socket; counted */
void reply_read(struct path *path);
void reply_flush(struct relay *relay);

/* backlog.c */
bool backlog_has_room(const struct relay *relay); /* for a session that has none yet */
/* Copies the datagram. false: it does not fit; counted. */
bool backlog_add(struct path *path, const uint8_t *data, uint32_t size, uint8_t mark);
void backlog_send(struct path *path); /* all of it, at once */
void backlog_send_lane(struct lane *lane);
void backlog_forget(struct path *path); /* unsent */

/* sweep.c */
void sweep_lane(struct lane *lane, uint32_t part); /* part of RELAY_TICKS */
void sweep_drops(struct lane *lane);

/* handover.c */
void transfer_abort_all(struct relay *relay);

/* report.c: lines of log.sessions, and events for who follows the client. kind: of a session. */
void report_session(struct relay *relay, enum trace_kind kind, const struct path *path, const char *reason);
/* One datagram or connection of the flow: counted for all and for the lane, and told. */
void flow_lost(const struct flow *flow, enum lane_loss loss);
void flow_refused(const struct flow *flow, const struct decision *decision); /* it has been counted for all */

/* trace.c: what only who follows a client is told. Not to be called while relay.tracing is false. */
void trace_loss(const struct flow *flow, enum lane_loss loss);
void trace_path(const struct path *path, enum trace_kind kind, const char *reason);
/* size: of the datagram. path NULL: none yet (or it is refused). */
void trace_datagram(const struct flow *flow, struct path *path, const struct ike_datagram *ike, bool to_client);

#endif
