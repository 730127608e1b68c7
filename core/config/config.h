/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration as a checked model. Any process but the master, which parses no YAML. The model owns its memory
 * (config_free) and never changes after config_read. Positions count from 1. Plugin options are kept as written, with
 * their positions: the plugin host checks them against the plugin's own table. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include "base/log.h"
#include "config/diagnostics.h"
#include "segment/layout.h"
#include <stdbool.h>
#include <stddef.h>

#define CONFIG_NEVER UINT64_MAX
#define CONFIG_TEXT_MAX (1u << 20) /* octets of a file; a larger one is an error of config_read */
#define CONFIG_LISTEN_MAX 64u      /* listening addresses of one service */
#define CONFIG_STATE_MAX 88u       /* octets of `state`: the paths of its sockets must fit into sun_path */
#define CONFIG_WORKERS_MAX 120u    /* old and new workers, master and monitor fit SEGMENT_PROCESSES during a reload */

enum config_scheduler {
    SCHEDULER_ROUND_ROBIN,
    SCHEDULER_WEIGHTED_ROUND_ROBIN,
    SCHEDULER_LEAST_CLIENTS,
    SCHEDULER_RANDOM,
    SCHEDULER_MAGLEV
};
enum config_check { CHECK_AUTO, CHECK_IKE, CHECK_TCP, CHECK_SSTP, CHECK_NONE };
enum config_all_down { ALL_DOWN_SERVE, ALL_DOWN_REFUSE };
enum config_on_failure { ON_FAILURE_SCHEDULER, ON_FAILURE_REFUSE };
enum config_when_full { WHEN_FULL_EVICT, WHEN_FULL_REFUSE };

struct config_option { /* a plugin option as the user wrote it */
    char *name, *text;
    struct position name_at, text_at;
};
struct config_server {
    char *name;
    struct position at;
    struct hp_endpoint address;   /* port 0 */
    uint32_t weight, max_clients; /* max_clients 0: no limit */
    enum server_state state;
};
struct config_health {
    enum config_check check;
    uint64_t interval_ms, timeout_ms;
    uint32_t rise, fall;
    struct hp_endpoint source; /* family 0: the system's choice */
    struct position source_at;
};
enum config_source_kind { SOURCE_UNSET, SOURCE_NAT, SOURCE_LIST, SOURCE_TRANSPARENT };
struct config_source {             /* where clients come from, as the servers see it */
    enum config_source_kind kind;  /* a service: unset is its pool's */
    struct hp_endpoint *addresses; /* of a list, port 0 */
    struct position *addresses_at;
    uint32_t count; /* 0 unless a list */
    struct position at;
};
struct config_pool {
    char *name;
    struct position at;
    uint32_t *servers; /* positions in config.servers */
    uint32_t server_count;
    enum config_scheduler scheduler;
    uint16_t port; /* towards the servers; 0: each service keeps its own */
    struct config_health health;
    enum config_all_down all_down;
    struct config_source source; /* never unset */
};
struct config_profile {
    char *name, *plugin; /* plugin: a name looked up on plugin_path, or a path to a .so (has a '/') */
    struct position at, plugin_at;
    enum config_on_failure on_failure;
    struct config_option *options;
    uint32_t option_count;
};
struct config_service {
    char *name;
    struct position at;
    struct hp_endpoint *listen; /* with ports, all of them the same */
    struct position *listen_at;
    uint32_t listen_count;
    uint32_t protocol;             /* 6 or 17 */
    uint32_t pool;                 /* position in config.pools */
    int32_t profile;               /* position in config.profiles; -1: no persistence */
    struct config_option *options; /* per service: persistence: { profile: kemp, follow: ike } */
    uint32_t option_count;
    struct position persistence_at;
    uint64_t idle_ms;     /* sessions.idle unless written here */
    uint32_t max_clients; /* 0: no limit */
    bool health_group;    /* false: health: { group: no } */
    struct config_source source;
    /* derived */
    bool ike;                /* an IKE service: UDP, and check ike or port 500 or 4500 */
    bool transparent;        /* its servers see the clients' own addresses */
    uint16_t port;           /* of its first listen address */
    uint16_t server_port;    /* towards servers: pool's, else own */
    enum config_check check; /* auto resolved: CHECK_IKE, CHECK_TCP, CHECK_NONE */
};

struct config {
    char *path;
    uint32_t workers; /* auto resolved: CPUs of the affinity mask, capped by the cgroup's cpu.max */
    char *user;       /* NULL: not written (the default homeport applies as root, the caller else) */
    struct position user_at;
    char *state;
    char **plugin_path;
    uint32_t plugin_path_count;
    enum log_level log_level;
    enum log_format log_format;
    bool log_sessions;
    uint32_t affinity_capacity, sessions_capacity;
    enum config_when_full when_full;
    uint64_t idle_ms, idle_unproven_ms;
    uint16_t port_first, port_last; /* of the own source ports */
    struct position ports_at;       /* line 0: the default */
    struct config_server *servers;
    struct config_pool *pools;
    struct config_profile *profiles;
    struct config_service *services;
    uint32_t server_count, pool_count, profile_count, service_count;
};

/* Parses and checks (size) octets of YAML. path: for messages only. Every error and warning of the text goes to
 * diagnostics in one go. 0: *out is the model (warnings may be there); -EINVAL: errors were reported; -ENOMEM. */
int config_read(struct config **out, const char *path, const char *text, size_t size, struct diagnostics *diagnostics);
void config_free(struct config *config); /* NULL is fine */
/* The service's own, else its pool's. */
const struct config_source *config_source_of(const struct config *config, const struct config_service *service);
bool config_is_transparent(const struct config *config); /* some service is */

/* All own addresses of its lists, each once; SEGMENT_SOURCES: more than there may be. */
uint32_t config_sources(const struct config *config, struct hp_endpoint distinct[SEGMENT_SOURCES]);

/* What depends on this machine: warnings of own addresses that are not here and of source ports that the kernel gives
 * to others, and where the answers of a transparent service's servers would not come to us; an error where a service
 * that listens everywhere has a server on this machine (it would feed itself) and where a zone is no interface
 * (config_read leaves its scope 0). Apart from config_read, so that what a file means does not depend on where it is
 * read. What the kernel does not tell (a sandbox, another /proc) is not warned about. */
void config_check_machine(const struct config *config, struct diagnostics *diagnostics);

/* "180s", "6m", "2h", "250ms", "never" where allow_never: milliseconds. false: *why is a phrase for the message that
 * goes on after the value: "`180` " + "is a bare number: …".
 * Used for plugin options as well: one parser for YAML, plugin schema and documentation. */
bool config_duration(uint64_t *out, const char *text, bool allow_never, const char **why);
/* Dotted or prefix length, into network-order octets. */
bool config_mask4(uint8_t mask[4], const char *text, const char **why);
bool config_mask6(uint8_t mask[16], const char *text, const char **why);
bool config_bool(bool *out, const char *text); /* yes no true false on off */
/* The closest of names within a small edit distance, or NULL: for "did you mean". */
const char *config_closest(const char *name, const char *const *names, size_t count);

#endif
