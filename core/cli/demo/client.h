/* SPDX-License-Identifier: Apache-2.0 */
/* The demo's IKEv2 clients, each with an address of its own, on one loop. What they say is what an administrator hears
 * from users: connected, or error 809. */
#ifndef CLI_DEMO_CLIENT_H
#define CLI_DEMO_CLIENT_H

#include "base/error.h"
#include "cli/demo/place.h"
#include <uv.h>

struct clients;

struct clients_count {
    uint32_t connected, failed;
};

/* changed is called whenever the count is another. Errors: -EADDRINUSE and the like from the sockets. */
int clients_open(struct clients **out, uv_loop_t *loop, const struct place *place, uint64_t seed,
                 void (*changed)(void *arg), void *arg, struct error *error);
/* All begin within a second, in an order that the seed decides. */
void clients_connect(struct clients *clients);
/* From now on connected clients speak every second, and who is left alone for some seconds connects anew. */
void clients_stay(struct clients *clients);
void clients_close(struct clients *clients); /* NULL is fine */

struct clients_count clients_count(const struct clients *clients);
bool clients_connected(const struct clients *clients, uint32_t client);
/* While they stay: connected, and the server answered its IKE_SA in the last three seconds. */
bool clients_at_home(const struct clients *clients, uint32_t client);

#endif
