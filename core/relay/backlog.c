/* SPDX-License-Identifier: Apache-2.0 */
/* Fair queueing towards servers. A listener's socket is one queue for all flows of its lane: who fills it would delay
 * all others, and take their room in it. So a session that has more than its share of a full vector, in a lane that has
 * others, gets a queue of its own, and the socket is read on: what is light goes through at once.
 *
 * In each turn of the loop the queues send half as many datagrams as a vector holds, one after the other (round robin,
 * by datagrams and octets), until they are empty. A listener is read as fast as twice that: more would find the light
 * ones sooner, but under overload reading and dropping would eat the time for sending.
 *
 * Fails: no room for a queue more -> the session has none, and what it reads leaves at once
 *        the queue is full        -> dropped and counted; so it is without memory
 *        its session ends, its lane is given away, the relay closes
 *                                 -> what waits leaves before, as far as the kernel takes it at once
 *        its source address goes  -> what waits is dropped and counted
 *        this process is killed   -> lost, as what it has in hand */
#include "relay/private.h"

#include <stdlib.h>
#include <string.h>

#define TURN (BATCH_SLOTS / 2)    /* datagrams of all queues */
#define TURN_OCTETS (48u << 10)   /* as many octets, of ordinary ones */
#define TURN_LEAST 4u             /* datagrams of one queue */
#define BACKLOG_OCTETS (8u << 20) /* of all queues; one alone has half of it, as much as a listener's socket */
#define RESERVE (256u << 10)      /* of these, for queues that are there */
#define OVERHEAD 768u             /* octets a datagram is counted as more, about what the kernel counts */

_Static_assert(TURN <= BATCH_SLOTS, "a turn fits the runs");

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

static void backlog_free(struct path *path)
{
    struct relay *relay = path->lane->relay;
    struct backlog *backlog = path->backlog, **link = &relay->backlogs;

    while (*link != backlog)
        link = &(*link)->next;
    *link = backlog->next;
    relay->backlog_count--;
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
    backlog->octets -= OVERHEAD + waiting->size;
    relay->backlog_octets -= OVERHEAD + waiting->size;
    return waiting;
}

/* At most so many datagrams and, but for the first, octets. Returns how many. */
static uint32_t some_send(struct path *path, uint32_t limit, uint32_t octets)
{
    struct relay *relay = path->lane->relay;
    struct backlog *backlog = path->backlog;
    struct waiting *sent[TURN];
    uint32_t count = 0, size = 0;

    while (backlog->first != NULL && count < limit && (count == 0 || size + backlog->first->size <= octets)) {
        struct waiting *waiting = backlog_take(relay, backlog);
        struct run_datagram datagram = {.data = waiting->data, .size = waiting->size, .mark = waiting->mark};

        udp_add(relay, path, &datagram);
        size += waiting->size;
        sent[count++] = waiting;
    }
    udp_send_runs(relay, path);
    for (uint32_t i = 0; i < count; i++)
        free(sent[i]);
    if (backlog->first == NULL)
        backlog_free(path);
    return count;
}

/* Who has had its turn goes to the end. */
static void rotate(struct relay *relay)
{
    struct backlog *first = relay->backlogs, **end = &relay->backlogs;

    if (first == NULL || first->next == NULL)
        return;
    relay->backlogs = first->next;
    first->next = NULL;
    while (*end != NULL)
        end = &(*end)->next;
    *end = first;
}

static void on_turn(uv_idle_t *idle)
{
    struct relay *relay = idle->data;
    uint32_t queues = relay->backlog_count, share = TURN / queues, octets = TURN_OCTETS / queues;

    relay_wake(relay);
    share = share < TURN_LEAST ? TURN_LEAST : share;
    for (uint32_t sent = 0, served = 0; served < queues && sent < TURN; served++) {
        struct backlog *backlog = relay->backlogs;

        sent += some_send(backlog->path, share, octets);
        if (relay->backlogs == backlog)
            rotate(relay);
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
    relay->backlog_count++;
    return backlog;
}

bool backlog_has_room(const struct relay *relay)
{
    return relay->backlog_octets < BACKLOG_OCTETS - RESERVE;
}

/* Each may grow to what is still free: one alone to half of all, two to a third each. */
static struct waiting *waiting_make(const struct path *path, uint32_t size)
{
    const struct relay *relay = path->lane->relay;
    uint32_t own = path->backlog != NULL ? path->backlog->octets : 0;

    if (own + OVERHEAD + size > BACKLOG_OCTETS - relay->backlog_octets)
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
    backlog->octets += OVERHEAD + size;
    path->lane->relay->backlog_octets += OVERHEAD + size;
}

void backlog_send(struct path *path)
{
    while (path->backlog != NULL)
        (void)some_send(path, TURN, UINT32_MAX);
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
