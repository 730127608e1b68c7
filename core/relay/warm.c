/* SPDX-License-Identifier: Apache-2.0 */
/* What a process touches first costs it a page fault each, and behind a death thousands of them stand between a client
 * and its server: a spare worker has them behind it. The heap keeps what is freed here, so that the lanes to come are
 * made of it. Nothing fails: what could not be touched is touched later. */
#include "relay/private.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK 16u      /* of the heap's own, for each allocation */
#define DATAGRAM 2048u /* most are not longer */
#define PIECE (1u << 20)
#define SLACK (1u << 20)          /* beyond what lanes need */
#define HEAP_ALL (INT32_MAX / 64) /* any table of a lane comes from the heap, as none is mapped for itself */

/* Reading them is enough: a page of a shared file is then there for writing as well. */
static uint32_t count_live(const struct segment *segment)
{
    uint32_t live = 0;

    for (uint32_t lane = 0; lane < segment->lane_count; lane++) {
        const struct session_row *rows = session_partition(segment, lane);

        for (uint32_t i = 0; i < segment->rows_per_lane; i++)
            live += session_is_live(&rows[i]);
    }
    return live;
}

/* In pieces: what is larger than HEAP_ALL would be mapped for itself, and go with free(). */
static void heap_grow(size_t size)
{
    void *last = NULL;

    for (size_t got = 0; got < size; got += PIECE) {
        void **piece = malloc(PIECE);

        if (piece == NULL)
            break;
        memset(piece, 0, PIECE);
        *piece = last;
        last = piece;
    }
    while (last != NULL) {
        void *next = *(void **)last;
        free(last);
        last = next;
    }
}

static void populate(const void *from, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)from & ~(page - 1);

    (void)madvise((void *)first, (uintptr_t)from + size - first, MADV_POPULATE_WRITE); /* Linux 5.14 */
}

static void batch_warm(const struct batch *batch)
{
    for (uint32_t slot = 0; slot < BATCH_SLOTS; slot++)
        populate(batch_data(batch, slot), DATAGRAM);
}

void relay_warm(struct relay *relay, uint32_t workers)
{
    const struct segment *segment = relay->segment;
    size_t lanes = (segment->lane_count + workers - 1) / workers, live = count_live(segment) / workers + 1;
    /* lane_prepare, and the lists of rows in lane_hold */
    size_t row = sizeof(struct path *) + 2 * sizeof(uint32_t) + sizeof(int) + 4 * sizeof(struct flow_place) +
                 2 * sizeof(struct session_row *);
    size_t size = live * (sizeof(struct path) + CHUNK) + lanes * segment->rows_per_lane * row + SLACK;

    (void)mallopt(M_MMAP_THRESHOLD, HEAP_ALL);
    (void)mallopt(M_TRIM_THRESHOLD, (int)(size < INT32_MAX - SLACK ? size + SLACK : INT32_MAX));
    heap_grow(size);
    populate(relay, sizeof *relay);
    batch_warm(&relay->arrivals);
    batch_warm(&relay->replies);
    keeper_warm(relay->keeper);
}
