/* SPDX-License-Identifier: Apache-2.0 */
/* Deciding: which server a flow goes to, by its profile's plugin, the pool's scheduler and the record table. Worker
 * only (derive alone: also the child of `affinity --explain`). One call per new flow, and one for each datagram whose
 * session has found its record or server changed.
 *
 * The plugin is called with a breadcrumb in the process slot. HP_FAILED, nonsense, quarantine: on_failure. */
#ifndef PLUGIN_DECIDE_H
#define PLUGIN_DECIDE_H

#include "ike/ike.h"
#include "plugin/plugin.h"
#include "pool/topology.h"

struct decider;

/* Loads the plugins of the configuration and creates an instance per profile. Borrows all. self: own process slot.
 * root: as plugin_load's.
 * topology and segment may both be NULL for decider_explain alone; log may be NULL. A quarantined profile is not
 * loaded. Errors: those of plugin_load; -EINVAL wrong options; -ECANCELED create() said no; -ENOMEM. */
int decider_open(struct decider **out, const struct config *config, struct topology *topology, struct segment *segment,
                 uint32_t self, bool root, struct log *log, struct error *error);
void decider_close(struct decider *decider); /* destroys the instances */

enum decision_reason {
    DECISION_NEW_RECORD, /* a new client, picked by the scheduler or the plugin */
    DECISION_RECORD,     /* the record's server */
    DECISION_MOVED,      /* the record was moved: its server may not serve */
    DECISION_PUT_BACK,   /* the record was gone; the live session's own server took it again */
    DECISION_NO_RECORD,  /* scheduler alone: no persistence, no key, or a record that stays as it is */
    DECISION_TABLE_FULL, /* maglev over the key, no record */
    DECISION_NO_SERVER,
    DECISION_REFUSED_PLUGIN,
    DECISION_REFUSED_FULL,
    DECISION_REFUSED_SERVICE_LIMIT,
};
const char *decision_reason_name(enum decision_reason reason);

struct decision_request {
    uint32_t service; /* position in config.services */
    const struct hp_endpoint *client, *local;
    const struct ike_datagram *datagram;
    const uint8_t *data; /* as read, marker included; decide passes it without */
    uint32_t size;
    int32_t own_server; /* slot of the live session's server that offers itself; -1: a new flow */
    bool proven;        /* that session */
    uint32_t now_s;
};
struct decision {
    int32_t server; /* slot; -1: the datagram is refused, reason says why (already counted) */
    enum decision_reason reason;
    uint32_t record; /* index to watch; SEGMENT_NO_INDEX: none */
    uint64_t watch;  /* RECORD_DECISION of it */
    uint32_t flags;  /* SESSION_NEW_FLOWS */
    bool heard;      /* it was there, and was used within the service's idle time: a session may live */
};
void decide(struct decider *decider, const struct decision_request *request, struct decision *out);

/* The key that derive_key gives for a flow without data. Its size, HP_NOTHING (no key, or select alone), HP_FAILED. */
int32_t decider_explain(struct decider *decider, uint32_t service, const struct hp_endpoint *client,
                        const struct hp_endpoint *local, uint8_t key[HP_KEY_MAX]);
/* What a record of the service lives by: plugin file and options, as a number that is another one when they change. 0:
 * not to be told, because there is no derive_key. */
uint64_t decider_settings(const struct decider *decider, uint32_t service);
/* The record is that of the key which derive_key gives for the flow. */
bool decider_record_is(struct decider *decider, const struct decision_request *request, uint32_t record);
/* HP_DECIDE_ bits: the datagrams of live sessions that decide is to be asked about. */
uint32_t decider_decides(const struct decider *decider, uint32_t service);
/* observe, session_end and tick, where the plugin has them. */
bool decider_observes(const struct decider *decider, uint32_t service, uint32_t what);
void decider_observe(struct decider *decider, const struct decision_request *request, uint32_t what, int32_t server,
                     uint32_t number);
void decider_session_end(struct decider *decider, uint32_t service, const struct hp_endpoint *client,
                         const struct hp_endpoint *local, int32_t server);
void decider_tick(struct decider *decider, uint64_t now_ms); /* call every second */

#endif
