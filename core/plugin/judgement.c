/* SPDX-License-Identifier: Apache-2.0 */
/* What is legal and hardly meant: said as a warning, with the reason and the remedy. */
#include "plugin/negotiate.h"
#include "plugin/values.h"

#include <string.h>

#define NO_SERVICE UINT32_MAX

static bool mask_is_zero(const struct hp_value *value)
{
    static const uint8_t zero[16];

    return value->given != 0 && ((value->kind == HP_OPTION_MASK4 && memcmp(value->as.mask, zero, 4) == 0) ||
                                 (value->kind == HP_OPTION_MASK6 && memcmp(value->as.mask, zero, 16) == 0));
}

static void judge_masks(const struct profile_values *values, struct diagnostics *diagnostics)
{
    const struct hp_plugin *descriptor = &values->plugin->descriptor;

    for (uint32_t i = 0; i < descriptor->option_count; i++)
        if (mask_is_zero(&values->values[i]))
            diagnostics_add(diagnostics, SEVERITY_WARNING, profile_values_position(values, NO_SERVICE, i),
                            "`%s` of 0 makes all clients one: a single server takes everybody; leave it out to tell "
                            "clients apart",
                            plugin_option(descriptor, i)->name);
}

/* A flow that is silent for longer than its record lives comes back to a record that is gone. */
static void judge_timeouts(const struct profile_values *values, struct diagnostics *diagnostics)
{
    const struct hp_plugin *descriptor = &values->plugin->descriptor;
    uint32_t option = plugin_ttl_option(descriptor);

    for (uint32_t id = 0; option != UINT32_MAX && id < values->view.service_count; id++) {
        const struct config_service *service = values->service_configs[id];
        int64_t ttl = values->services[id].values[option].as.integer;

        if (ttl >= 0 && (uint64_t)ttl >= service->idle_ms)
            continue;
        diagnostics_add(
            diagnostics, SEVERITY_WARNING, profile_values_position(values, id, option),
            "`%s` (%lld s) is shorter than the idle time of %s (%llu s): a client that is silent for longer "
            "loses its record before its flow ends, and its next port may go elsewhere; make `%s` at least "
            "as long",
            plugin_option(descriptor, option)->name, (long long)(ttl / 1000), service->name,
            (unsigned long long)(service->idle_ms / 1000), plugin_option(descriptor, option)->name);
        return;
    }
}

/* A plugin that checks by itself knows better which of its services share records. */
static void judge_servers(const struct profile_values *values, struct diagnostics *diagnostics)
{
    const struct hp_service *services = values->services;

    for (uint32_t id = 1; values->plugin->descriptor.check == NULL && id < values->view.service_count; id++)
        if (services[id].servers_identity != services[0].servers_identity)
            diagnostics_add(diagnostics, SEVERITY_WARNING, values->service_configs[id]->persistence_at,
                            "%s and %s have the profile %s but not the same servers: a client whose server is in one "
                            "pool alone is split; give both the same servers",
                            services[id].name, services[0].name, values->profile->name);
}

void profile_values_judge(const struct profile_values *values, struct diagnostics *diagnostics)
{
    judge_masks(values, diagnostics);
    judge_timeouts(values, diagnostics);
    judge_servers(values, diagnostics);
}
