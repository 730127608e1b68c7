/* SPDX-License-Identifier: Apache-2.0 */
/* Many datagrams at once, from and to any address of this machine. */
#ifndef PROVE_POST_H
#define PROVE_POST_H

#include "wire.h"

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#define POST_VECTOR 64u
/* Between two looks: who is woken for each datagram takes the processors from what is measured. */
#define POST_TURN_NS 1000000

struct post_slot {
    struct sockaddr_in peer;
    uint32_t own;     /* the address here, host order */
    uint64_t time_ns; /* when the kernel got it, realtime; of received ones */
    uint32_t size;
    uint8_t data[WIRE_SIZE];
};

struct post {
    int fd;
    uint32_t drops; /* that the kernel has counted at this socket */
    uint32_t count; /* slots that are in use */
    struct post_slot slots[POST_VECTOR];
    struct mmsghdr messages[POST_VECTOR];
    struct iovec vectors[POST_VECTOR];
    _Alignas(8) uint8_t control[POST_VECTOR][128];
};

/* address: host order, INADDR_ANY: of all. Ends the program when it cannot. */
struct post *post_open(uint32_t address, uint16_t port);
/* Fills the slots with what has come, without waiting. Returns how many came; *dropped: datagrams that did not fit into
 * the socket's queue, since the last call that returned some. */
uint32_t post_receive(struct post *self, uint32_t *dropped);
/* Sends the slots in use and empties them. Returns how many the kernel took. */
uint32_t post_send(struct post *self);

uint64_t clock_ns(void); /* monotonic */

#endif
