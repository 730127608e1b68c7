/* SPDX-License-Identifier: Apache-2.0 */
/* What a run showed, and the table of it. Every number comes from clients and responders. */
#ifndef CLI_DEMO_TABLE_H
#define CLI_DEMO_TABLE_H

#include "cli/demo/client.h"
#include "cli/demo/console.h"
#include "cli/demo/responders.h"

struct result {
    uint32_t connected, failed;
    uint32_t at_server[DEMO_SERVERS]; /* connected clients, by who answered their IKE_AUTH */
    uint32_t split;                   /* a client whose two ports reached two servers; 0: none */
    struct sighting seen;             /* of that one */
};

void table_count(struct result *result, const struct clients *clients, const struct responders *responders);
void table_head(struct console *console, char servers[DEMO_SERVERS][32]);
void table_row(struct console *console, const char *name, const char *label, const struct result *result,
               char servers[DEMO_SERVERS][32], const struct place *place);

#endif
