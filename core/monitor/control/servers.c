/* SPDX-License-Identifier: Apache-2.0 */
/* The verb servers: state by configuration, health by probe with its reason, load. Servers that have left the file stay
 * in the list, with configured false, until their last session has ended. */
#include "monitor/control/requests.h"

#include "base/clock.h"

#include <string.h>

static const char *state_name(enum server_state state)
{
    switch (state) {
    case SERVER_ENABLED:
        return "enabled";
    case SERVER_DRAIN:
        return "drain";
    case SERVER_OFFLINE:
        return "offline";
    case SERVER_DISABLED:
        return "disabled";
    }
    return "unknown";
}

static json_t *probe_object(const struct server_slot *slot, uint32_t probe)
{
    const struct server_probe *state = &slot->probes[probe];
    uint32_t key = atomic_load(&state->key);
    uint64_t since = atomic_load(&state->since_ms), now = clock_now_ms();
    bool known = atomic_load(&state->known) != 0;
    bool down = (atomic_load(&slot->word) >> probe & 1u) != 0;
    char reason[SEGMENT_NAME] = {0};

    memcpy(reason, state->reason, sizeof state->reason);
    return json_pack("{s:s, s:i, s:s, s:o, s:o, s:I}", "protocol", key >> 16 == 6 ? "tcp" : "udp", "port",
                     (int)(key & 0xffffu), "health",
                     !known ? "unknown"
                     : down ? "down"
                            : "up",
                     "since_ms", known ? json_integer(since < now ? (json_int_t)(now - since) : 0) : json_null(),
                     "reason", known ? json_name(reason) : json_string("not probed yet"), "failures",
                     (json_int_t)atomic_load(&state->failures));
}

static json_t *probes_array(const struct control_sources *sources, uint32_t server)
{
    const struct server_slot *slot = &sources->context->segment->servers[server];
    json_t *array = json_array();

    for (uint32_t i = 0; i < SEGMENT_PROBES; i++)
        if (health_probes(sources->health, server, i))
            json_array_append_new(array, probe_object(slot, i));
    return array;
}

/* down: on one port at least; unknown: some probe has not been decided; none: nobody probes it, so it counts as up. */
static const char *overall_health(const json_t *probes)
{
    const char *overall = json_array_size(probes) == 0 ? "none" : "up";
    const json_t *probe;
    size_t i;

    json_array_foreach(probes, i, probe)
    {
        const char *health = json_string_value(json_object_get(probe, "health"));

        if (strcmp(health, "down") == 0)
            return "down";
        if (strcmp(health, "unknown") == 0)
            overall = "unknown";
    }
    return overall;
}

static json_t *pools_array(const struct config *config, uint32_t position)
{
    json_t *array = json_array();

    for (uint32_t i = 0; i < config->pool_count; i++)
        for (uint32_t j = 0; j < config->pools[i].server_count; j++)
            if (config->pools[i].servers[j] == position)
                json_array_append_new(array, json_string(config->pools[i].name));
    return array;
}

static uint32_t config_position(const struct config *config, const struct segment *segment, uint32_t slot)
{
    uint32_t i = 0;

    while (i < config->server_count && server_find(segment, config->servers[i].name) != slot)
        i++;
    return i;
}

static const char *slot_state(const struct segment *segment, uint32_t slot, bool configured)
{
    return configured ? state_name(server_word_state(server_word(segment, slot))) : "drain";
}

void server_condition(const struct control_sources *sources, uint32_t slot, const char **state, const char **health)
{
    const struct config *config = sources->context->config;
    const struct segment *segment = sources->context->segment;
    json_t *probes = probes_array(sources, slot);

    *state = slot_state(segment, slot, config_position(config, segment, slot) < config->server_count);
    *health = overall_health(probes);
    json_decref(probes);
}

/* position: in the configuration, its server_count when the server has left it. */
static json_t *server_object(const struct control_sources *sources, uint32_t slot, uint32_t position)
{
    const struct config *config = sources->context->config;
    const struct segment *segment = sources->context->segment;
    const struct server_slot *server = &segment->servers[slot];
    bool configured = position < config->server_count;
    json_t *probes = probes_array(sources, slot);

    return json_pack(
        "{s:o, s:o, s:s, s:b, s:s, s:o, s:i, s:i, s:o, s:o, s:o, s:o}", "name", json_name(server->name), "address",
        json_address(&server->address), "state", slot_state(segment, slot, configured), "configured", configured,
        "health", overall_health(probes), "probes", probes, "clients", (int)atomic_load(&server->clients), "sessions",
        (int)atomic_load(&server->sessions), "weight",
        configured ? json_integer(config->servers[position].weight) : json_null(), "max_clients",
        configured && config->servers[position].max_clients != 0 ? json_integer(config->servers[position].max_clients)
                                                                 : json_null(),
        "pools", configured ? pools_array(config, position) : json_array(), "sources", sources_array(sources, slot));
}

static bool still_drains(const struct server_slot *server)
{
    return server->identity != 0 && (atomic_load(&server->clients) > 0 || atomic_load(&server->sessions) > 0);
}

static json_t *notes_array(const struct control_sources *sources)
{
    const struct topology *topology = sources->context->topology;
    const struct config *config = sources->context->config;
    json_t *array = json_array();

    for (uint32_t i = 0; i < topology->service_count; i++) {
        const struct topology_service *service = &topology->services[i];

        if (topology_all_down(topology, service))
            json_array_append_new(array, json_sprintf("service %s: no enabled server is up: %s", service->config->name,
                                                      health_all_down_text(service->pool)));
    }
    for (uint32_t i = 0; i < config->server_count; i++) {
        uint32_t slot = server_find(topology->segment, config->servers[i].name);

        if (slot < SEGMENT_SERVERS)
            sources_add_notes(sources, slot, array);
    }
    return array;
}

void answer_servers(struct connection *connection, const json_t *request)
{
    const struct control_sources *sources = connection->sources;
    const struct config *config = sources->context->config;
    const struct segment *segment = sources->context->segment;
    json_t *array = json_array();

    (void)request;
    for (uint32_t i = 0; i < config->server_count; i++) {
        uint32_t slot = server_find(segment, config->servers[i].name);

        if (slot < SEGMENT_SERVERS)
            json_array_append_new(array, server_object(sources, slot, i));
    }
    for (uint32_t slot = 0; slot < SEGMENT_SERVERS; slot++)
        if (still_drains(&segment->servers[slot]) && config_position(config, segment, slot) == config->server_count)
            json_array_append_new(array, server_object(sources, slot, config->server_count));
    connection_answer(connection,
                      json_pack("{s:b, s:o, s:o}", "ok", 1, "servers", array, "notes", notes_array(sources)));
}
