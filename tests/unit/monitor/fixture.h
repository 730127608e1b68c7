/* SPDX-License-Identifier: Apache-2.0 */
/* A monitor on a real loop, over a segment in a folder of its own and a configuration made by hand: servers of
 * 127.0.0.0/8, one pool, services, one profile. Nothing is left after the test. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "monitor/monitor.h"
#include "segment/record.h"
#include "segment/session.h"

#include <jansson.h>

enum { FIXTURE_SERVERS = 3, FIXTURE_SERVICES = 3, FIXTURE_POOLS = 2, FIXTURE_WAIT_MS = 10000 };

struct fixture {
    char path[64];
    uv_loop_t loop;
    struct config config;
    struct config_server servers[FIXTURE_SERVERS];
    struct config_pool pools[FIXTURE_POOLS]; /* the second has the first server alone; unused at first */
    struct config_profile profile;
    struct config_service services[FIXTURE_SERVICES];
    struct hp_endpoint listen[FIXTURE_SERVICES];
    struct segment *segment;
    struct topology *topology;
    struct monitor *monitor;
    struct monitor_host host;
    struct log log;
    uint32_t self;
    uint32_t slots[FIXTURE_SERVERS]; /* of the servers */
    int passed_on;                   /* what host.reload was given; -1: nothing */
};

/* Three servers 127.0.0.1 to .3, interval 60 ms, time-out 30 ms, rise 2, fall 3, check none; services "ike", "nat-t"
 * and "other" of profile "home" at one pool. Change the configuration, then fixture_start. */
void fixture_open(struct fixture *fixture);
/* Assigns slots, opens and starts the monitor. May be called again after fixture_stop: as the next generation. */
void fixture_start(struct fixture *fixture);
void fixture_stop(struct fixture *fixture);
void fixture_close(struct fixture *fixture);
void fixture_probe_port(struct fixture *fixture, uint32_t service, uint16_t port); /* check: ike towards this port */
void fixture_probe_tcp(struct fixture *fixture, uint32_t service, uint16_t port);  /* check: tcp */

/* Turns the loop until the claim holds. false: it did not within FIXTURE_WAIT_MS. */
bool fixture_until(struct fixture *fixture, bool (*claim)(struct fixture *fixture, void *arg), void *arg);
void fixture_run(struct fixture *fixture, uint64_t ms); /* turns it for so long: for what must not happen */
const char *fixture_logged(struct fixture *fixture, char text[4096]);

/* State of a server's probe as the segment has it. */
struct health_view {
    bool known, down;
    uint32_t failures;
    char reason[64];
};
struct health_view fixture_health(const struct fixture *fixture, uint32_t server, uint16_t port);

/* Rows and records by hand. last: of the client's address 198.51.100.LAST. */
struct record_ref fixture_record(struct fixture *fixture, uint8_t last, uint32_t server, uint32_t timeout_s,
                                 uint32_t age_s);
/* record: NULL: none. */
struct session_row *fixture_session(struct fixture *fixture, uint32_t row, uint8_t last, const char *service,
                                    uint32_t server, const struct record_ref *record);
/* Turns the loop until a recount that begins after now is through. */
void fixture_recount(struct fixture *fixture);

/* A client of the control socket, connected; non-blocking. */
int fixture_connect(struct fixture *fixture);
/* Reads what comes until the end while the loop turns; from malloc, NUL-terminated. NULL: no end within the limit. */
char *fixture_read_all(struct fixture *fixture, int fd);
/* Sends a line and gives back the answer; NULL: none, or no JSON. */
json_t *fixture_ask(struct fixture *fixture, const char *line);

#endif
