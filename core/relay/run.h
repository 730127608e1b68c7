/* SPDX-License-Identifier: Apache-2.0 */
/* Runs: datagrams that leave in one walk through the network stack (UDP_SEGMENT). A run is of one owner, one size and
 * one mark, only its last datagram may be shorter. Payload is never copied. */
#ifndef RELAY_RUN_H
#define RELAY_RUN_H

#include "relay/batch.h"
#include <homeport/plugin.h>
#include <stdbool.h>

#define RUN_BYTES 65507u /* in one call: the payload of the longest IPv4 datagram */
#define RUN_CONTROL 96u  /* UDP_SEGMENT, IPV6_PKTINFO and IPV6_TCLASS */

struct run {
    uint32_t first, count; /* of runs.iov */
    uint32_t segment, bytes;
    uint8_t mark;
    size_t control; /* octets of control messages without UDP_SEGMENT */
};

struct runs { /* what is sent next on one socket: at most BATCH_SLOTS datagrams */
    uint32_t count, datagrams;
    bool no_segments;  /* UDP_SEGMENT has failed with EIO: a device without checksum offload. For good. */
    const void *owner; /* of the newest run; only compared */
    struct run runs[BATCH_SLOTS];
    struct mmsghdr headers[BATCH_SLOTS];
    struct iovec iov[BATCH_SLOTS];
    _Alignas(struct cmsghdr) uint8_t control[BATCH_SLOTS][RUN_CONTROL];
};

struct run_datagram {
    const void *owner; /* datagrams of one owner in a row may become a run */
    const uint8_t *data;
    uint32_t size;
    uint8_t mark, family;  /* DSCP and ECN to leave with; 4 or 6, of the socket */
    struct sockaddr *name; /* NULL: the socket is connected. Must live until the runs are sent. */
    socklen_t name_size;
    const struct hp_endpoint *from; /* own address to send from; NULL: the socket's */
};

struct run_result { /* what became of them */
    uint64_t datagrams, bytes;
    uint64_t dropped, icmp_errors, resends, gso_runs;
    uint64_t dropped_mask; /* bit N: the datagram that was added as number N */
};
_Static_assert(BATCH_SLOTS <= 64, "a bit each");

void runs_add(struct runs *runs, const struct run_datagram *datagram);
/* Sends all and is empty again. An ICMP error of an earlier datagram makes the kernel refuse the next one without
 * sending it: it is sent once more. */
void runs_send(struct runs *runs, int fd, struct run_result *result);

#endif
