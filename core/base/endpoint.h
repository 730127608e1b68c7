/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and ports, in the shape that plugins see (struct hp_endpoint, FROZEN): IPv4 in the first four octets, the
 * rest zero. Everything in the core takes this shape; sockaddr lives only next to the system call. Any process. */
#ifndef BASE_ENDPOINT_H
#define BASE_ENDPOINT_H

#include <homeport/plugin.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define ENDPOINT_TEXT 64 /* enough for "[v6%scope]:port" and its NUL */

/* family outside 4 and 6: false, out untouched. */
bool endpoint_from_sockaddr(struct hp_endpoint *out, const struct sockaddr *address, socklen_t size);
/* Returns the size to pass to the system call. */
socklen_t endpoint_to_sockaddr(const struct hp_endpoint *endpoint, struct sockaddr_storage *out);
/* "192.0.2.1", "192.0.2.1:500", "[2001:db8::1]:500", "2001:db8::1", "fe80::1%eth0"; port 0 when the text has none.
 * A zone that is no interface of this machine: false. */
bool endpoint_parse(struct hp_endpoint *out, const char *text);
/* The same, but such a zone leaves scope 0. has_zone: whether the text has one. */
bool endpoint_parse_anywhere(struct hp_endpoint *out, bool *has_zone, const char *text);
/* Writes "ADDRESS:PORT", or "ADDRESS" when port is 0. Returns text (at least ENDPOINT_TEXT octets). */
const char *endpoint_format(const struct hp_endpoint *endpoint, char *text);
bool endpoint_equal(const struct hp_endpoint *a, const struct hp_endpoint *b);        /* address, port, scope */
bool endpoint_same_address(const struct hp_endpoint *a, const struct hp_endpoint *b); /* without the port */
/* As endpoint_same_address, but where one of the two has no zone, any zone is meant. */
bool endpoint_names(const struct hp_endpoint *name, const struct hp_endpoint *address);
bool endpoint_is_any(const struct hp_endpoint *endpoint);        /* 0.0.0.0 or :: */
bool endpoint_is_loopback(const struct hp_endpoint *endpoint);   /* 127.0.0.0/8 or ::1 */
bool endpoint_is_link_local(const struct hp_endpoint *endpoint); /* fe80::/10 */

/* 1: the address is on this machine, 0: it is not; -errno: that could not be found out. */
int endpoint_look_for(const struct hp_endpoint *address);

#endif
