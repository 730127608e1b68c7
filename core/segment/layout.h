/* SPDX-License-Identifier: Apache-2.0 */
/* The segment's wire format: what lies where in the file that the processes share. Nothing here but shapes.
 *
 *   offset             what                                   written by
 *   0                  header (one page)                      master, before any other process maps it; cursors by all
 *   shape-dependent    processes, servers, pools, services, profiles, lanes, drops,
 *                      sources, loads of sources, traces                               see each
 *                      record buckets                         workers, monitor (record.h says how)
 *                      session rows, one partition per lane   the lane's holder alone (session.h)
 *                      the index of tuple.h                   workers
 *
 * All words that two processes touch are _Atomic. No pointers; every index that is read from here is checked against
 * the table's size (or masked) before use: a hostile worker may write anything at any time (I6). Times are clock.h's.
 *
 * A change of any shape below raises SEGMENT_LAYOUT; layout.c does not compile before. The shape that was there until
 * then is described in layout_old.c by one more entry, its numbers of elements and their sizes, and one small function
 * for each table that has changed, which makes a new element of an old one: so the next start copies what it finds
 * (copy.c). The header's first 104 octets stay what they are; what it gets more stands behind them, and is 0 in old
 * files. Of a counter that is added among the others, that function moves those behind it. */
#ifndef SEGMENT_LAYOUT_H
#define SEGMENT_LAYOUT_H

#include <homeport/plugin.h>
#include <stdatomic.h>
#include <stdint.h>

#define SEGMENT_MAGIC 0x74726f70656d6f68ull /* "homeport" */
#define SEGMENT_LAYOUT 4u
#define SEGMENT_NAME 64u /* octets of a name, NUL included; longer names are a configuration error */
#define SEGMENT_PROCESSES 256u
#define SEGMENT_SERVERS 1024u /* below the 4095 that a record's value can name */
#define SEGMENT_PROBES 16u    /* (protocol, port) pairs probed per server */
#define SEGMENT_POOLS 256u
#define SEGMENT_SERVICES 256u
#define SEGMENT_PROFILES 64u
#define SEGMENT_LANES 256u
#define SEGMENT_DROPS 64u
#define SEGMENT_SOURCES 64u     /* own addresses towards servers, with that of the route's choice */
#define SEGMENT_LANE_LOSSES 24u /* room for LANE_LOSSES */
#define SEGMENT_TRACES 16u      /* clients that are followed at a time */
#define SEGMENT_TRACE_EVENTS 1024u
#define SEGMENT_TRACE_TEXT 40u
#define SEGMENT_PLUGIN_COUNTERS 128u /* per process, all profiles together */
#define SEGMENT_NO_INDEX UINT32_MAX

struct segment_header {
    uint64_t magic;
    uint32_t layout, lanes;
    uint8_t boot_id[16];
    uint8_t secret[16]; /* key of the records' fingerprints */
    uint32_t records;   /* capacity as configured */
    uint32_t buckets;   /* derived from it; a bucket holds RECORD_SLOTS */
    uint32_t sessions;  /* rows in all, a multiple of lanes */
    uint32_t rows_per_lane;
    uint64_t size; /* of the file */
    uint64_t created_ms;
    _Atomic uint64_t recount;   /* raised by the monitor after each recount of loads */
    _Atomic uint64_t drop_last; /* sequence of the newest entry in drops; 0: none yet */
    _Atomic uint64_t reloads;   /* by master */
};

enum process_role { PROCESS_NONE, PROCESS_MASTER, PROCESS_WORKER, PROCESS_MONITOR };

/* X-macro: every counter of the core, once. name, what it counts. */
#define COUNTERS(X)                                                                                                    \
    X(datagrams_from_clients, "datagrams read from listeners")                                                         \
    X(datagrams_to_servers, "datagrams sent on to servers")                                                            \
    X(datagrams_from_servers, "datagrams read from servers")                                                           \
    X(datagrams_to_clients, "datagrams sent on to clients")                                                            \
    X(bytes_to_servers, "payload octets sent on to servers")                                                           \
    X(bytes_to_clients, "payload octets sent on to clients")                                                           \
    X(sessions_begun, "sessions begun")                                                                                \
    X(sessions_ended_idle, "sessions ended by their idle time")                                                        \
    X(sessions_moved, "sessions that went on at another server")                                                       \
    X(sessions_dropped, "sessions ended by the verb drop")                                                             \
    X(sessions_adopted, "live sessions taken over from another process")                                               \
    X(refused_sessions_full, "datagrams of new flows, or connections, refused: the lane's session rows are full")      \
    X(refused_no_cell, "datagrams of new flows, or connections, refused: no free source port to the server")           \
    X(refused_no_descriptor, "datagrams of new flows, or connections, refused: no descriptor left")                    \
    X(refused_no_server, "datagrams or connections refused: no server may serve, or none accepts")                     \
    X(refused_by_plugin, "datagrams refused by a plugin or by on_failure")                                             \
    X(refused_records_full, "datagrams of new clients refused: no room for a record (when_full: refuse)")              \
    X(refused_service_limit, "datagrams of new flows refused: the service's max_clients")                              \
    X(dropped_server_disabled, "datagrams dropped: the session's server is disabled and this is no IKE_SA_INIT")       \
    X(dropped_send_to_server, "datagrams that the kernel did not take towards a server, or too many that waited")      \
    X(dropped_send_to_client, "datagrams that the kernel did not take towards a client")                               \
    X(dropped_stranger, "datagrams on a cell not from its server, or from a server for no session")                    \
    X(dropped_socket_queue, "datagrams that the kernel dropped at a listener (SO_RXQ_OVFL)")                           \
    X(icmp_errors, "ICMP errors seen on sockets towards servers")                                                      \
    X(resends, "datagrams sent again because an ICMP error had eaten the first try")                                   \
    X(cells_unbindable, "source ports that could not be bound and were skipped")                                       \
    X(gso_runs, "runs of datagrams sent in one call with UDP_SEGMENT")                                                 \
    X(decisions, "decisions made for flows, new or anew")                                                              \
    X(records_created, "records created")                                                                              \
    X(records_moved, "records moved to another server")                                                                \
    X(records_put_back, "records put back by a live session")                                                          \
    X(records_evicted, "records evicted for new ones")                                                                 \
    X(records_table_full, "decisions without a record: the bucket holds proven ones only (maglev)")                    \
    X(records_foreign_pool, "records whose server the flow's pool does not name")                                      \
    X(records_no_key, "decisions without a key")                                                                       \
    X(plugin_failures, "plugin calls that answered HP_FAILED or nonsense")                                             \
    X(ike_messages, "IKEv2 messages from clients")                                                                     \
    X(ike_new_sa, "IKE_SA_INIT requests from clients")                                                                 \
    X(esp_datagrams, "ESP datagrams from clients")                                                                     \
    X(keepalives, "NAT keepalives from clients")                                                                       \
    X(other_datagrams, "datagrams from clients that are none of these")                                                \
    X(probes_sent, "health probes sent")                                                                               \
    X(probes_answered, "health probes answered")                                                                       \
    X(refused_no_source, "datagrams of new flows, or connections, refused: no source address is on this machine")      \
    X(refused_shadowed, "datagrams of new flows refused: their client is at that server already, by another address")  \
    X(sa_init_unanswered, "IKE_SA_INITs that their server has not answered within two seconds")

enum counter {
#define X(name, help) COUNTER_##name,
    COUNTERS(X)
#undef X
        COUNTER_COUNT
};

/* X-macro: counters that each lane has as well: what came and was not served, by reason. New ones stand at the end. */
#define LANE_LOSSES(X)                                                                                                 \
    X(refused_sessions_full)                                                                                           \
    X(refused_no_cell)                                                                                                 \
    X(refused_no_descriptor)                                                                                           \
    X(refused_no_server)                                                                                               \
    X(refused_by_plugin)                                                                                               \
    X(refused_records_full)                                                                                            \
    X(refused_service_limit)                                                                                           \
    X(dropped_server_disabled)                                                                                         \
    X(dropped_send_to_server)                                                                                          \
    X(dropped_send_to_client)                                                                                          \
    X(dropped_stranger)                                                                                                \
    X(dropped_socket_queue)                                                                                            \
    X(refused_no_source)                                                                                               \
    X(refused_shadowed)

enum lane_loss {
#define X(name) LOSS_##name,
    LANE_LOSSES(X)
#undef X
        LOSS_COUNT
};
_Static_assert(LOSS_COUNT <= SEGMENT_LANE_LOSSES, "a lane has room for every reason");

struct plugin_counter {
    _Atomic uint64_t identity; /* hash_identity("counter", "PROFILE/COUNTER"); 0: free */
    _Atomic uint64_t value;
};

/* A process's own page. Slot and generation are its identity in reservations: the generation is raised by the parent
 * after reaping it, never by a timeout. Written by the process, but for role, generation, pid (master). */
struct process_slot {
    _Atomic uint32_t generation; /* raised at each death: what bears an older one is dead */
    _Atomic uint32_t role;       /* enum process_role */
    _Atomic uint32_t number;     /* worker 0..N-1 */
    _Atomic int32_t pid;
    _Atomic uint64_t started_ms;
    _Atomic uint64_t loop_ms; /* start of its last loop turn; a timer turns an idle loop every second */
    /* Breadcrumb: "inside operation O of profile P since T". since 0: not inside a plugin. */
    _Atomic uint64_t inside_since_ms, inside_calls; /* calls: raised at each entry; two equal looks = hung */
    _Atomic uint32_t inside_profile;                /* position in profiles */
    _Atomic uint32_t inside_operation;              /* enum plugin_operation, plugin/plugin.h */
    char last_words[128]; /* assert text or signal, plain stores, async-signal-safe; read after the death */
    _Alignas(64) _Atomic uint64_t counters[COUNTER_COUNT];
    _Alignas(64) struct plugin_counter plugin_counters[SEGMENT_PLUGIN_COUNTERS];
};

/* Server word: one load tells a worker all it needs per datagram.
 *   bits 0..15  down: bit i = probe i says down (monitor)
 *   bits 16..17 state of the configuration: enum server_state (master)
 *   bit 18      in use by the running configuration (master)
 *   bits 32..63 generation, raised when the slot gets another name (master) */
enum server_state { SERVER_ENABLED, SERVER_DRAIN, SERVER_OFFLINE, SERVER_DISABLED };
#define SERVER_DOWN_MASK 0xffffull
#define SERVER_STATE_SHIFT 16
#define SERVER_CONFIGURED (1ull << 18)

struct server_probe {
    _Atomic uint32_t key;      /* protocol << 16 | port; 0: free (master) */
    _Atomic uint32_t failures; /* in a row (monitor) */
    _Atomic uint64_t since_ms; /* of the present up or down (monitor) */
    _Atomic uint32_t known;    /* 0: not probed yet, 1: probed (monitor) */
    _Atomic uint32_t reserved;
    _Atomic uint64_t answered_ms; /* last answer to a probe (monitor) */
    char reason[48];              /* of the present state, for people (monitor) */
};

struct server_slot {
    _Alignas(64) _Atomic uint64_t word;
    uint64_t identity; /* hash_identity("server", name); 0: free slot (master) */
    char name[SEGMENT_NAME];
    struct hp_endpoint address;   /* port 0 */
    _Atomic uint32_t clients;     /* records with a live session, at the last recount (monitor) */
    _Atomic uint32_t sessions;    /* live sessions, at the last recount (monitor) */
    _Atomic uint64_t answered_ms; /* a client's datagram was answered last (workers) */
    struct server_probe probes[SEGMENT_PROBES];
};

struct pool_slot {
    _Alignas(64) _Atomic uint64_t cursor; /* round robin: one atomic add (workers) */
    uint64_t identity;
};
struct service_slot {
    uint64_t identity;
    char name[SEGMENT_NAME];
    _Atomic uint32_t clients, sessions; /* at the last recount (monitor) */
};
struct profile_slot {
    uint64_t identity;
    char name[SEGMENT_NAME];
    _Atomic uint32_t quarantined; /* 1: workers must not call its plugin (master) */
    uint32_t deaths;              /* master's own */
    uint64_t last_death_ms;       /* master's own */
};
struct lane_slot {
    _Alignas(64) _Atomic uint64_t epoch;                       /* raised by each new holder */
    _Atomic uint32_t holder;                                   /* process slot; SEGMENT_NO_INDEX: nobody */
    _Atomic uint64_t drop_seen;                                /* newest drop that the holder has carried out */
    _Alignas(64) _Atomic uint64_t losses[SEGMENT_LANE_LOSSES]; /* by enum lane_loss, since the segment was made */
};
struct drop_slot {
    _Atomic uint64_t sequence; /* written last, release */
    struct hp_endpoint client; /* port 0 */
    _Atomic uint32_t ended;    /* sessions ended for it (workers add) */
};

/* An own address towards servers. Slot 0 is the route's choice and holds none. Found again by its address. */
struct source_slot {
    struct hp_endpoint address; /* port 0; family 0: free (master) */
    _Atomic uint32_t absent;    /* 1: not on this machine now (workers, monitor) */
    _Atomic uint32_t used;      /* sessions and records that name it, at the last recount (monitor) */
};
/* What one server sees of one source: loads[server * SEGMENT_SOURCES + source]. How it is used: source.h. */
struct source_load {
    _Atomic uint64_t counted; /* clients not yet proven at the last recount | added << 32 as it was then (monitor) */
    _Atomic uint64_t refusal; /* the last 16 IKE_SA_INITs, 1: unanswered | no new client until, ms << 16 (workers) */
    _Atomic uint32_t added;   /* clients that have come, ever (workers) */
    _Atomic uint32_t clients; /* at the last recount (monitor) */
};

/* Who is followed, and what was seen of them: trace.h. */
struct trace_watch {
    _Atomic uint64_t until_ms; /* free from then on (monitor) */
    struct hp_endpoint client; /* port 0 (monitor) */
};
struct trace_event {
    uint64_t at_ms;
    struct hp_endpoint client;
    uint64_t service; /* identity; of a record: its low half */
    uint64_t bytes_to_server, bytes_to_client;
    uint16_t kind;   /* enum trace_kind */
    uint16_t server; /* slot; UINT16_MAX: none */
    uint16_t source_port, lane;
    uint32_t worker; /* number; SEGMENT_NO_INDEX: no worker */
    uint32_t message_id, size;
    uint16_t code; /* of IKE: the first notify, 0: none that can be read; of a loss: enum lane_loss */
    uint8_t exchange, flags;
    char text[SEGMENT_TRACE_TEXT]; /* why; cut to fit, always ended */
};
struct trace_slot {
    _Alignas(64) _Atomic uint64_t sequence; /* written last, release */
    struct trace_event event;
};
struct trace_board {
    _Alignas(64) _Atomic uint64_t until_ms; /* from then on nobody is followed (monitor) */
    _Atomic uint64_t generation;            /* raised when a client begins to be followed (monitor) */
    struct trace_watch watches[SEGMENT_TRACES];
    _Alignas(64) _Atomic uint64_t last; /* sequence of the newest event; 0: none yet (whoever posts adds) */
    struct trace_slot events[SEGMENT_TRACE_EVENTS];
};

#define RECORD_SLOTS 16u
#define RECORD_DEAD 0xfffu
struct record_slot {          /* a cache line; how it is written: record.h */
    _Atomic uint64_t value;   /* generation 26 | server 12 | proven 1 | last use in seconds 25 */
    _Atomic uint64_t reserve; /* process slot 32 | generation 32; 0: free */
    _Atomic uint64_t fingerprint[2];
    _Atomic uint32_t timeout_s; /* UINT32_MAX: never */
    _Atomic uint32_t created_s;
    _Atomic uint32_t profile;   /* low half of the profile's identity */
    _Atomic uint32_t service;   /* low half of the identity of the service that wrote it */
    _Atomic uint64_t client[2]; /* address of the client that made it, IPv4 as ::ffff:a.b.c.d, for people */
};
struct record_bucket {
    _Alignas(64) _Atomic uint64_t head;     /* occupied bits 0..15 | version << 16 */
    _Atomic uint16_t sources[RECORD_SLOTS]; /* own address that the record's client comes from: record_source.c */
    _Alignas(64) struct record_slot slots[RECORD_SLOTS];
};

/* A session row, three cache lines. state: generation << 32 | enum session_state; stored last (release) at the begin,
 * first at the end. */
#define SESSION_KEPT 3u
enum session_state { SESSION_FREE = 0, SESSION_LIVE = 1 };
struct session_row {
    _Alignas(64) _Atomic uint64_t state;
    struct hp_endpoint client;
    uint8_t local[16]; /* address that the client wrote to, as in hp_endpoint */
    uint64_t service;  /* identity */
    uint16_t server;   /* slot */
    uint16_t server_port;
    uint16_t source_port; /* the cell: (server, own address or `client`, this port) */
    uint16_t local_port;  /* that the client wrote to; 0: not known (a row of layout 1 or 2) */
    /* second line: changes while live; read by others between two loads of state */
    _Alignas(64) _Atomic uint64_t watch;             /* value >> 26 of its record when it was decided */
    _Atomic uint32_t record;                         /* index of the record; SEGMENT_NO_INDEX: none */
    _Atomic uint32_t flags;                          /* SESSION_ bits */
    _Atomic uint64_t begun_ms, client_ms, server_ms; /* server_ms 0: never answered */
    _Atomic uint64_t bytes_to_server, bytes_to_client;
    _Atomic uint64_t settings; /* decider_settings when it was decided; 0: not to be told */
    /* third line: watch and record of what it claimed besides, newest first; rarely used */
    _Alignas(64) _Atomic uint64_t kept_watch[SESSION_KEPT];
    _Atomic uint32_t kept_record[SESSION_KEPT]; /* SEGMENT_NO_INDEX: none */
    uint16_t source; /* own address of the cell, position in sources; as server and source_port it never changes */
};
#define SESSION_PROVEN 0x1u
#define SESSION_NEW_FLOWS 0x2u   /* traffic does not extend the record (HP_CLAIM_NEW_FLOWS) */
#define SESSION_LEARNT 0x4u      /* it was proven already when it claimed its record: that is proven by its age */
#define SESSION_TRANSPARENT 0x8u /* its server sees it come from `client`; never changes while the row is live */

_Static_assert(sizeof(struct record_slot) == 64, "a record is a cache line");
_Static_assert(sizeof(struct record_bucket) == 64 * 17, "a bucket is 17 cache lines");
_Static_assert(sizeof(struct session_row) == 192, "a session is three cache lines");
_Static_assert(sizeof(struct segment_header) <= 4096, "the header is one page");

#endif
