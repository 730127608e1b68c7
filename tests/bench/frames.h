/* SPDX-License-Identifier: Apache-2.0 */
/* UDP datagrams as Ethernet frames, straight onto a device and straight off it, past the IP stack of this end: load
 * generator and sink share the processors with what they measure, so each datagram has to cost them little.
 *
 * One packet socket: frames come in through a ring that the kernel fills, and go out in vectors past the queueing
 * discipline. UDP checksums are zero, as those of ESP in UDP are (RFC 3948 section 2.1). The other end of the wire
 * knows one hardware address for everything here, which is not that of the device: the IP stack drops what we take. */
#ifndef BENCH_FRAMES_H
#define BENCH_FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define FRAMES_VECTOR 64u
#define FRAMES_OCTETS 2048u

struct datagram { /* addresses and ports in host order */
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint32_t size;         /* of its payload */
    uint8_t *data, *frame; /* of what was received: its payload, and all of it */
    uint32_t frame_size;
    uint64_t time_ns; /* CLOCK_REALTIME at which the kernel had it; 0: to be sent */
};

struct frames;

/* hardware: the other end's address. Ends the program when it cannot. */
struct frames *frames_open(const char *device, const uint8_t hardware[6]);
void frames_close(struct frames *frames);
/* The next datagram that has come; it stays where it is until frames_send. False: none now, or the vector is full. */
bool frames_receive(struct frames *frames, struct datagram *datagram);
/* Until something comes, at most so many seconds. */
void frames_wait(struct frames *frames, double within);
/* Appends a datagram of size octets; full: sends first. Returns its payload, to be written before anything else is
 * called; what is not written is whatever was there, at first no zeros. */
uint8_t *frames_add(struct frames *frames, const struct datagram *datagram);
/* Appends what was received, turned round; its payload may have been changed. */
void frames_return(struct frames *frames, const struct datagram *datagram);
/* Sends what was appended, and gives what was received back to the kernel. What does not go out is lost, as on a wire.
 */
void frames_send(struct frames *frames);

#endif
