/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/table.h"

#include <stdio.h>
#include <string.h>

void table_count(struct result *result, const struct clients *clients, const struct responders *responders)
{
    struct clients_count count = clients_count(clients);

    *result = (struct result){.connected = count.connected, .failed = count.failed};
    for (uint32_t i = 1; i <= DEMO_CLIENTS; i++) {
        const struct sighting *seen = responders_seen(responders, i);
        if (clients_connected(clients, i)) {
            if (seen->home >= 0)
                result->at_server[seen->home]++;
        } else if (result->split == 0 && seen->sa_init >= 0 && seen->stranger >= 0) {
            result->split = i;
            result->seen = *seen;
        }
    }
}

/* A server's column is as wide as its name, and at least a number with its gap. */
static int width_of(const char *server)
{
    int size = (int)strlen(server);

    return size < 4 ? 4 : size;
}

void table_head(struct console *console, char servers[DEMO_SERVERS][32])
{
    char names[DEMO_SERVERS * 40] = "";

    for (size_t i = 0, at = 0; i < DEMO_SERVERS; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, " %*s", width_of(servers[i]), servers[i]);
    console_line(console, "  %-23s %10s   %9s   clients at%s", "persistence", "connected", "error 809", names);
}

void table_row(struct console *console, const char *name, const char *label, const struct result *result,
               char servers[DEMO_SERVERS][32], const struct place *place)
{
    char counts[DEMO_SERVERS * 40] = "";
    char address[INET_ADDRSTRLEN];
    struct sockaddr_in client = place_client(result->split, 0);

    for (size_t i = 0, at = 0; i < DEMO_SERVERS; i++)
        at += (size_t)snprintf(counts + at, sizeof counts - at, " %*u", width_of(servers[i]), result->at_server[i]);
    console_line(console, "  %-23s %10u   %9u             %s   %s", name, result->connected, result->failed, counts,
                 label);
    if (result->split != 0)
        console_line(console, "    e.g. %s: port %u -> %s, port %u -> %s; IKE_AUTH never answered",
                     place_text(&client, address), place->ike, servers[result->seen.sa_init], place->nat_t,
                     servers[result->seen.stranger]);
}
