/* SPDX-License-Identifier: Apache-2.0 */
/* Loads, recounted from the tables every second: no shared counter that a killed process leaves wrong. And the sweep of
 * records that nobody needs any more. Monitor only; no call blocks; a round is cut into slices of a loop turn each. */
#ifndef MONITOR_RECOUNT_H
#define MONITOR_RECOUNT_H

#include "monitor/context.h"

struct recount;

int recount_open(struct recount **out, const struct monitor_context *context, struct error *error);
void recount_start(struct recount *recount);
/* done is called when the loop has let go of it; NULL is fine (done is called at once). */
void recount_close(struct recount *recount, void (*done)(void *arg), void *arg);

struct recount_totals { /* of the last whole round; zeros before the first */
    uint32_t records, sessions;
};
const struct recount_totals *recount_totals(const struct recount *recount);
/* Live sessions that watched the record in the last whole round. */
uint32_t recount_watchers(const struct recount *recount, uint32_t record);

/* One client's records, looked for in a whole round that begins after the call. The caller owns it and may not touch it
 * before done is called, but for recount_forget. */
struct recount_search {
    struct hp_endpoint client; /* records made by this address */
    bool remove;               /* delete those that no live session watches */
    void (*done)(struct recount_search *search);
    void *arg;
    uint32_t found, removed; /* the answer; found counts the removed too */
    struct recount_search *next;
    bool running;
};
void recount_search(struct recount *recount, struct recount_search *search);
void recount_forget(struct recount *recount, struct recount_search *search); /* not in search: fine */

#endif
