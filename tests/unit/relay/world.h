/* SPDX-License-Identifier: Apache-2.0 */
/* A world for the relay: a segment in a folder of its own, listeners as the master opens them, servers and clients as
 * sockets on loopback addresses that belong to this test alone, and up to three workers on one loop. */
#ifndef TEST_RELAY_WORLD_H
#define TEST_RELAY_WORLD_H

#include "relay/relay.h"
#include "segment/record.h"
#include "segment/session.h"

#include <sys/types.h>

#define WORLD_WORKERS 3u
#define WORLD_LANES 8u
#define WORLD_LISTENERS 2u
#define WORLD_SERVERS 3u
#define WORLD_DATAGRAM 65507u

struct plan {             /* what a test wants to be different; zero: the usual */
    uint32_t lanes;       /* 1 */
    uint32_t rows;        /* of all lanes: 64 */
    uint32_t ports;       /* of all lanes: 64 */
    const char *idle;     /* 60s */
    const char *unproven; /* 60s */
    const char *timeout;  /* of records: 60s */
    bool ike, persistence, wildcard, two_services, log;
    bool tcp;               /* the services */
    uint32_t servers;       /* 1 */
    const char *first_name; /* of the first service: "first" */
};

struct worker {
    uint32_t self; /* process slot */
    struct config *config;
    struct topology *topology;
    struct decider *decider;
    struct relay *relay;
    uint32_t taken, given; /* callbacks so far */
    bool closed;
};

struct world {
    char folder[64];
    uint8_t net[2]; /* 127.net.net.x is ours */
    uint16_t port, second_port, port_first;
    struct plan plan;
    uv_loop_t loop;
    uv_timer_t pulse;
    struct log log;
    struct segment *segment;
    int listeners[WORLD_LISTENERS][WORLD_LANES];
    int servers[WORLD_SERVERS]; /* -1: not listening */
    struct worker workers[WORLD_WORKERS];
};

void world_open(struct world *world, const struct plan *plan);
void world_close(struct world *world);
/* A worker, with listeners, that holds nothing yet; by the world's plan as it is now. */
struct worker *world_worker(struct world *world, uint32_t number);
void worker_take(struct world *world, struct worker *worker, uint32_t lane, int peer); /* waits when peer is -1 */
void worker_take_all(struct world *world, struct worker *worker);
void worker_give(struct world *world, struct worker *worker, uint32_t lane, int peer);
bool worker_has_taken(void *worker); /* for world_wait */
bool worker_has_given(void *worker);
void worker_die(struct world *world, struct worker *worker); /* what it has read leaves, its descriptors close */

struct hp_endpoint world_address(const struct world *world, uint8_t host, uint16_t port);
int world_socket(const struct hp_endpoint *address);                   /* bound UDP socket */
int world_server(struct world *world, uint32_t server, uint16_t port); /* listens as server 0.. */
int world_client(struct world *world, uint8_t host);                   /* connected to the first service */
int world_client_at(struct world *world, uint8_t host, uint8_t local, uint16_t port);

void world_turn(struct world *world); /* until the loop has nothing to do at once */
bool world_wait(struct world *world, bool (*is)(void *arg), void *arg, uint32_t limit_ms);
/* Runs the loop until a datagram is there; its size, or -1 after two seconds. from may be NULL. */
ssize_t world_receive(struct world *world, int fd, void *data, size_t size, struct hp_endpoint *from);
bool world_silent(struct world *world, int fd); /* nothing to read once the loop has nothing to do */
/* From client to server; the source port that the server sees. 0: it did not arrive. */
uint16_t world_say(struct world *world, int client, int server, const char *text);
bool world_answer(struct world *world, int server, uint16_t to_port, int client, const char *text);

uint64_t world_count(const struct world *world, enum counter counter);
struct session_row *world_row(const struct world *world, uint32_t number); /* n-th live row; NULL: none */
uint32_t world_live(const struct world *world);
uint32_t world_server_slot(const struct world *world, uint32_t server);
/* Of the n-th live row, to that server. */
bool world_move_record(struct world *world, uint32_t number, uint32_t server);

#endif
