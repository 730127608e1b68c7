/* SPDX-License-Identifier: Apache-2.0 */
/* Each word is written by one kind of process, or by one CAS: see layout.h. `counted` holds the result of a recount
 * together with `added` as it was when the recount began: so a client that came while the tables were walked counts
 * twice for a second rather than not at all. */
#include "segment/source.h"

#include "base/clock.h"
#include "base/endpoint.h"
#include <string.h>

#define UNTIL_SHIFT 16u
#define HISTORY 0xffffull
_Static_assert(SOURCE_LAST == UNTIL_SHIFT, "a bit for each IKE_SA_INIT");

uint32_t source_find(const struct segment *segment, const struct hp_endpoint *address)
{
    for (uint32_t i = 1; i < SEGMENT_SOURCES; i++)
        if (segment->sources[i].address.family != 0 && endpoint_same_address(&segment->sources[i].address, address))
            return i;
    return SOURCE_ROUTE;
}

static bool is_kept(const struct source_slot *slot, const struct hp_endpoint *kept, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (endpoint_same_address(&slot->address, &kept[i]))
            return true;
    return false;
}

static uint32_t free_slot(const struct segment *segment, const struct hp_endpoint *kept, size_t count)
{
    for (uint32_t i = 1; i < SEGMENT_SOURCES; i++)
        if (segment->sources[i].address.family == 0)
            return i;
    for (uint32_t i = 1; i < SEGMENT_SOURCES; i++)
        if (atomic_load_explicit(&segment->sources[i].used, memory_order_relaxed) == 0 &&
            !is_kept(&segment->sources[i], kept, count))
            return i;
    return SEGMENT_NO_INDEX;
}

uint32_t source_assign(struct segment *segment, const struct hp_endpoint *address, const struct hp_endpoint *kept,
                       size_t count)
{
    uint32_t source = source_find(segment, address);

    if (source != SOURCE_ROUTE)
        return source;
    source = free_slot(segment, kept, count);
    if (source == SEGMENT_NO_INDEX)
        return source;
    for (uint32_t i = 0; i < SEGMENT_SERVERS; i++)
        memset((void *)source_load(segment, i, source), 0, sizeof(struct source_load));
    memset((void *)&segment->sources[source], 0, sizeof segment->sources[source]);
    segment->sources[source].address = *address;
    segment->sources[source].address.port = 0;
    return source;
}

bool source_usable(const struct segment *segment, uint32_t source, uint32_t family)
{
    const struct source_slot *slot = &segment->sources[source % SEGMENT_SOURCES];

    return source == SOURCE_ROUTE ||
           (slot->address.family == family && atomic_load_explicit(&slot->absent, memory_order_relaxed) == 0);
}

bool source_set_absent(struct segment *segment, uint32_t source, bool absent)
{
    if (source == SOURCE_ROUTE || source >= SEGMENT_SOURCES)
        return false;
    return atomic_exchange_explicit(&segment->sources[source].absent, absent, memory_order_relaxed) != absent;
}

uint32_t source_unproven(const struct segment *segment, uint32_t server, uint32_t source, uint32_t *seen)
{
    const struct source_load *load = source_load(segment, server, source);
    uint64_t counted = atomic_load_explicit(&load->counted, memory_order_relaxed);

    *seen = atomic_load_explicit(&load->added, memory_order_relaxed);
    return (uint32_t)counted + (*seen - (uint32_t)(counted >> 32));
}

bool source_count(struct segment *segment, uint32_t server, uint32_t source, uint32_t seen)
{
    return atomic_compare_exchange_strong_explicit(&source_load(segment, server, source)->added, &seen, seen + 1,
                                                   memory_order_relaxed, memory_order_relaxed);
}

void source_publish(struct segment *segment, uint32_t server, uint32_t source, uint32_t clients, uint32_t unproven,
                    uint32_t added)
{
    struct source_load *load = source_load(segment, server, source);

    atomic_store_explicit(&load->counted, (uint64_t)added << 32 | unproven, memory_order_relaxed);
    atomic_store_explicit(&load->clients, clients, memory_order_relaxed);
}

/* The word after one more answer, or the lack of one. */
static uint64_t refusal_next(uint64_t word, bool answered, uint64_t now_ms)
{
    uint64_t until_ms = word >> UNTIL_SHIFT, history;

    if (until_ms > now_ms)
        return word;
    history = until_ms != 0 ? 0 : word & HISTORY; /* it has refused: counted anew */
    history = (history << 1 | !answered) & HISTORY;
    if ((uint32_t)__builtin_popcountll(history) < SOURCE_UNANSWERED)
        return history;
    return history | (now_ms + SOURCE_REFUSAL_MS) << UNTIL_SHIFT;
}

void source_answer(struct segment *segment, uint32_t server, uint32_t source, bool answered, uint64_t now_ms)
{
    _Atomic uint64_t *refusal = &source_load(segment, server, source)->refusal;
    uint64_t word = atomic_load_explicit(refusal, memory_order_relaxed);

    while (refusal_next(word, answered, now_ms) != word &&
           !atomic_compare_exchange_weak_explicit(refusal, &word, refusal_next(word, answered, now_ms),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

uint64_t source_refuses_ms(const struct segment *segment, uint32_t server, uint32_t source, uint32_t *unanswered)
{
    uint64_t word = atomic_load_explicit(&source_load(segment, server, source)->refusal, memory_order_relaxed);
    uint64_t until_ms = word >> UNTIL_SHIFT, now_ms;

    if (unanswered != NULL)
        *unanswered = (uint32_t)__builtin_popcountll(word & HISTORY);
    if (until_ms == 0) /* most often: no need of the time */
        return 0;
    now_ms = clock_now_ms();
    return until_ms > now_ms ? until_ms - now_ms : 0;
}
