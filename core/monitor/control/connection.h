/* SPDX-License-Identifier: Apache-2.0 */
/* Private to this folder: one client of the control socket, from its request to the end of its answer. */
#ifndef MONITOR_CONTROL_CONNECTION_H
#define MONITOR_CONTROL_CONNECTION_H

#include "monitor/control/control.h"

#include <jansson.h>

enum listing_kind { LISTING_NONE, LISTING_SESSIONS, LISTING_RECORDS };
struct listing { /* a table answered in pieces */
    enum listing_kind kind;
    bool filtered;
    struct hp_endpoint client;
    uint32_t position; /* next row or record to look at */
    bool begun, some, ended;
};

struct drop { /* the verb drop under way */
    struct recount_search search;
    uint64_t sequence, give_up_ms;
    uint32_t before; /* records of the client before the drop */
    bool posted;
};

struct trace { /* the verb trace under way */
    bool on;
    struct hp_endpoint client; /* port 0: any */
    uint64_t next;             /* event to look at */
    uint64_t hole_ms;          /* since when that one is not there yet, though newer ones are; 0: it is */
    uint64_t beat_ms;          /* when something was written last */
    uint64_t lost;             /* events that were passed over and not told yet */
    int64_t wall_ahead_ms;     /* of clock.h */
    char ignored[64];          /* what its reader sends */
};

struct connection {
    struct control *control;
    const struct control_sources *sources;
    struct connection *next;
    uv_pipe_t pipe;
    uv_timer_t timer; /* the time-out of the present step */
    uv_timer_t work;  /* drop looks again */
    uv_write_t write;
    char *text; /* the request so far, then the piece that is written */
    size_t size;
    struct listing listing;
    struct drop drop;
    struct trace trace;
    int open_handles;
    bool closing;
};

/* Each of these ends what the connection was doing and may close it: it must not be touched after. */
void connection_answer(struct connection *connection, json_t *answer); /* takes the reference; NULL: no memory */
void connection_refuse(struct connection *connection, const char *error, const char *next);
void connection_list(struct connection *connection); /* as connection->listing says */
/* text from malloc, taken over; the connection goes on when it is out. */
void connection_write(struct connection *connection, char *text, size_t size);
/* How many connections trace the client; NULL: any. */
uint32_t connection_traces(const struct connection *connection, const struct hp_endpoint *client);
/* A duplicate of its descriptor, for somebody else to answer on; the connection is closed here. -1: none left, and
 * refused. */
int connection_give_away(struct connection *connection);
/* Five seconds from now. */
void connection_extend(struct connection *connection);

#endif
