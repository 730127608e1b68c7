/* SPDX-License-Identifier: Apache-2.0 */
#include "process/plan.h"

#include <errno.h>
#include <netinet/in.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

static void copy_name(char to[SEGMENT_NAME], const char *name)
{
    strncpy(to, name, SEGMENT_NAME - 1); /* config_read has checked the length */
}

/* One probe per (server, protocol, port), whoever uses it: config.md. */
static int add_probe(struct plan_server *server, const struct config_service *service, struct error *error)
{
    uint32_t key = service->protocol << 16 | service->server_port;

    for (uint32_t i = 0; i < server->probe_count; i++)
        if (server->probes[i] == key)
            return 0;
    if (server->probe_count == SEGMENT_PROBES) {
        error_set(error, -E2BIG, "server %s is used on more than %u ports", server->name, SEGMENT_PROBES);
        return error_next(error, "use `check: none` in the pools that need no probe");
    }
    server->probes[server->probe_count++] = key;
    return 0;
}

static int fill_servers(struct plan *plan, const struct config *config, struct error *error)
{
    for (uint32_t i = 0; i < config->server_count; i++) {
        copy_name(plan->servers[i].name, config->servers[i].name);
        plan->servers[i].address = config->servers[i].address;
        plan->servers[i].state = config->servers[i].state;
    }
    plan->server_count = config->server_count;
    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct config_service *service = &config->services[i];
        const struct config_pool *pool = &config->pools[service->pool];

        if (service->check == CHECK_NONE)
            continue;
        for (uint32_t j = 0; j < pool->server_count; j++) {
            int status = add_probe(&plan->servers[pool->servers[j]], service, error);
            if (status < 0)
                return status;
        }
    }
    return 0;
}

static int fill_listeners(struct plan *plan, const struct config *config, struct error *error)
{
    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct config_service *service = &config->services[i];

        for (uint32_t j = 0; j < service->listen_count; j++) {
            struct plan_listener *listener = &plan->listeners[plan->listener_count];

            if (plan->listener_count == PLAN_LISTENERS)
                return error_set(error, -E2BIG, "more than %u listening addresses", PLAN_LISTENERS);
            listener->address = service->listen[j];
            listener->protocol = service->protocol;
            copy_name(listener->service, service->name);
            plan->listener_count++;
        }
    }
    return 0;
}

int plan_fill(struct plan *plan, const struct config *config, struct error *error)
{
    int status;

    if (config->server_count > SEGMENT_SERVERS || config->pool_count > SEGMENT_POOLS ||
        config->profile_count > SEGMENT_PROFILES || config->service_count > SEGMENT_SERVICES)
        return error_set(error, -E2BIG, "more servers, pools, profiles or services than %u, %u, %u, %u",
                         SEGMENT_SERVERS, SEGMENT_POOLS, SEGMENT_PROFILES, SEGMENT_SERVICES);
    if (strlen(config->state) >= sizeof plan->state)
        return error_set(error, -E2BIG, "the path of the state folder is longer than %zu octets",
                         sizeof plan->state - 1);
    plan->workers = config->workers;
    strncpy(plan->state, config->state, sizeof plan->state - 1);
    plan->log_level = config->log_level;
    plan->log_format = config->log_format;
    plan->records = config->affinity_capacity;
    plan->sessions = config->sessions_capacity;
    plan->transparent = config_is_transparent(config);
    for (uint32_t i = 0; i < config->pool_count; i++)
        copy_name(plan->pools[i].name, config->pools[i].name);
    plan->pool_count = config->pool_count;
    for (uint32_t i = 0; i < config->profile_count; i++)
        copy_name(plan->profiles[i].name, config->profiles[i].name);
    plan->profile_count = config->profile_count;
    for (uint32_t i = 0; i < config->service_count; i++)
        copy_name(plan->services[i].name, config->services[i].name);
    plan->service_count = config->service_count;
    plan->source_count = config_sources(config, plan->sources);
    if (plan->source_count == SEGMENT_SOURCES)
        return error_set(error, -E2BIG, "more than %u source addresses", SEGMENT_SOURCES - 1);
    status = fill_servers(plan, config, error);
    return status < 0 ? status : fill_listeners(plan, config, error);
}

int plan_user(struct plan *plan, const struct config *config, struct error *error)
{
    const char *name = config->user != NULL ? config->user : "homeport";
    const struct passwd *user;

    user = getpwnam(name);
    if (user == NULL) {
        error_set(error, -ENOENT, "there is no user %s for workers and monitor to run as", name);
        return error_next(error, "create it: useradd --system --no-create-home %s; or name another with `user:`", name);
    }
    plan->uid = user->pw_uid;
    plan->gid = user->pw_gid;
    return 0;
}

static bool name_ends(const char name[SEGMENT_NAME])
{
    return name[0] != '\0' && memchr(name, '\0', SEGMENT_NAME) != NULL;
}

static bool names_end(const struct plan_name *names, uint32_t count, uint32_t limit)
{
    if (count > limit)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!name_ends(names[i].name))
            return false;
    return true;
}

static bool family_known(const struct hp_endpoint *address)
{
    return address->family == 4 || address->family == 6;
}

bool plan_valid(const struct plan *plan)
{
    if (plan->magic != PLAN_MAGIC || plan->workers == 0 || plan->workers > SEGMENT_LANES / 2 ||
        plan->log_level > LOG_DEBUG || plan->log_format > LOG_JSON || plan->records == 0 || plan->sessions == 0 ||
        plan->state[0] == '\0' || memchr(plan->state, '\0', sizeof plan->state) == NULL ||
        plan->server_count > SEGMENT_SERVERS || plan->listener_count > PLAN_LISTENERS ||
        plan->source_count >= SEGMENT_SOURCES || plan->transparent > 1)
        return false;
    if (!names_end(plan->pools, plan->pool_count, SEGMENT_POOLS) ||
        !names_end(plan->profiles, plan->profile_count, SEGMENT_PROFILES) ||
        !names_end(plan->services, plan->service_count, SEGMENT_SERVICES))
        return false;
    for (uint32_t i = 0; i < plan->server_count; i++)
        if (!name_ends(plan->servers[i].name) || plan->servers[i].state > SERVER_DISABLED ||
            plan->servers[i].probe_count > SEGMENT_PROBES || !family_known(&plan->servers[i].address))
            return false;
    for (uint32_t i = 0; i < plan->listener_count; i++)
        if (!name_ends(plan->listeners[i].service) || !family_known(&plan->listeners[i].address) ||
            (plan->listeners[i].protocol != IPPROTO_UDP && plan->listeners[i].protocol != IPPROTO_TCP))
            return false;
    for (uint32_t i = 0; i < plan->source_count; i++)
        if (!family_known(&plan->sources[i]))
            return false;
    return true;
}
