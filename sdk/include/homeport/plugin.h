/* SPDX-License-Identifier: Apache-2.0 */
/* homeport/plugin.h - how a persistence plugin and homeport meet. C11, C++11, bindgen; includes no homeport code.
 *
 * Marks: [check]  in `homeport check` and before every start or reload, in a sandboxed child, never in the master;
 *        [worker] in a worker (create, derive_key: in the child of `affinity --explain` too), on its only thread, one
 *        call at a time. A host function never calls back into a plugin.
 * Strings are UTF-8, end in NUL, and live as long as their owner: the descriptor for ever, the profile until destroy()
 * has returned, a flow until the call returns. Nobody frees what the other side allocated. On a reload the new
 * instance is created before the old one is destroyed: two of one profile live side by side for a moment.
 * A plugin must not: block, sleep, fork, create threads, install signal handlers, open files or sockets after create(),
 * write to stdout or stderr, call exit(), or let a C++ exception or a Rust panic leave a call.
 * Growth: structures marked GROWS get members at the end with a new minor; FROZEN ones stay until the next major. Bits
 * of flags, observes, decides that homeport does not know are refused below 0x10000 and ignored above. */
#ifndef HOMEPORT_PLUGIN_H
#define HOMEPORT_PLUGIN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define HP_ABI_MAJOR 1u
#define HP_ABI_MINOR 0u /* members that came later say "since 1.N" */
#define HP_PLUGIN_EXPORT __attribute__((visibility("default")))
/* True when the other side's structure is long enough to have MEMBER. */
#define HP_HAS(p, member) ((p)->size >= offsetof(__typeof__(*(p)), member) + sizeof((p)->member))

#define HP_KEY_MAX 64u  /* octets in a record key */
#define HP_NOTHING (-1) /* select, get, claim: no server; the pool's scheduler decides */
#define HP_REFUSE (-2)  /* select, claim: drop this datagram and count it; a new flow gets no session */
#define HP_FAILED (-3)  /* select, derive_key: the plugin could not do its work; counted, on_failure applies */

/* Kinds of option. Carried as uint32_t: an enum's width and range are not fixed across compilers and languages. */
#define HP_OPTION_BOOL 1u     /* as.integer: 0 or 1 */
#define HP_OPTION_INTEGER 2u  /* as.integer */
#define HP_OPTION_DURATION 3u /* as.integer, milliseconds; INT64_MAX: `never` (hp_plugin.ttl_option alone may be) */
#define HP_OPTION_CHOICE 4u   /* as.integer: position in range, from 0 */
#define HP_OPTION_STRING 5u   /* as.text, never NULL */
#define HP_OPTION_MASK4 6u    /* as.mask: first 4 octets, network order */
#define HP_OPTION_MASK6 7u    /* as.mask: 16 octets */
#define HP_OPTION_SERVICE 8u  /* as.integer: id of a service of this profile */
#define HP_OPTION_PER_SERVICE 0x1u /* flags: written at the service, not at the profile */
#define HP_OPTION_REQUIRED 0x2u

struct hp_option {        /* GROWS; homeport steps through an array of them by hp_plugin.option_size */
    const char *name;     /* as written in YAML: [a-z][a-z0-9_]* */
    uint32_t kind, flags; /* an unknown kind is refused, as an unknown bit is */
    const char *fallback; /* as a user would write it ("180s"); NULL: none, value.given tells */
    const char *range;    /* "1s..24h", "1..64", "source_ip|none"; NULL: any */
    const char *help;     /* one sentence, shown by `homeport plugins` */
};
struct hp_value {         /* FROZEN, 24 octets */
    uint32_t kind, given; /* given: 0 = neither written nor a fallback, 1 = fallback, 2 = written by the user */
    union {
        int64_t integer;
        const char *text;
        uint8_t mask[16];
    } as;
};
struct hp_counter {
    const char *name, *help;
}; /* FROZEN; exported as homeport_plugin_<name>_total{profile=} */

struct hp_service {    /* GROWS; a service that names this profile */
    uint32_t size, id; /* id: from 0, dense, the same in every worker; changes with a reload: never put it in a key */
    uint64_t identity, pool_identity; /* the same for the same name after a reload, a restart, on another balancer */
    uint64_t servers_identity, listen_identity; /* equal: the same set of servers; the same listening addresses */
    const char *name;
    uint32_t protocol, port;       /* 6 or 17 (IANA); host order */
    const struct hp_value *values; /* by position in hp_plugin.options; those of the profile are here as well */
    uint32_t is_ike; /* 1: flow.ike and flow.esp_spi are filled; its check is ike, or its port 500 or 4500 */
    uint32_t reserved;
};
struct hp_profile { /* GROWS */
    uint32_t size, service_count;
    const char *name;
    const struct hp_value *values;            /* by position in hp_plugin.options */
    const struct hp_service *const *services; /* by id */
};
struct hp_endpoint {     /* FROZEN, 24 octets */
    uint8_t address[16]; /* network order; IPv4 in the first four, the rest zero */
    uint32_t scope;      /* IPv6 zone, else 0 */
    uint16_t port;       /* host order */
    uint16_t family;     /* 4 or 6 */
};
struct hp_ike { /* GROWS; RFC 7296 section 3.1, already checked by homeport */
    uint32_t size;
    uint8_t exchange, flags, next_payload, version;
    uint8_t initiator_spi[8], responder_spi[8]; /* as on the wire */
    uint32_t message_id, length;
};
struct hp_flow { /* GROWS */
    uint32_t size;
    uint32_t attempt; /* 0; 1 when the core refused the first answer */
    const struct hp_service *service;
    struct hp_endpoint client, local;
    const uint8_t *data; /* the datagram at hand without the non-ESP marker; NULL: TCP, or a session keyed anew */
    uint32_t data_size;
    uint32_t esp_spi;         /* host order; 0: the datagram is not ESP */
    const struct hp_ike *ike; /* NULL: not an IKE message */
    int32_t server;           /* that has the session; HP_NOTHING: a new flow */
    uint32_t proven;          /* 1: that server has sent this client SK, SKF or ESP; without IKE: has been answered */
};

/* Which datagrams of an established session select decides anew, before they go out, because they may belong elsewhere.
 * Its answer moves the session, or leaves it where it is. Nothing is the default. */
#define HP_DECIDE_IKE 0x1u     /* IKE messages from the client; 32 a second at most */
#define HP_DECIDE_ESP_SPI 0x2u /* ESP whose SPI is not the last that was asked about; four times a second at most */

/* What a plugin asks to see of an established session. Nothing is the default: an observed datagram costs a call. */
#define HP_OBSERVE_IKE_CLIENT 0x1u /* IKE messages towards the server */
#define HP_OBSERVE_IKE_SERVER 0x2u /* IKE messages towards the client */
struct hp_sight {                  /* GROWS */
    uint32_t size, what;           /* one HP_OBSERVE_ bit */
    const struct hp_flow *flow;    /* data, ike and esp_spi are those of this datagram; never embedded: hp_flow grows */
    int32_t server;
    uint32_t number; /* how many sights this session has had, from 1 */
};

#define HP_CLAIM_OVER_LIMIT 0x1u /* a recorded client may exceed its server's limit, never the service's */
#define HP_CLAIM_KEEP 0x2u       /* record's server is full: serve elsewhere, leave the record */
#define HP_CLAIM_REFUSE 0x4u     /* in that case: HP_REFUSE instead; neither bit: the record moves */
#define HP_CLAIM_ANY_POOL 0x8u   /* the record's server may serve though this flow's pool does not name it */
#define HP_CLAIM_NEW_FLOWS 0x10u /* traffic does not extend the record; a live session still puts it back */
struct hp_claim {                /* GROWS; made by the plugin, which sets size */
    uint32_t size, table, key_size, flags;
    const void *key;
    uint64_t ttl_ms; /* UINT64_MAX: never */
    int32_t prefer;  /* server for a record that is new or has to move, if it may serve; else HP_NOTHING */
    uint32_t reserved;
};

struct hp_record {             /* GROWS; made by the plugin: zeroed, size set; homeport fills what both know */
    uint32_t size, proven;     /* proven: no flood evicts it */
    struct hp_endpoint client; /* who made it, port 0 */
};

struct hp_host { /* GROWS; one per instance; every function [worker], none blocks, allocates or can end the flow */
    uint32_t size, abi_minor;
    const char *version; /* homeport's own, for logs only */
    /* [check] too. Becomes FILE:LINE:COLUMN; service or option UINT32_MAX when it is about no single one. An error,
     * unless text begins with "warning: ": then what follows is a warning, and the configuration is accepted. */
    void (*problem)(const struct hp_host *, uint32_t service, uint32_t option, const char *text);
    void (*log)(const struct hp_host *, int level, const char *text); /* syslog level 3..7; rate-limited per profile */
    void (*count)(const struct hp_host *, uint32_t counter, uint64_t by); /* position in hp_plugin.counters */
    uint64_t (*now_ms)(const struct hp_host *); /* monotonic, same clock in all workers, read once per loop turn */
    /* The record for the key if its server may serve this flow; else, by state and flags, what becomes of it; else a
     * new record: a live session's own server, else `prefer`, else the scheduler's. Atomic over all workers: whoever
     * loses the race gets the winner's server. A record whose server this pool does not name stays: elsewhere, nothing
     * written, counted. Table full: maglev over the key, no record (`when_full: refuse`: HP_REFUSE). HP_NOTHING: no
     * server may serve. A new session watches its last claim's record. What later decisions on
     * its datagrams claim of other keys (HP_DECIDE_ bits) are further names of its client: the last three live as long
     * as it does. A proven session proves its records; what it claimed when it was proven already, in ten seconds. */
    int32_t (*claim)(const struct hp_host *, const struct hp_flow *, const struct hp_claim *);
    /* The record's server, HP_NOTHING: no such record. out may be NULL. Does not refresh. */
    int32_t (*get)(const struct hp_host *, uint32_t table, const void *key, uint32_t key_size, struct hp_record *out);
    int (*put)(const struct hp_host *, uint32_t table, const void *key, uint32_t key_size, int32_t server,
               uint64_t ttl_ms);
    int (*touch)(const struct hp_host *, uint32_t table, const void *key, uint32_t key_size, uint64_t ttl_ms);
    int (*del)(const struct hp_host *, uint32_t table, const void *key,
               uint32_t key_size);                                       /* put, touch, del: 0 or -1 */
    int32_t (*schedule)(const struct hp_host *, const struct hp_flow *); /* pick by the pool's scheduler, no record */
    uint32_t (*server_state)(const struct hp_host *, const struct hp_flow *, int32_t server); /* HP_SERVER_ bits */
    const void *(*extension)(const struct hp_host *, const char *name); /* "homeport.NAME/1"; NULL: not here */
};
#define HP_SERVER_KNOWN 0x1u     /* such a server exists and is in this flow's pool */
#define HP_SERVER_UP 0x2u        /* healthy, and the whole group with it */
#define HP_SERVER_TAKES_NEW 0x4u /* neither draining nor disabled nor full */

struct hp_plugin {                 /* GROWS; every function may be NULL except as said */
    uint32_t abi_major, abi_minor; /* HP_ABI_MAJOR, HP_ABI_MINOR of the header it was compiled with */
    uint32_t size;                 /* sizeof(struct hp_plugin) in that header */
    uint32_t needs_minor;          /* the oldest homeport ABI minor it can live with; 0 unless it says why */
    const char *name, *version, *summary, *author;
    const struct hp_option *options;
    uint32_t option_count, option_size; /* option_size: sizeof(struct hp_option) */
    const struct hp_counter *counters;
    const char *const *tables; /* names of record tables, by position; each profile's own; derive_key uses the first */
    uint32_t counter_count, table_count;
    uint32_t observes;      /* HP_OBSERVE_ bits */
    uint32_t observe_first; /* at most so many sights per session; 0: no limit */
    uint32_t ttl_option;    /* position of the duration that records live for; derive_key needs it */
    uint32_t tick_ms;       /* 0: never; at least 1000 */
    uint32_t decides;       /* HP_DECIDE_ bits; they need select */
    uint32_t reserved;      /* 0 */
    /* [check] Rules between options: report each with host->problem, return 0 or -1. Only problem() may be called. */
    int (*check)(const struct hp_host *, const struct hp_profile *);
    /* [worker] NULL on failure, after problem(). Without create, self is the profile. destroy always follows. */
    void *(*create)(const struct hp_host *, const struct hp_profile *);
    void (*destroy)(void *self);
    /* [worker] At least one of these two; with both, select decides and derive_key explains. derive_key writes up to
     * HP_KEY_MAX octets and returns their number, HP_NOTHING or HP_FAILED; it is pure: same flow and options, same key,
     * in any worker, so homeport may cache and explain it. */
    int32_t (*derive_key)(void *self, const struct hp_flow *, uint8_t *key);
    int32_t (*select)(void *self, const struct hp_flow *); /* a server, HP_NOTHING, HP_REFUSE or HP_FAILED */
    void (*observe)(void *self, const struct hp_sight *); /* [worker] after it went out or was queued; cannot stop it */
    /* [worker] flow->data is NULL; not called after kill -9 */
    void (*session_end)(void *self, const struct hp_flow *, int32_t server);
    void (*tick)(void *self);                   /* [worker] */
    const void *(*extension)(const char *name); /* [check] [worker] later additions, by name */
};

/* The one symbol that a plugin exports. A plugin for two majors exports hp_plugin_v1 and hp_plugin_v2. */
extern HP_PLUGIN_EXPORT const struct hp_plugin hp_plugin_v1;

#ifdef __cplusplus
}
#endif
#endif
