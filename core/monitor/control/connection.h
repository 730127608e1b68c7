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
    int open_handles;
    bool closing;
};

/* Each of these ends what the connection was doing and may close it: it must not be touched after. */
void connection_answer(struct connection *connection, json_t *answer); /* takes the reference; NULL: no memory */
void connection_refuse(struct connection *connection, const char *error, const char *next);
void connection_list(struct connection *connection); /* as connection->listing says */
/* A duplicate of its descriptor, for somebody else to answer on; the connection is closed here. -1: none left, and
 * refused. */
int connection_give_away(struct connection *connection);
/* Five seconds from now. */
void connection_extend(struct connection *connection);

#endif
