/* SPDX-License-Identifier: Apache-2.0 */
/* How sockets of a lane travel between processes: SOCK_SEQPACKET, row numbers in the message, descriptors beside it. */
#ifndef RELAY_SOCKET_MESSAGE_H
#define RELAY_SOCKET_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#define SOCKET_MESSAGE_ROWS 250u /* the kernel takes 253 descriptors a message */

enum socket_message_kind {
    SOCKET_MESSAGE_SOCKETS, /* rows[i] beside each descriptor */
    /* that were all; rows[0] 1: the giver has opened each, or seen that it is what its row says. Workers trust each
     * other in that, as they do in the rows. */
    SOCKET_MESSAGE_DONE,
    SOCKET_MESSAGE_ASK,     /* to a keeper: send those of this lane to the descriptor beside this */
    SOCKET_MESSAGE_STREAMS, /* stream_give.c: TCP, two descriptors each */
    SOCKET_MESSAGE_REST,    /* and octets behind the message */
};
struct socket_message {
    uint32_t magic, kind, count, lane;
    uint32_t rows[SOCKET_MESSAGE_ROWS];
};

/* descriptors: count of them, which stay the caller's. Does not wait. Negative errno values; -EAGAIN, -ENOBUFS: no
 * room; -ETOOMANYREFS: too many descriptors are on their way. */
int socket_message_send(int fd, struct socket_message *message, const int *descriptors, uint32_t count);
/* Whatever is returned, arrived descriptors are the caller's. -EBADMSG: nonsense; -EPIPE: the end; -EAGAIN: nothing
 * here (not when wait is asked for). */
int socket_message_receive(int fd, struct socket_message *message, int descriptors[SOCKET_MESSAGE_ROWS],
                           uint32_t *count, bool wait);

/* The same with octets behind the message: of kind SOCKET_MESSAGE_REST. */
int socket_message_send_rest(int fd, struct socket_message *message, const uint8_t *data, uint32_t size);
/* Any kind; size: room for octets, then how many have come. Does not wait. */
int socket_message_receive_rest(int fd, struct socket_message *message, int descriptors[SOCKET_MESSAGE_ROWS],
                                uint32_t *count, uint8_t *data, uint32_t *size);

#endif
