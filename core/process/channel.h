/* SPDX-License-Identifier: Apache-2.0 */
/* The line between the master and one of its processes: SOCK_SEQPACKET, one fixed-size message a packet, descriptors
 * beside it. A pair from birth on; a connection to the process's own socket when another master takes it over. Never
 * blocks: what the other end does not take yet waits in a queue here. */
#ifndef PROCESS_CHANNEL_H
#define PROCESS_CHANNEL_H

#include "base/error.h"
#include <stdint.h>
#include <uv.h>

#define MESSAGE_ITEMS 128u

enum message_kind {
    /* master -> child */
    MESSAGE_LISTENERS, /* count descriptors, listeners[i] and lanes[i] beside each */
    MESSAGE_TAKE,      /* lanes[0]; count 1 with a descriptor when somebody holds it, else 0 */
    MESSAGE_GIVE,      /* lanes[0]; count 1, a descriptor */
    MESSAGE_BEGIN,     /* monitor: you are the one now */
    MESSAGE_STOP,
    /* child -> master */
    MESSAGE_READY,
    MESSAGE_FAILED, /* text: why it cannot start */
    MESSAGE_TAKEN,  /* lanes[0] */
    MESSAGE_GIVEN,  /* lanes[0] */
    MESSAGE_RELOAD, /* a descriptor: the connection that wants to know how it went */
    /* child -> another master that has connected, in this order; READY is the end */
    MESSAGE_HELLO, /* listeners[0]: enum process_role, lanes[0]: its number */
    MESSAGE_HOLDS, /* lanes[i], listeners[i]: enum lane_state; no descriptors */
                   /* then MESSAGE_LISTENERS: count descriptors, lanes[i] beside each */
    /* master -> child. Here, because these numbers are the next version's as well */
    MESSAGE_NUMBER, /* lanes[0]: the place of a spare worker from here on */
    MESSAGE_KINDS
};

struct message {
    uint32_t kind, count;
    uint32_t listeners[MESSAGE_ITEMS], lanes[MESSAGE_ITEMS];
    char text[768];
};

struct channel;
struct channel_events {
    void *arg;
    /* descriptors: count of them, owned by the callee from now on. */
    void (*message)(void *arg, const struct message *message, int *descriptors, uint32_t count);
    void (*closed)(void *arg); /* the other end is gone; called once, the channel is still to be closed */
};

/* Takes fd over. */
int channel_open(struct channel **out, uv_loop_t *loop, int fd, const struct channel_events *events,
                 struct error *error);
/* The channel frees itself when the loop has let go of it. No event comes after this. NULL is fine. */
void channel_close(struct channel *channel);
/* Reads what has arrived and was not read yet: the last words of a process that has just been reaped. */
void channel_drain(struct channel *channel);
/* Waits for the next message of a connection that is no channel yet. 0: count descriptors are the caller's. -ETIMEDOUT;
 * -EPIPE: the other end is gone; -EAGAIN, -EBADMSG: there was none after all, or nonsense. */
int channel_receive(int fd, struct message *message, int descriptors[MESSAGE_ITEMS], uint32_t *count, int limit_ms);
/* Sends a copy, with duplicates of the descriptors. -ENOMEM, -EPIPE: the other end is gone. */
int channel_send(struct channel *channel, const struct message *message, const int *descriptors, uint32_t count);

/* Many items of one kind, MESSAGE_ITEMS a message. */
struct channel_series {
    struct channel *channel;
    struct message message;
    int descriptors[MESSAGE_ITEMS];
    uint32_t descriptor_count;
    int status; /* of the first send that failed: nothing more is sent */
};
void series_begin(struct channel_series *series, struct channel *channel, enum message_kind kind);
void series_add(struct channel_series *series, uint32_t listener, uint32_t lane, int descriptor); /* -1: none */
int series_end(struct channel_series *series);

#endif
