/* SPDX-License-Identifier: Apache-2.0 */
/* Which server is up on which port: one probe per (server, protocol, port), however many services use it, and the rule
 * that turns results into the segment's down bits. Monitor only; nothing blocks. */
#ifndef MONITOR_HEALTH_HEALTH_H
#define MONITOR_HEALTH_HEALTH_H

#include "monitor/context.h"

struct health;

int health_open(struct health **out, const struct monitor_context *context, struct error *error);
void health_start(struct health *health);
/* done is called when the loop has let go of it; NULL is fine (done is called at once). */
void health_close(struct health *health, void (*done)(void *arg), void *arg);
/* Is the probe (its index in the server's slot) one that this configuration asks for? */
bool health_probes(const struct health *health, uint32_t server, uint32_t probe);
/* What follows for new clients when no enabled server of the pool is up. */
const char *health_all_down_text(const struct config_pool *pool);

#endif
