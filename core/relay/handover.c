/* SPDX-License-Identifier: Apache-2.0 */
/* A lane changes hands. Giver: sends on what waits in it (backlog.c), stops reading it, sends each session's socket
 * with its row's number, the streams of TCP with what is unsent of them (stream_give.c), then DONE, closes its own
 * copies and never touches the lane again. Taker: keeps what comes until DONE, then holds the lane; what the sockets
 * have heard meanwhile lies in their queues. Of a dead giver it adopts the rows while its keeper sends.
 *
 * Fails: the taker is gone     -> the giver forgets the lane all the same: its sessions stand in the rows
 *        the giver is gone     -> end of file does for DONE, once its parent has said that it is dead: its end of the
 *                                 pair may just have been lost on the way to it; sockets that did not come are opened
 *        a message is nonsense -> its sockets are closed, the rest counts
 *        the giver was killed  -> its keeper sends them (keeper.c), or nothing for KEEPER_LIMIT_MS: as above
 *        the taker runs out of descriptors -> the kernel cuts the message; those sockets are opened when needed
 *        the queue is full     -> the loop waits for room; too many descriptors in flight: a look each millisecond */
#include "relay/socket_message.h"
#include "relay/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HANDOVER_RETRY_MS 1u
/* A dead holder's keeper that is slower is stopped or lost; its sockets are opened anew. */
#define KEEPER_LIMIT_MS 1000u

struct transfer {
    struct relay *relay;
    struct lane *lane;
    struct transfer *next;
    uv_poll_t poll;
    uv_timer_t retry;
    uint32_t open;                                                   /* handles */
    enum { GIVE_SOCKETS, GIVE_STREAMS, GIVE_RESTS, GIVE_DONE } step; /* giver */
    struct stream_place place;                                       /* what has not been sent begins here */
    int fd;
    void (*done)(void *arg, uint32_t lane);
    void *arg;
};

static void on_closed(uv_handle_t *handle)
{
    struct transfer *transfer = handle->data;
    struct relay *relay = transfer->relay;

    if (--transfer->open == 0)
        free(transfer);
    relay_let_go(relay);
}

static void transfer_close(struct transfer *transfer)
{
    struct transfer **link = &transfer->relay->transfers;

    while (*link != transfer)
        link = &(*link)->next;
    *link = transfer->next;
    uv_close((uv_handle_t *)&transfer->poll, on_closed);
    uv_close((uv_handle_t *)&transfer->retry, on_closed);
    close(transfer->fd);
}

void transfer_abort_all(struct relay *relay)
{
    while (relay->transfers != NULL)
        transfer_close(relay->transfers);
}

/* Takes the descriptor over, on failure as well. */
static int transfer_open(struct transfer **out, struct lane *lane, int fd, struct error *error)
{
    struct relay *relay = lane->relay;
    struct transfer *transfer = calloc(1, sizeof *transfer);
    int status = -ENOMEM;

    if (transfer != NULL)
        status = uv_poll_init(relay->loop, &transfer->poll, fd);
    if (status < 0) {
        free(transfer);
        close(fd);
        return error_set(error, status, "lane %u cannot change hands: %s", lane->number, strerror(-status));
    }
    uv_timer_init(relay->loop, &transfer->retry);
    transfer->poll.data = transfer->retry.data = transfer;
    transfer->relay = relay;
    transfer->lane = lane;
    transfer->fd = fd;
    transfer->open = 2;
    relay->handles += 2;
    transfer->next = relay->transfers;
    relay->transfers = transfer;
    *out = transfer;
    return 0;
}

/* The callback comes last: it may close the relay. */
static void transfer_done(struct transfer *transfer)
{
    struct relay *relay = transfer->relay;
    void (*done)(void *arg, uint32_t lane) = transfer->done;
    void *arg = transfer->arg;
    uint32_t number = transfer->lane->number;

    transfer_close(transfer);
    relay_catch_up(relay);
    relay_rest(relay);
    done(arg, number);
}

/* ---- giver ---- */

struct parcel { /* a message with what goes beside it */
    struct socket_message message;
    int descriptors[SOCKET_MESSAGE_ROWS];
    uint32_t count; /* of descriptors */
    const uint8_t *data;
    uint32_t size;
};

/* false: there is no socket more. */
static bool sockets_give(const struct lane *lane, struct stream_place *place, struct parcel *parcel)
{
    struct socket_message *message = &parcel->message;

    *message = (struct socket_message){.kind = SOCKET_MESSAGE_SOCKETS, .lane = lane->number};
    for (; place->row < lane->row_count && message->count < SOCKET_MESSAGE_ROWS; place->row++) {
        uint32_t row = place->row;
        int fd = lane->paths[row] != NULL ? lane->paths[row]->watched.fd : -1;
        if (fd < 0 && lane->incoming != NULL)
            fd = lane->incoming[row];
        if (fd < 0)
            continue;
        message->rows[message->count] = row;
        parcel->descriptors[message->count++] = fd;
    }
    parcel->count = message->count;
    return message->count > 0;
}

/* From the place on, which goes on behind it. */
static bool parcel_fill(const struct transfer *transfer, struct stream_place *place, struct parcel *parcel)
{
    const struct lane *lane = transfer->lane;

    switch (transfer->step) {
    case GIVE_SOCKETS:
        return sockets_give(lane, place, parcel);
    case GIVE_STREAMS:
        return streams_give(lane, place, &parcel->message, parcel->descriptors, &parcel->count);
    case GIVE_RESTS:
        return streams_give_rest(lane, place, &parcel->message, &parcel->data, &parcel->size);
    case GIVE_DONE:
        break;
    }
    parcel->count = 0;
    parcel->message = (struct socket_message){.kind = SOCKET_MESSAGE_DONE,
                                              .lane = lane->number,
                                              .count = 1,
                                              .rows = {lane->incoming == NULL || lane->looked_at}};
    return true;
}

static int parcel_send(int fd, struct parcel *parcel)
{
    if (parcel->message.kind == SOCKET_MESSAGE_REST)
        return socket_message_send_rest(fd, &parcel->message, parcel->data, parcel->size);
    return socket_message_send(fd, &parcel->message, parcel->descriptors, parcel->count);
}

static void on_retry(uv_timer_t *timer);

static void give_some(struct transfer *transfer)
{
    struct parcel parcel;
    int status;

    do {
        struct stream_place place = transfer->place;
        while (!parcel_fill(transfer, &place, &parcel)) {
            transfer->step++;
            place = transfer->place = (struct stream_place){0};
        }
        status = parcel_send(transfer->fd, &parcel);
        if (status == 0)
            transfer->place = place;
    } while (status == 0 && parcel.message.kind != SOCKET_MESSAGE_DONE);
    if (status == -EAGAIN || status == -ENOBUFS)
        return; /* the loop says when there is room */
    if (status == -ETOOMANYREFS) {
        uv_poll_stop(&transfer->poll);
        uv_timer_start(&transfer->retry, on_retry, HANDOVER_RETRY_MS, 0);
        return;
    }
    for (struct listener *listener = transfer->lane->listeners; listener != NULL; listener = listener->next)
        if (listener->watched.kind == WATCHED_LISTENER)
            listener_count_drops(listener,
                                 listener_drops(listener->watched.fd)); /* those behind the last datagram read */
    lane_let_go(transfer->lane);
    lane_forget(transfer->lane); /* the taker has it, or is gone and the rows have it */
    transfer_done(transfer);
}

static void on_room(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    give_some(poll->data);
}

static void on_retry(uv_timer_t *timer)
{
    struct transfer *transfer = timer->data;

    uv_poll_start(&transfer->poll, UV_WRITABLE, on_room);
}

/* The successor does not know of them, so nobody else would. */
static void read_retired(struct lane *lane)
{
    relay_wake(lane->relay);
    for (struct listener *listener = lane->listeners; listener != NULL; listener = listener->next)
        while (listener_retired(listener->watched.fd) &&
               (listener->watched.kind == WATCHED_ACCEPTOR ? stream_accept(listener) : udp_read(listener)))
            backlog_send_lane(lane);
    relay_rest(lane->relay);
}

int relay_give(struct relay *relay, uint32_t number, int peer, void (*given)(void *arg, uint32_t lane), void *arg,
               struct error *error)
{
    struct lane *lane = relay->lanes;
    struct transfer *transfer;
    int status;

    while (lane != NULL && lane->number != number)
        lane = lane->next;
    if (lane == NULL || lane->state != LANE_HELD) {
        close(peer);
        return error_set(error, -EINVAL, "lane %u is not held here, so it cannot be given", number);
    }
    status = transfer_open(&transfer, lane, peer, error);
    if (status < 0)
        return status;
    transfer->done = given;
    transfer->arg = arg;
    read_retired(lane);
    backlog_send_lane(lane);
    relay_look_away(lane);
    lane->state = LANE_GIVING;
    uv_poll_start(&transfer->poll, UV_WRITABLE, on_room);
    return 0;
}

/* ---- taker ---- */

static void descriptors_keep(struct lane *lane, const struct socket_message *message, const int *descriptors,
                             uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = message != NULL && i < message->count ? message->rows[i] : UINT32_MAX;
        if (row >= lane->row_count || lane->incoming[row] >= 0)
            close(descriptors[i]);
        else
            lane_keep_socket(lane, row, descriptors[i]);
    }
}

/* One message. 1: there may be more; 0: DONE; -EPIPE: the end; -EAGAIN. */
static int take_one(struct transfer *transfer)
{
    struct lane *lane = transfer->lane;
    struct socket_message message;
    int descriptors[SOCKET_MESSAGE_ROWS];
    uint32_t count, size = STREAM_CHUNK;
    uint8_t *data = transfer->relay->chunk;
    int status = socket_message_receive_rest(transfer->fd, &message, descriptors, &count, data, &size);
    bool valid = status == 0 && message.lane == lane->number;

    if (valid && message.kind == SOCKET_MESSAGE_STREAMS) {
        streams_come(lane, &message, descriptors, count);
        count = 0;
    } else if (valid && message.kind == SOCKET_MESSAGE_REST) {
        stream_rest_comes(lane, &message, data, size);
    }
    if (valid && message.kind == SOCKET_MESSAGE_DONE)
        lane->looked_at = message.count == 1 && message.rows[0] == 1;
    descriptors_keep(lane, valid ? &message : NULL, descriptors, count);
    if (status == -EPIPE || status == -EAGAIN)
        return status;
    return valid && message.kind == SOCKET_MESSAGE_DONE ? 0 : 1;
}

/* By the segment's word, which whoever has reaped it writes: until then it may hold the lane. */
static bool giver_lives(const struct transfer *transfer)
{
    const struct relay *relay = transfer->relay;
    uint32_t holder = atomic_load_explicit(&relay->segment->lanes[transfer->lane->number].holder, memory_order_acquire);

    return holder < SEGMENT_PROCESSES && holder != relay->self &&
           atomic_load_explicit(&relay->segment->processes[holder].role, memory_order_acquire) == PROCESS_WORKER;
}

static void take_over(struct transfer *transfer)
{
    struct lane *lane = transfer->lane;

    for (struct listener *listener = lane->listeners; listener != NULL; listener = listener->next)
        listener->drops = listener_drops(listener->watched.fd); /* the last holder has counted the others */
    lane_hold(lane);
    transfer_done(transfer);
}

static void on_giver_retry(uv_timer_t *timer)
{
    struct transfer *transfer = timer->data;
    bool took = false;
    int more;

    relay_wake(transfer->relay);
    if (giver_lives(transfer))
        return;
    uv_timer_stop(timer);
    while ((more = take_one(transfer)) > 0) /* it is our loop that may have been late */
        took = true;
    if (took && more == -EAGAIN) /* its keeper is slow, not lost */
        uv_timer_start(timer, on_giver_retry, KEEPER_LIMIT_MS, 0);
    else
        take_over(transfer);
}

static void on_message(uv_poll_t *poll, int status, int events)
{
    struct transfer *transfer = poll->data;
    int more = 1;

    (void)events;
    relay_wake(transfer->relay);
    while (more > 0)
        more = take_one(transfer);
    if (more == 0) {
        take_over(transfer);
    } else if (more == -EPIPE || status < 0) { /* below 0: the connection was reset, and the loop looks no more */
        uv_poll_stop(poll);
        uv_timer_start(&transfer->retry, on_giver_retry, 0, HANDOVER_RETRY_MS);
    }
}

static int take_from_nobody(struct lane *lane, void (*taken)(void *arg, uint32_t lane), void *arg)
{
    relay_wake(lane->relay);
    lane_hold(lane);
    relay_rest(lane->relay);
    taken(arg, lane->number);
    return 0;
}

int relay_take(struct relay *relay, uint32_t number, int peer, void (*taken)(void *arg, uint32_t lane), void *arg,
               struct error *error)
{
    struct lane *lane = number < relay->segment->lane_count ? lane_find(relay, number) : NULL;
    struct transfer *transfer;
    int status = 0;

    if (lane == NULL || lane->state != LANE_IDLE)
        status = error_set(error, -EINVAL, "lane %u cannot be taken: %s", number,
                           lane == NULL ? "there is no such lane, or no memory for it" : "it is here already");
    if (status == 0)
        status = lane_prepare(lane, error);
    if (status < 0) {
        if (peer >= 0)
            close(peer);
        return status;
    }
    if (peer < 0)
        return take_from_nobody(lane, taken, arg);
    status = transfer_open(&transfer, lane, peer, error);
    if (status < 0)
        return status;
    transfer->done = taken;
    transfer->arg = arg;
    lane->state = LANE_TAKING;
    uv_poll_start(&transfer->poll, UV_READABLE | UV_DISCONNECT, on_message);
    if (giver_lives(transfer))
        return 0;
    /* It may have given all, streams too, and gone before we came to look. */
    relay_wake(relay);
    while ((status = take_one(transfer)) > 0)
        ;
    if (status == 0)
        take_over(transfer);
    else if (status == -EPIPE)
        uv_timer_start(&transfer->retry, on_giver_retry, 0, HANDOVER_RETRY_MS);
    if (status != -EAGAIN)
        return 0;
    /* It is its keeper that sends them, and the rows need not wait for that. */
    uv_update_time(relay->loop);
    uv_timer_start(&transfer->retry, on_giver_retry, KEEPER_LIMIT_MS, 0);
    lane->frozen = true;
    relay_catch_up(relay);
    return 0;
}
