/* SPDX-License-Identifier: Apache-2.0 */
/* Fair queueing towards servers. A listener's socket is one queue for all clients of its lane: who fills it would delay
 * all others, and take their room in it. So a session that has more than its share of a vector while the socket holds
 * more than that gets a queue of its own, and the socket is read on: what is light goes through at once. Of each such
 * queue a quantum leaves in each turn of the loop, until it is empty.
 * Fails: the queue is full, no memory             -> dropped and counted
 *        its session ends, its lane is given away -> what waits leaves before
 *        its source address goes                  -> what waits is dropped and counted
 *        this process is killed                   -> lost, as what it has in hand */
#include "relay/private.h"

#include <stdlib.h>
#include <string.h>

#define QUANTUM 32u                /* datagrams */
#define OCTETS (UINT32_C(8) << 20) /* of all queues; one alone has half of it, as much as a listener's socket */

struct waiting {
    struct waiting *next;
    uint32_t size;
    uint8_t mark;
    uint8_t data[];
};

struct backlog {
    struct path *path;
    struct backlog *next;
    struct waiting *first, **end;
    uint32_t octets;
};

static uint32_t octets_of(const struct waiting *waiting)
{
    return (uint32_t)sizeof *waiting + waiting->size;
}

static void backlog_free(struct path *path)
{
    struct relay *relay = path->lane->relay;
    struct backlog *backlog = path->backlog, **link = &relay->backlogs;

    while (*link != backlog)
        link = &(*link)->next;
    *link = backlog->next;
    path->backlog = NULL;
    free(backlog);
    if (relay->backlogs == NULL)
        uv_idle_stop(&relay->backlog_turn);
}

static struct waiting *backlog_take(struct relay *relay, struct backlog *backlog)
{
    struct waiting *waiting = backlog->first;

    backlog->first = waiting->next;
    if (backlog->first == NULL)
        backlog->end = &backlog->first;
    backlog->octets -= octets_of(waiting);
    relay->backlog_octets -= octets_of(waiting);
    return waiting;
}

static void quantum_send(struct path *path)
{
    struct relay *relay = path->lane->relay;
    struct backlog *backlog = path->backlog;
    struct waiting *sent[QUANTUM];
    uint32_t count = 0;

    for (; count < QUANTUM && backlog->first != NULL; count++) {
        sent[count] = backlog_take(relay, backlog);
        udp_add(
            relay, path,
            &(struct run_datagram){.data = sent[count]->data, .size = sent[count]->size, .mark = sent[count]->mark});
    }
    udp_send_runs(relay, path);
    while (count > 0)
        free(sent[--count]);
    if (backlog->first == NULL)
        backlog_free(path);
}

static void on_turn(uv_idle_t *idle)
{
    struct relay *relay = idle->data;
    struct backlog *next;

    relay_wake(relay);
    for (struct backlog *backlog = relay->backlogs; backlog != NULL; backlog = next) {
        next = backlog->next;
        quantum_send(backlog->path);
    }
    relay_rest(relay);
}

static struct backlog *backlog_make(struct path *path)
{
    struct relay *relay = path->lane->relay;
    struct backlog *backlog = malloc(sizeof *backlog);

    if (backlog == NULL)
        return NULL;
    *backlog = (struct backlog){.path = path, .next = relay->backlogs, .end = &backlog->first};
    if (relay->backlogs == NULL)
        uv_idle_start(&relay->backlog_turn, on_turn);
    relay->backlogs = backlog;
    return backlog;
}

/* Each may grow to what is still free: one alone to half of all, two to a third each. */
static struct waiting *waiting_make(struct path *path, uint32_t size)
{
    const struct relay *relay = path->lane->relay;
    uint32_t own = path->backlog != NULL ? path->backlog->octets : 0;

    if (own + size >= OCTETS - relay->backlog_octets)
        return NULL;
    return malloc(sizeof(struct waiting) + size);
}

void backlog_add(struct path *path, const uint8_t *data, uint32_t size, uint8_t mark)
{
    struct waiting *waiting = waiting_make(path, size);
    struct backlog *backlog;

    if (waiting != NULL && path->backlog == NULL)
        path->backlog = backlog_make(path);
    backlog = path->backlog;
    if (waiting == NULL || backlog == NULL) {
        free(waiting);
        flow_lost(&(struct flow){path->listener, &path->row->client, NULL}, LOSS_dropped_send_to_server);
        return;
    }
    waiting->next = NULL;
    waiting->size = size;
    waiting->mark = mark;
    memcpy(waiting->data, data, size);
    *backlog->end = waiting;
    backlog->end = &waiting->next;
    backlog->octets += octets_of(waiting);
    path->lane->relay->backlog_octets += octets_of(waiting);
}

void backlog_send(struct path *path)
{
    while (path->backlog != NULL)
        quantum_send(path);
}

void backlog_send_lane(struct lane *lane)
{
    struct backlog *next;

    for (struct backlog *backlog = lane->relay->backlogs; backlog != NULL; backlog = next) {
        next = backlog->next;
        if (backlog->path->lane == lane)
            backlog_send(backlog->path);
    }
}

void backlog_forget(struct path *path)
{
    if (path->backlog == NULL)
        return;
    while (path->backlog->first != NULL)
        free(backlog_take(path->lane->relay, path->backlog));
    backlog_free(path);
}
