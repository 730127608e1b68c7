/* SPDX-License-Identifier: Apache-2.0 */
/* Server slots. The word is written by two processes, the master (state, configured, generation) and the monitor (down
 * bits): each changes its own bits by CAS or by one atomic or/and, so neither takes back what the other did. */
#include "base/clock.h"
#include "base/hash.h"
#include "segment/record.h"
#include "segment/segment.h"
#include "segment/session.h"
#include "segment/tables.h"
#include <string.h>

#define SERVER_MASTER_MASK (SERVER_CONFIGURED | 3ull << SERVER_STATE_SHIFT)

uint32_t server_find(const struct segment *segment, const char *name)
{
    return segment_identity_find(&segment->servers->identity, sizeof *segment->servers, SEGMENT_SERVERS,
                                 hash_identity("server", name));
}

static void mark(bool *named, uint32_t server)
{
    if (server < SEGMENT_SERVERS)
        named[server] = true;
}

/* Everything that a record or a live session names. */
static void named_collect(const struct segment *segment, bool *named)
{
    for (uint32_t i = 0; i < record_capacity(segment); i++) {
        struct record_view view;

        if (record_read(segment, i, &view))
            mark(named, RECORD_SERVER(view.ref.value));
    }
    for (uint32_t i = 0; i < segment->lane_count * segment->rows_per_lane; i++) {
        struct session_row row;

        if (session_read(&segment->rows[i], &row))
            mark(named, row.server);
    }
}

static uint32_t server_give_away(const struct segment *segment)
{
    bool named[SEGMENT_SERVERS] = {false};

    named_collect(segment, named);
    for (uint32_t i = 0; i < SEGMENT_SERVERS; i++) {
        if (!named[i] && (server_word(segment, i) & SERVER_CONFIGURED) == 0)
            return i;
    }
    return SEGMENT_NO_INDEX;
}

/* A new name in this slot: nothing of the one before it stays, and the generation tells the two apart. */
static void server_fill(struct segment *segment, uint32_t index, uint64_t identity, const char *name)
{
    struct server_slot *slot = &segment->servers[index];
    struct source_load *loads = &segment->loads[(size_t)index * SEGMENT_SOURCES];
    uint64_t generation = (atomic_load_explicit(&slot->word, memory_order_relaxed) >> 32) + 1;

    slot->identity = 0;
    segment_name_write(slot->name, name);
    atomic_store_explicit(&slot->clients, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->sessions, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->answered_ms, 0, memory_order_relaxed);
    memset((void *)slot->probes, 0, sizeof slot->probes);
    memset((void *)loads, 0, SEGMENT_SOURCES * sizeof *loads);
    atomic_store_explicit(&slot->word, generation << 32, memory_order_release);
    slot->identity = identity;
}

void server_set_address(struct segment *segment, uint32_t server, const struct hp_endpoint *address)
{
    if (server >= SEGMENT_SERVERS)
        return;
    segment->servers[server].address = *address;
    segment->servers[server].address.port = 0;
}

uint32_t server_assign(struct segment *segment, const char *name, const struct hp_endpoint *address)
{
    uint32_t index = server_find(segment, name);

    if (index == SEGMENT_NO_INDEX) {
        index = segment_identity_find(&segment->servers->identity, sizeof *segment->servers, SEGMENT_SERVERS, 0);
        if (index == SEGMENT_NO_INDEX)
            index = server_give_away(segment);
        if (index == SEGMENT_NO_INDEX)
            return index;
        server_fill(segment, index, hash_identity("server", name), name);
        server_set_address(segment, index, address);
    }
    /* at once, so that the next new name of this configuration is not given the same slot */
    atomic_fetch_or_explicit(&segment->servers[index].word, SERVER_CONFIGURED, memory_order_release);
    return index;
}

void server_set_state(struct segment *segment, uint32_t server, enum server_state state, bool configured)
{
    uint64_t bits = (uint64_t)state << SERVER_STATE_SHIFT | (configured ? SERVER_CONFIGURED : 0);
    uint64_t word;

    if (server >= SEGMENT_SERVERS)
        return;
    word = atomic_load_explicit(&segment->servers[server].word, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&segment->servers[server].word, &word,
                                                  (word & ~SERVER_MASTER_MASK) | (bits & SERVER_MASTER_MASK),
                                                  memory_order_release, memory_order_relaxed))
        ;
}

/* It answers again: whom it refused before says nothing any more. */
static void refusals_forget(struct segment *segment, uint32_t server, uint32_t probe)
{
    struct source_load *loads = &segment->loads[(size_t)server * SEGMENT_SOURCES];

    if ((server_word(segment, server) >> probe & 1u) == 0) /* it was up before */
        return;
    for (uint32_t i = 0; i < SEGMENT_SOURCES; i++)
        atomic_store_explicit(&loads[i].refusal, 0, memory_order_relaxed);
}

void server_set_down(struct segment *segment, uint32_t server, uint32_t probe, bool down)
{
    if (server >= SEGMENT_SERVERS || probe >= SEGMENT_PROBES)
        return;
    if (!down)
        refusals_forget(segment, server, probe);
    if (down)
        atomic_fetch_or_explicit(&segment->servers[server].word, 1ull << probe, memory_order_release);
    else
        atomic_fetch_and_explicit(&segment->servers[server].word, ~(1ull << probe), memory_order_release);
}

static uint32_t probe_find(const struct server_slot *slot, uint32_t key)
{
    for (uint32_t i = 0; i < SEGMENT_PROBES; i++) {
        if (atomic_load_explicit(&slot->probes[i].key, memory_order_acquire) == key)
            return i;
    }
    return SEGMENT_NO_INDEX;
}

uint32_t server_probe_find(const struct segment *segment, uint32_t server, uint32_t protocol, uint16_t port)
{
    if (server >= SEGMENT_SERVERS || protocol == 0)
        return SEGMENT_NO_INDEX;
    return probe_find(&segment->servers[server], protocol << 16 | port);
}

uint32_t server_probe_assign(struct segment *segment, uint32_t server, uint32_t protocol, uint16_t port)
{
    uint32_t index = server_probe_find(segment, server, protocol, port);
    struct server_probe *probe;

    if (index != SEGMENT_NO_INDEX || server >= SEGMENT_SERVERS || protocol == 0)
        return index;
    index = probe_find(&segment->servers[server], 0);
    if (index == SEGMENT_NO_INDEX)
        return index;
    probe = &segment->servers[server].probes[index];
    memset((void *)probe, 0, sizeof *probe);
    atomic_store_explicit(&probe->since_ms, clock_now_ms(), memory_order_relaxed);
    server_set_down(segment, server, index, false);
    atomic_store_explicit(&probe->key, protocol << 16 | port, memory_order_release);
    return index;
}

void server_probes_free_others(struct segment *segment, uint32_t server, const uint32_t *kept, uint32_t count)
{
    for (uint32_t i = 0; i < SEGMENT_PROBES && server < SEGMENT_SERVERS; i++) {
        _Atomic uint32_t *key = &segment->servers[server].probes[i].key;
        uint32_t same = 0;

        while (same < count && kept[same] != atomic_load_explicit(key, memory_order_relaxed))
            same++;
        if (same < count)
            continue;
        atomic_store_explicit(key, 0, memory_order_release);
        server_set_down(segment, server, i, false);
    }
}
