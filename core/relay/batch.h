/* SPDX-License-Identifier: Apache-2.0 */
/* A vector to read datagrams into: 64 slots, each big enough for any datagram. Pages that no datagram reached cost
 * nothing. */
#ifndef RELAY_BATCH_H
#define RELAY_BATCH_H

#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define BATCH_SLOTS 64u
#define BATCH_SIZE 65536u                /* no UDP payload is longer */
#define BATCH_STRIDE (BATCH_SIZE + 192u) /* slots begin in different sets of the first-level cache */
#define BATCH_CONTROL 128u               /* IPV6_PKTINFO, SO_RXQ_OVFL and IPV6_TCLASS, and room to spare */

struct batch {
    uint8_t *area;
    uint32_t used; /* slots that hold datagrams: the next receive fills those behind */
    struct mmsghdr headers[BATCH_SLOTS];
    struct iovec iov[BATCH_SLOTS];
    struct sockaddr_storage names[BATCH_SLOTS];
    _Alignas(struct cmsghdr) uint8_t control[BATCH_SLOTS][BATCH_CONTROL];
};

int batch_open(struct batch *batch, struct error *error);
void batch_close(struct batch *batch);
/* Reads at most limit datagrams into the free slots without blocking; used grows by what came. Their number, or a
 * negative errno value. */
int batch_receive(struct batch *batch, int fd, uint32_t limit);
void batch_reset(struct batch *batch); /* all slots are free again */

/* true: the message says how the datagram was marked, with DSCP and ECN (IP_TOS, IPV6_TCLASS). */
bool batch_mark(const struct cmsghdr *message, uint8_t *mark);
/* Of a slot whose socket has nothing else to say. */
uint8_t batch_mark_of(struct batch *batch, uint32_t slot);
int batch_ask_marks(int fd, uint32_t family); /* a socket's datagrams say so from now on; 0 or a negative errno value */

static inline const uint8_t *batch_data(const struct batch *batch, uint32_t slot)
{
    return batch->area + (size_t)slot * BATCH_STRIDE;
}
static inline uint32_t batch_size(const struct batch *batch, uint32_t slot)
{
    return batch->headers[slot].msg_len;
}

#endif
