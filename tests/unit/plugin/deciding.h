/* SPDX-License-Identifier: Apache-2.0 */
/* Two workers that decide on one segment, through the scripted plugin. Time is the tests' own. */
#ifndef PLUGIN_DECIDING_H
#define PLUGIN_DECIDING_H

#include "plugin/decide.h"
#include "segment/record.h"
#include "segment/session.h"
#include "world.h"

#define START_S 1000u

enum datagram { INIT, LATER, NO_IKE }; /* IKE_SA_INIT, any later IKE message, neither */

struct deciding {
    struct world world;
    uint32_t slots[2]; /* process slots */
    struct topology *topologies[2];
    struct decider *deciders[2];
    uint32_t now_s;
};

/* options: of the profile home, as in YAML. */
void deciding_open(struct deciding *self, const char *module, const char *options);
void deciding_open_yaml(struct deciding *self, const char *yaml, uint32_t records);
void deciding_reload(struct deciding *self, const char *yaml);
void deciding_close(struct deciding *self);
/* YAML of one pool of three, IKE and NAT-T, profile home by the module. */
const char *deciding_yaml(char text[2048], const char *module, const char *options, const char *extra);

struct decision ask(struct deciding *self, uint32_t worker, const char *service, uint32_t client, int32_t own,
                    enum datagram kind);
struct decision ask_new(struct deciding *self, const char *service, uint32_t client); /* worker 0, new flow, INIT */
void request_fill(struct deciding *self, struct decision_request *out, const char *service, uint32_t client,
                  int32_t own, enum datagram kind);

int32_t server_named(const struct deciding *self, const char *name);
uint64_t counted(const struct deciding *self, enum counter counter); /* both workers */
uint64_t plugin_counted(const struct deciding *self, const char *counter);
uint32_t record_age(const struct deciding *self, const struct decision *decision);
bool watch_holds(const struct deciding *self, const struct decision *decision);
void prove(struct deciding *self, const struct decision *decision);

#endif
