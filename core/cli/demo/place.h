/* SPDX-License-Identifier: Apache-2.0 */
/* Where everything stands on the loopback: 127.30.0.1 is the balancer, 127.20.0.1 and on are the servers, 127.10.0.N is
 * client N. Ports 500 and 4500 where they can be bound, high ones where not; the same for all. */
#ifndef CLI_DEMO_PLACE_H
#define CLI_DEMO_PLACE_H

#include "base/error.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define DEMO_SERVERS 3u
#define DEMO_CLIENTS 60u /* counted from 1, as their addresses are */

struct place {
    uint16_t ike, nat_t;
    int claim;          /* a socket that keeps other demos from these ports; -1: none */
    bool high;          /* not 500 and 4500 */
    struct error error; /* why not */
};

struct sockaddr_in place_service(uint16_t port);
struct sockaddr_in place_server(uint32_t server, uint16_t port);
struct sockaddr_in place_client(uint32_t client, uint16_t port);
const char *place_text(const struct sockaddr_in *address, char text[INET_ADDRSTRLEN]); /* without the port */

/* Finds two ports that every address above can bind now, and that no other demo has. Errors: -EADDRINUSE no pair is
 * free; then there is nothing to release. */
int place_choose(struct place *place, struct error *error);
void place_release(struct place *place);
/* A non-blocking UDP socket bound to the address. Returns the descriptor or a negative errno value. */
int place_bind(const struct sockaddr_in *address, struct error *error);

#endif
