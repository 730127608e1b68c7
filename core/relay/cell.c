/* SPDX-License-Identifier: Apache-2.0 */
/* Cells: which source ports towards a server are free. A lane's ports are those of the configured range that are equal
 * to its number modulo the number of lanes, so that no two lanes ever meet.
 *
 * Free ports form a queue, longest free first: what a server still sends to an ended session does not reach a
 * stranger soon. The queue is private, and is made again from the lane's rows: ports of live rows are not in it, ports
 * of ended ones come last, in the order of their last use.
 * Queues belong to addresses, not to server slots: a server that was renamed still hears from its old sessions. And to
 * sources: the same port serves once for each of them. The route may choose an address that is in a list as well, so
 * where sessions of both kinds live a port is looked up among the rows: two sockets with the same ends would hear each
 * other's replies. */
#include "base/endpoint.h"
#include "relay/private.h"
#include "segment/source.h"

#include <stdlib.h>

#define PORT_TAKEN UINT64_MAX

struct port_use {
    uint64_t last_ms; /* 0: never used; PORT_TAKEN: by a live row */
    uint16_t port;
};

static int port_use_compare(const void *left, const void *right)
{
    const struct port_use *a = left, *b = right;

    if (a->last_ms != b->last_ms)
        return a->last_ms < b->last_ms ? -1 : 1;
    return a->port < b->port ? -1 : 1;
}

static uint32_t port_first(const struct lane *lane)
{
    uint32_t lanes = lane->relay->segment->lane_count, from = lane->relay->config->port_first;

    return from + (lane->number + lanes - from % lanes) % lanes;
}

static uint32_t port_count(const struct lane *lane)
{
    uint32_t first = port_first(lane), last = lane->relay->config->port_last;

    return first > last ? 0 : (last - first) / lane->relay->segment->lane_count + 1;
}

/* Position of the port among the lane's; false: not one of them (another range was configured once). */
static bool port_position(const struct lane *lane, uint16_t port, uint32_t *position)
{
    uint32_t lanes = lane->relay->segment->lane_count, first = port_first(lane);

    if (port < first || port > lane->relay->config->port_last || (port - first) % lanes != 0)
        return false;
    *position = (port - first) / lanes;
    return true;
}

static void uses_read(const struct lane *lane, const struct hp_endpoint *server, uint32_t source, struct port_use *uses)
{
    const struct server_slot *servers = lane->relay->segment->servers;

    for (uint32_t i = 0; i < lane->row_count; i++) {
        const struct session_row *row = &lane->rows[i];
        uint64_t last_ms = session_is_live(row) ? PORT_TAKEN : row_last_ms(row);
        const struct hp_endpoint *used = &servers[row->server % SEGMENT_SERVERS].address;
        uint32_t position;
        if ((lane->paths[i] != NULL && lane->paths[i]->stream != NULL) || row_transparent(row))
            continue; /* TCP has ports of its own, and clients have theirs */
        if (lane->paths[i] != NULL)
            used = &lane->paths[i]->server;
        if (row->source != source || !endpoint_same_address(used, server) ||
            !port_position(lane, row->source_port, &position))
            continue;
        if (last_ms > uses[position].last_ms)
            uses[position].last_ms = last_ms;
    }
}

static struct cells *cells_make(struct lane *lane, const struct hp_endpoint *server, uint32_t source)
{
    uint32_t count = port_count(lane), lanes = lane->relay->segment->lane_count, first = port_first(lane);
    struct cells *cells = malloc(sizeof *cells + count * sizeof cells->ports[0]);
    struct port_use *uses = calloc(count + 1, sizeof *uses);

    if (cells == NULL || uses == NULL) {
        free(cells);
        free(uses);
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++)
        uses[i].port = (uint16_t)(first + i * lanes);
    uses_read(lane, server, source, uses);
    qsort(uses, count, sizeof *uses, port_use_compare);
    *cells = (struct cells){.next = lane->cells, .server = *server, .source = source, .capacity = count};
    while (cells->count < count && uses[cells->count].last_ms != PORT_TAKEN) {
        cells->ports[cells->count] = uses[cells->count].port;
        cells->count++;
    }
    lane->cells = cells;
    free(uses);
    return cells;
}

static struct cells *cells_find(const struct lane *lane, const struct hp_endpoint *server, uint32_t source)
{
    struct cells *cells = lane->cells;

    while (cells != NULL && (cells->source != source || !endpoint_same_address(&cells->server, server)))
        cells = cells->next;
    return cells;
}

void cell_note_source(struct lane *lane, const struct session_row *row)
{
    lane->from_route = lane->from_route || row->source == SOURCE_ROUTE;
    lane->from_address = lane->from_address || row->source != SOURCE_ROUTE;
}

/* A live session of the other kind has the port: the route may have chosen the very address. */
static bool is_shadowed(const struct lane *lane, const struct hp_endpoint *server, uint32_t source, uint16_t port)
{
    if (source == SOURCE_ROUTE ? !lane->from_address : !lane->from_route)
        return false;
    for (uint32_t i = 0; i < lane->row_count; i++) {
        const struct path *path = lane->paths[i];
        if (path != NULL && path->stream == NULL && !row_transparent(path->row) && path->row->source_port == port &&
            (path->row->source == SOURCE_ROUTE) != (source == SOURCE_ROUTE) &&
            endpoint_same_address(&path->server, server))
            return true;
    }
    return false;
}

bool cell_take(struct lane *lane, const struct hp_endpoint *server, uint32_t source, uint16_t *port)
{
    struct cells *cells = cells_find(lane, server, source);

    if (cells == NULL)
        cells = cells_make(lane, server, source);
    for (uint32_t tries = cells != NULL ? cells->count : 0; tries > 0; tries--) {
        *port = cells->ports[cells->first];
        cells->first = (cells->first + 1) % cells->capacity;
        cells->count--;
        if (!is_shadowed(lane, server, source, *port))
            return true;
        cell_give(lane, server, source, *port);
    }
    return false;
}

void cell_give(struct lane *lane, const struct hp_endpoint *server, uint32_t source, uint16_t port)
{
    struct cells *cells = cells_find(lane, server, source);
    uint32_t position;

    if (cells == NULL || cells->count == cells->capacity || !port_position(lane, port, &position))
        return; /* no queue yet: it will be made from the rows, this one's included */
    cells->ports[(cells->first + cells->count) % cells->capacity] = port;
    cells->count++;
}

void cell_give_back(struct lane *lane, const struct hp_endpoint *server, uint32_t source, uint16_t port)
{
    struct cells *cells = cells_find(lane, server, source);

    if (cells == NULL || cells->count == cells->capacity)
        return;
    cells->first = (cells->first + cells->capacity - 1) % cells->capacity;
    cells->ports[cells->first] = port;
    cells->count++;
}

void cell_free_all(struct lane *lane)
{
    while (lane->cells != NULL) {
        struct cells *next = lane->cells->next;
        free(lane->cells);
        lane->cells = next;
    }
}
