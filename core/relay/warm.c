/* SPDX-License-Identifier: Apache-2.0 */
/* What a process touches first costs it a page fault each, and in a hand-over thousands of them stand between a client
 * and its server. So a worker's heap lies in huge pages where the kernel has them to give, a fault for 2 MiB. A spare
 * worker has its faults behind it before anybody dies. The heap keeps what is freed, so that the lanes to come are made
 * of it. Nothing fails: without huge pages it is small ones, and what could not be touched is touched later. */
#include "relay/private.h"

#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK 16u        /* of the heap's own, for each allocation */
#define DATAGRAM 2048u   /* most are not longer */
#define SLACK (1u << 20) /* beyond what lanes need */
#define NOTE_PAGE 4096u
#define HUGE_PAGE (2u << 20)

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

static void populate(uintptr_t from, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = from & ~(page - 1);

    (void)madvise((void *)first, from + size - first, MADV_POPULATE_WRITE); /* Linux 5.14 */
}

static void heap_warm(size_t size)
{
    void *all = malloc(size);

    if (all != NULL)
        populate((uintptr_t)all, size);
    free(all);
}

static void batch_warm(const struct batch *batch)
{
    for (uint32_t slot = 0; slot < BATCH_SLOTS; slot++)
        populate((uintptr_t)batch_data(batch, slot), DATAGRAM);
}

/* Of its share of the lanes: lane_prepare, the lists of rows in lane_hold, and so many paths. */
static size_t heap_size(const struct segment *segment, uint32_t workers, size_t paths)
{
    size_t lanes = (segment->lane_count + workers - 1) / workers;
    size_t row = sizeof(struct path *) + 2 * sizeof(uint32_t) + sizeof(int) + 4 * sizeof(struct flow_place) +
                 2 * sizeof(struct session_row *);

    return paths * (sizeof(struct path) + CHUNK) + lanes * segment->rows_per_lane * row + SLACK;
}

void relay_reserve(const struct relay *relay, uint32_t workers)
{
    const struct segment *segment = relay->segment;
    size_t rows = (size_t)segment->rows_per_lane * segment->lane_count / workers;
    size_t size = heap_size(segment, workers, rows) + HUGE_PAGE;
    uintptr_t mask = HUGE_PAGE - 1, from, to;

    (void)mallopt(M_MMAP_MAX, 0); /* any table of a lane comes from the heap, as none is mapped for itself */
    (void)mallopt(M_TRIM_THRESHOLD, INT32_MAX);
    /* The heap goes on behind a gap, where a huge page begins: else it is chance how many it takes. Malloc's note of
     * the first piece gets a small page before it: a huge page that has been touched when madvise comes stays small
     * ones. */
    if (sbrk((intptr_t)((-(uintptr_t)sbrk(0) - NOTE_PAGE) & mask)) == (void *)-1)
        return;
    from = (uintptr_t)sbrk(0) + NOTE_PAGE;
    void *volatile all = malloc(size); /* else the compiler would leave it out */
    free(all);
    to = (uintptr_t)sbrk(0) & ~mask;
    if (to > from)
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
}

void relay_warm(struct relay *relay, uint32_t workers)
{
    heap_warm(heap_size(relay->segment, workers, count_live(relay->segment) / workers + 1));
    populate((uintptr_t)relay, sizeof *relay);
    batch_warm(&relay->arrivals);
    batch_warm(&relay->replies);
    keeper_warm(relay->keeper);
}
