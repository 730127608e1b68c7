/* SPDX-License-Identifier: Apache-2.0 */
/* A profile as its plugin sees it. Private to core/plugin; plugin.h has what others may call. */
#ifndef PLUGIN_VALUES_H
#define PLUGIN_VALUES_H

#include "plugin/plugin.h"

struct profile_values {
    const struct config *config;
    const struct config_profile *profile;
    const struct plugin *plugin;
    struct hp_profile view;
    struct hp_value *values;     /* profile's row, then one row per service: option_count each */
    struct hp_service *services; /* by id */
    const struct hp_service **service_pointers;
    const struct config_service **service_configs; /* by id */
    int32_t *ids;                                  /* by position in config.services; -1: of another profile */
};

/* What a plugin says with host->problem, put where it belongs in the file. Any service and option number is fine. */
void profile_values_problem(const struct profile_values *values, struct diagnostics *diagnostics, uint32_t service,
                            uint32_t option, const char *text);

/* Fills identity, servers_identity and so on; row: the service's values. False: no memory. (view.c) */
bool service_view_fill(struct hp_service *out, const struct config *config, const struct config_service *service,
                       uint32_t id, const struct hp_value *row);

/* Warnings that need values: masks of 0, records that live shorter than flows, services with unequal servers.
 * (judgement.c) */
void profile_values_judge(const struct profile_values *values, struct diagnostics *diagnostics);

/* Where the user wrote the option (text), else where the profile, or the service's persistence, is written. */
struct position profile_values_position(const struct profile_values *values, uint32_t service, uint32_t option);

#endif
