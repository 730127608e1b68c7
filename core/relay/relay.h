/* SPDX-License-Identifier: Apache-2.0 */
/* The data path of one worker: lanes, listeners, cells, sessions. Worker only, on its loop thread.
 *
 * A lane is held by one relay at a time. relay_take makes this one its holder: from a living holder over a
 * SOCK_SEQPACKET pair (sockets by SCM_RIGHTS, row indices beside, then DONE), or from nobody (crash, restart): then
 * listeners first, a cell when its client's next datagram comes, the rest swept some a loop turn, most recently used
 * first. Nothing is closed in a planned hand-over. */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include "base/log.h"
#include "plugin/decide.h"
#include "pool/topology.h"
#include "relay/keeper.h"
#include <uv.h>

struct relay;

/* Borrows everything; keeper may be NULL. listener numbers: position in the flat list of all services' listen
 * addresses, in the order of config.services and each one's listen. */
int relay_open(struct relay **out, uv_loop_t *loop, const struct config *config, struct topology *topology,
               struct decider *decider, struct segment *segment, struct keeper *keeper, uint32_t self, struct log *log,
               struct error *error);
/* Closes descriptors, ends no session. Calls done when the loop has let go of all handles. */
void relay_close(struct relay *relay, void (*done)(void *arg), void *arg);

/* Before relay_take of its lane: the lane's socket of a listener. Owned by the relay from then on. Not read until the
 * lane is taken. */
int relay_add_listener(struct relay *relay, uint32_t listener, uint32_t lane, int fd, struct error *error);

/* For one of so many workers, before lanes come: makes room for them in the process's heap, in huge pages. */
void relay_reserve(const struct relay *relay, uint32_t workers);
/* For a worker that waits for others to die: touches what a hand-over of its share of the present
 * sessions will need, so that it does not wait for page faults then. */
void relay_warm(struct relay *relay, uint32_t workers);

/* Becomes the lane's holder. peer: our end of the pair with the present holder, or -1 when nobody holds it. taken is
 * called when the lane is served (at once or after DONE or the holder's end). */
int relay_take(struct relay *relay, uint32_t lane, int peer, void (*taken)(void *arg, uint32_t lane), void *arg,
               struct error *error);
/* Relays what is left in retired listeners and in backlogs, stops reading the lane, sends its sockets over peer, then
 * DONE; never touches the lane again. given is called when all is sent (or the successor is gone: its end then finds
 * the rows in the segment). */
int relay_give(struct relay *relay, uint32_t lane, int peer, void (*given)(void *arg, uint32_t lane), void *arg,
               struct error *error);

/* For another master, which knows nothing yet: each lane that is taken, held or being given, then each of those lanes'
 * listening sockets. The relay keeps them. */
enum lane_state { LANE_IDLE, LANE_TAKING, LANE_HELD, LANE_GIVING };
struct relay_view { /* a function that is NULL is not called */
    void *arg;
    void (*lane)(void *arg, uint32_t lane, enum lane_state state);
    void (*listener)(void *arg, uint32_t lane, int fd);
};
void relay_describe(const struct relay *relay, const struct relay_view *view);
bool relay_holds_lanes(const struct relay *relay); /* or is taking or giving any */

#define LISTENER_BUFFER (4u << 20) /* octets; the default of 208 KiB holds no more than 256 small datagrams */

/* Opens a listener's socket for one lane, bound: SO_REUSEPORT, IP_FREEBIND, LISTENER_BUFFER (SO_RCVBUFFORCE, then
 * SO_RCVBUF), SO_RXQ_OVFL, IP_RECVTOS, IP_PKTINFO for a wildcard, IP_PMTUDISC_DONT (those
 * of IPv6, and IPV6_V6ONLY), non-blocking, close-on-exec. Used by the
 * master. deaf: it drops what comes until listener_hear(), so that no flow goes to another lane than its own while the
 * others are not bound yet. Errors: -EADDRINUSE (says how to find out who), -EACCES (ports below 1024 without the
 * capability), others. TCP: the same without buffers; it does not listen until listener_hear(). A wildcard of a
 * configuration that is transparent also wants listener_share(), which this does for it (shares). */
int listener_socket(int *out, const struct hp_endpoint *address, uint32_t protocol, bool deaf, bool shares,
                    struct error *error);
void listener_hear(int fd);
/* A wildcard's port is also that of clients, as which sockets towards servers are to be bound: SO_REUSEADDR. Not
 * without need: any program that sets the same can then bind the port as well. */
int listener_share(int fd); /* negative errno values */
/* From here on what is sent to this address goes to whoever else listens there (a wildcard); what is in the queue stays
 * in it, for relay_give() to relay. */
void listener_retire(int fd, const struct hp_endpoint *address);
bool listener_retired(int fd);
/* Octets of receive buffer that the kernel gave it. 0: not known. */
uint32_t listener_buffer(int fd);

#endif
