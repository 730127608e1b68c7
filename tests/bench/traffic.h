/* SPDX-License-Identifier: Apache-2.0 */
/* What the roles of homeport-load share: their clock, memory, and what a flow says and hears. */
#ifndef BENCH_TRAFFIC_H
#define BENCH_TRAFFIC_H

#include "frames.h"
#include "roles.h"

#include <stddef.h>

double traffic_now(void);                        /* seconds, monotonic */
void *traffic_zeroed(size_t count, size_t size); /* ends the program when there is no memory */
/* Appends a datagram of a flow to what is sent next; its payload, to be changed before the next one. */
uint8_t *traffic_say(struct frames *frames, const struct role_options *options, uint32_t flow, enum message_step step);
/* The next response; false: none now. */
bool traffic_hear(struct frames *frames, const struct role_options *options, struct datagram *datagram, uint32_t *flow,
                  enum message_step *step);

#endif
