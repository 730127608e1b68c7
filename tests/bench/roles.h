/* SPDX-License-Identifier: Apache-2.0 */
/* What homeport-load can be. Each role is bounded in time, prints one line of JSON (but for the sink) and returns the
 * exit status. */
#ifndef BENCH_ROLES_H
#define BENCH_ROLES_H

#include "message.h"

#include <stdint.h>

struct role_options {
    const char *device;
    uint8_t hardware[6];          /* of the other end of the wire */
    uint32_t to;                  /* host order */
    uint32_t from;                /* flow N comes from this address + N, host order */
    uint16_t port;                /* everybody's */
    uint32_t flows, window, size; /* window: requests in flight, of a flow (drive) or in all (newflows, hold) */
    double seconds, warmup, keepalive;
    double rate;              /* datagrams a second; 0: as many as the window lets */
    enum message_step begin;  /* what a flow says first; it goes on when that is answered */
    volatile uint64_t *count; /* in a file that both ends map: datagrams at the sink; of them, those one way */
};

/* Answers every datagram for the port, whatever address it was for, and counts. */
int role_sink(const struct role_options *options);
/* Each flow sends its window of ESP, and the next window when all responses are there: responses a second, and what the
 * sink got meanwhile; and all responses, those of the warm-up too. */
int role_drive(const struct role_options *options);
/* The flows ask one datagram each in turns, window of them on their way in all: answers a second. With a rate: how long
 * they took. */
int role_ask(const struct role_options *options);
/* The same one way: nobody answers, and the window counts what the sink has not seen yet. */
int role_bulk(const struct role_options *options);
/* What a run of datagrams costs its sender: in one call each, and in one with UDP_SEGMENT, by its length. */
int role_runs(const struct role_options *options);
/* Opens flows, each with all that it says up to its first ESP: answered flows a second. */
int role_newflows(const struct role_options *options);
/* Opens flows, says so, and keeps them alive, one after the other. */
int role_hold(const struct role_options *options);

/* TCP, on the IP stack of their end. A connection's first octet says what it wants of the server. */
int role_serve(const struct role_options *options);
/* As many streams as there are flows: octets a second that came, at the server (push) or here (pull). */
int role_push(const struct role_options *options);
int role_pull(const struct role_options *options);
/* Connections a second, window of them at a time: each asks once, is answered, and ends in peace. */
int role_connect(const struct role_options *options);

#endif
