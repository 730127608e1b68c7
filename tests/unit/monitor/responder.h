/* SPDX-License-Identifier: Apache-2.0 */
/* A server's UDP port as the probes see it, on the test's own loop. */
#ifndef RESPONDER_H
#define RESPONDER_H

#include <homeport/plugin.h>
#include <stdbool.h>
#include <uv.h>

enum manner { MANNER_ANSWER, MANNER_SILENT, MANNER_GARBAGE, MANNER_WRONG_SPI, MANNER_STRANGER, MANNER_IKEV1 };

struct responder {
    uv_poll_t poll;
    int fd, stranger; /* stranger: a socket at another address that answers in our place */
    enum manner manner;
    uint32_t plain, marked;  /* datagrams that came */
    struct hp_endpoint peer; /* who sent the last one */
    bool closed;
};

/* port 0: a free one. Returns the port; 0: it may not be had (500 and 4500 without root). */
uint16_t responder_open(struct responder *responder, uv_loop_t *loop, uint8_t last, uint16_t port, enum manner manner);
void responder_close(struct responder *responder, uv_loop_t *loop);
/* A port of 127.0.0.LAST that nobody has: closed, so that ICMP says so. */
uint16_t responder_closed_port(uint8_t last);

#endif
