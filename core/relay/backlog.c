/* SPDX-License-Identifier: Apache-2.0 */
/* Fair queueing towards servers. A listener's socket is one queue for all flows of its lane: who fills it would delay
 * all others, and take their room in it. So a session that has more than its share of a full vector, in a lane that has
 * others, gets a queue of its own, and the socket is read on: what is light goes through at once.
 *
 * In each turn of the loop the queues send half as much as has come to them since the last, and no less than half a
 * vector, one after the other (round robin, by datagrams and octets), until they are empty. Less would find the light
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

#define TURN (BATCH_SLOTS / 2)    /* datagrams of all queues; of one, at most */
#define TURN_OCTETS (48u << 10)   /* as many octets, of ordinary ones */
#define TURN_LEAST 4u             /* datagrams of one queue */
#define BACKLOG_OCTETS (8u << 20) /* of all queues; one alone has half of it, as much as a listener's socket */
#define RESERVE (256u << 10)      /* of these, for queues that are there */
#define OVERHEAD 768u             /* octets a datagram is counted as more, about what the kernel counts */

struct waiting {
    struct waiting *next;
    uint32_t size;
    uint8_t mark;
    uint8_t data[];
};

struct backlog {
    struct path *path;
    TAILQ_ENTRY(backlog) link;
    struct waiting *first, **end;
    uint32_t octets;
};

static void backlog_free(struct path *path)
{
    struct relay *relay = path->lane->relay;

    TAILQ_REMOVE(&relay->backlogs, path->backlog, link);
    relay->backlog_count--;
    free(path->backlog);
    path->backlog = NULL;
    if (relay->backlog_count == 0)
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

static uint32_t at_least(uint32_t number, uint32_t least)
{
    return number < least ? least : number;
}

/* Who has had its turn goes to the end. */
static void on_turn(uv_idle_t *idle)
{
    struct relay *relay = idle->data;
    uint32_t queues = relay->backlog_count, turn = at_least(relay->backlog_came / 2, TURN),
             octets = at_least(relay->backlog_came_octets / 2, TURN_OCTETS) / queues,
             share = at_least(turn / queues, TURN_LEAST);

    relay_wake(relay);
    relay->backlog_came = relay->backlog_came_octets = 0;
    for (uint32_t sent = 0, served = 0; served < queues && sent < turn; served++) {
        struct path *path = TAILQ_FIRST(&relay->backlogs)->path;

        sent += some_send(path, share < TURN ? share : TURN, octets);
        if (path->backlog == NULL)
            continue;
        TAILQ_REMOVE(&relay->backlogs, path->backlog, link);
        TAILQ_INSERT_TAIL(&relay->backlogs, path->backlog, link);
    }
    relay_rest(relay);
}

static struct backlog *backlog_make(struct path *path)
{
    struct relay *relay = path->lane->relay;
    struct backlog *backlog = malloc(sizeof *backlog);

    if (backlog == NULL)
        return NULL;
    *backlog = (struct backlog){.path = path, .end = &backlog->first};
    TAILQ_INSERT_TAIL(&relay->backlogs, backlog, link);
    if (relay->backlog_count++ == 0)
        uv_idle_start(&relay->backlog_turn, on_turn);
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

bool backlog_add(struct path *path, const uint8_t *data, uint32_t size, uint8_t mark)
{
    struct relay *relay = path->lane->relay;
    struct waiting *waiting = waiting_make(path, size);
    struct backlog *backlog;

    if (waiting != NULL && path->backlog == NULL)
        path->backlog = backlog_make(path);
    backlog = path->backlog;
    if (waiting == NULL || backlog == NULL) {
        free(waiting);
        flow_lost(&(struct flow){path->listener, &path->row->client, NULL}, LOSS_dropped_send_to_server);
        return false;
    }
    waiting->next = NULL;
    waiting->size = size;
    waiting->mark = mark;
    memcpy(waiting->data, data, size);
    *backlog->end = waiting;
    backlog->end = &waiting->next;
    backlog->octets += OVERHEAD + size;
    relay->backlog_octets += OVERHEAD + size;
    relay->backlog_came++;
    relay->backlog_came_octets += size;
    return true;
}

void backlog_send(struct path *path)
{
    while (path->backlog != NULL)
        (void)some_send(path, TURN, UINT32_MAX);
}

void backlog_send_lane(struct lane *lane)
{
    struct backlog *next;

    for (struct backlog *backlog = TAILQ_FIRST(&lane->relay->backlogs); backlog != NULL; backlog = next) {
        next = TAILQ_NEXT(backlog, link);
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
