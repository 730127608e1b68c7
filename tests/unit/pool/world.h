/* SPDX-License-Identifier: Apache-2.0 */
/* A small world for tests of pools and plugins: a configuration from YAML, a segment in a folder of its own with all
 * slots assigned as the master does, and the topology of one worker. */
#ifndef POOL_WORLD_H
#define POOL_WORLD_H

#include "pool/topology.h"

struct world {
    char path[64];
    struct log log; /* into a memfd */
    struct segment *segment;
    struct config *config;
    struct topology *topology;
};

void world_open(struct world *world, const char *yaml);
void world_open_with(struct world *world, const char *yaml, uint32_t records);
/* Another configuration on the same segment: what is no longer named drains. The old one must not be used any more. */
void world_reload(struct world *world, const char *yaml);
void world_close(struct world *world);

uint32_t world_server(const struct world *world, const char *name); /* its slot */
struct topology_service *world_service(struct world *world, const char *name);
void world_down(struct world *world, const char *server, uint16_t port, bool down);
void world_state(struct world *world, const char *server, enum server_state state);
/* As the monitor after a round. */
void world_recount(struct world *world, const char *server, uint32_t clients);
const char *world_logged(struct world *world, char text[4096]);

/* Three servers, IKE on 500 and NAT-T on 4500, one pool; extra is put into the pool, and profile is the persistence. */
const char *world_yaml(char text[2048], const char *pool_extra, const char *profiles, const char *service_extra);

#endif
