/* SPDX-License-Identifier: Apache-2.0 */
/* Captured traffic, datagram by datagram: what came over IPv4 or IPv6 to or from ports 500 and 4500, put together again
 * where IPv4 had it in fragments. */
#ifndef UNIT_CAPTURES_CAPTURE_H
#define UNIT_CAPTURES_CAPTURE_H

#include <homeport/plugin.h>
#include <stddef.h>
#include <stdint.h>

struct captured {
    struct hp_endpoint from, to;
    const uint8_t *data; /* valid during the call */
    size_t size;
};
typedef void capture_visit(void *arg, const struct captured *datagram);

/* Fails the running test when it cannot be read. Returns the number of datagrams. */
size_t capture_read(const char *path, capture_visit *visit, void *arg);

/* Calls it for every capture in the folder and the folders below; returns how many. */
size_t captures_find(const char *folder, void (*found)(void *arg, const char *path), void *arg);

#endif
