/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include "segment/source.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void read_config(struct world *world, const char *yaml)
{
    struct diagnostics *diagnostics;

    cr_assert_eq(diagnostics_open(&diagnostics, "test.yaml", yaml, strlen(yaml)), 0);
    if (config_read(&world->config, "test.yaml", yaml, strlen(yaml), diagnostics) < 0) {
        diagnostics_print(diagnostics, stderr);
        cr_assert_fail("the test's own configuration is wrong");
    }
    diagnostics_close(diagnostics);
}

static bool configured(const struct world *world, const char *name)
{
    for (uint32_t i = 0; i < world->config->server_count; i++)
        if (strcmp(world->config->servers[i].name, name) == 0)
            return true;
    return false;
}

static void assign(struct world *world)
{
    struct config *config = world->config;
    struct segment *segment = world->segment;
    struct hp_endpoint sources[SEGMENT_SOURCES];
    struct error error = {0};
    uint32_t count;

    for (uint32_t i = 0; i < SEGMENT_SERVERS; i++)
        if (segment->servers[i].identity != 0 && !configured(world, segment->servers[i].name))
            server_set_state(segment, i, server_word_state(server_word(segment, i)), false);
    for (uint32_t i = 0; i < config->server_count; i++) {
        uint32_t slot = server_assign(segment, config->servers[i].name, &config->servers[i].address);

        server_set_state(segment, slot, config->servers[i].state, true);
    }
    count = config_sources(config, sources);
    for (uint32_t i = 0; i < count; i++)
        source_assign(segment, &sources[i], sources, count);
    for (uint32_t i = 0; i < config->pool_count; i++)
        pool_assign(segment, config->pools[i].name);
    for (uint32_t i = 0; i < config->profile_count; i++)
        profile_assign(segment, config->profiles[i].name);
    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct config_service *service = &config->services[i];
        const struct config_pool *pool = &config->pools[service->pool];

        service_assign(segment, service->name);
        for (uint32_t j = 0; service->check != CHECK_NONE && j < pool->server_count; j++)
            server_probe_assign(segment, server_find(segment, config->servers[pool->servers[j]].name),
                                service->protocol, service->server_port);
    }
    cr_assert_eq(topology_open(&world->topology, config, segment, &error), 0, "%s", error.what);
}

void world_open(struct world *world, const char *yaml)
{
    world_open_with(world, yaml, 1600);
}

void world_open_with(struct world *world, const char *yaml, uint32_t records)
{
    const struct segment_shape shape = {.records = records, .sessions = 64, .lanes = 8};
    const char *base = getenv("TMPDIR");
    struct error error = {0};
    int directory;

    memset((void *)world, 0, sizeof *world);
    snprintf(world->path, sizeof world->path, "%.40s/world-XXXXXX", base != NULL ? base : "/tmp");
    cr_assert_not_null(mkdtemp(world->path));
    directory = open(world->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    log_init(&world->log, "test");
    world->log.fd = memfd_create("log", MFD_CLOEXEC);
    cr_assert_eq(segment_open(&world->segment, directory, &shape, &world->log, &error), 0, "%s", error.what);
    close(directory);
    read_config(world, yaml);
    assign(world);
}

void world_reload(struct world *world, const char *yaml)
{
    topology_close(world->topology);
    config_free(world->config);
    read_config(world, yaml);
    assign(world);
}

void world_close(struct world *world)
{
    char file[96];

    topology_close(world->topology);
    config_free(world->config);
    segment_close(world->segment);
    snprintf(file, sizeof file, "%s/segment", world->path);
    unlink(file);
    cr_assert_eq(rmdir(world->path), 0);
    close(world->log.fd);
}

uint32_t world_server(const struct world *world, const char *name)
{
    uint32_t slot = server_find(world->segment, name);

    cr_assert_neq(slot, SEGMENT_NO_INDEX, "%s", name);
    return slot;
}

struct topology_service *world_service(struct world *world, const char *name)
{
    for (uint32_t i = 0; i < world->topology->service_count; i++)
        if (strcmp(world->topology->services[i].config->name, name) == 0)
            return &world->topology->services[i];
    cr_assert_fail("no service %s", name);
    return NULL;
}

void world_down(struct world *world, const char *server, uint16_t port, bool down)
{
    uint32_t slot = world_server(world, server), probe = server_probe_find(world->segment, slot, 17, port);

    cr_assert_lt(probe, SEGMENT_PROBES, "%s is not probed on %u", server, port);
    server_set_down(world->segment, slot, probe, down);
}

void world_state(struct world *world, const char *server, enum server_state state)
{
    server_set_state(world->segment, world_server(world, server), state, true);
}

void world_recount(struct world *world, const char *server, uint32_t clients)
{
    atomic_store(&world->segment->servers[world_server(world, server)].clients, clients);
    atomic_fetch_add(&world->segment->header->recount, 1);
}

const char *world_logged(struct world *world, char text[4096])
{
    ssize_t size = pread(world->log.fd, text, 4095, 0);

    text[size > 0 ? size : 0] = '\0';
    return text;
}

const char *world_yaml(char text[2048], const char *pool_extra, const char *profiles, const char *service_extra)
{
    snprintf(text, 2048,
             "servers:\n"
             "  vpn1: { address: 192.0.2.11 }\n"
             "  vpn2: { address: 192.0.2.12 }\n"
             "  vpn3: { address: 192.0.2.13 }\n"
             "pools:\n"
             "  rras: { servers: [ vpn1, vpn2, vpn3 ]%s }\n"
             "%s"
             "services:\n"
             "  ike:   { listen: \"127.0.0.1:500\",  protocol: udp, pool: rras%s }\n"
             "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: rras%s }\n",
             pool_extra, profiles, service_extra, service_extra);
    return text;
}
