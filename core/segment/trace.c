/* SPDX-License-Identifier: Apache-2.0 */
#include "segment/trace.h"
#include "base/endpoint.h"
#include "segment/words.h"
#include <string.h>

_Static_assert(sizeof(struct trace_event) % 8 == 0, "an event is copied by words");

static const char *const kind_names[] = {
    [TRACE_SESSION_BEGUN] = "session begun",
    [TRACE_SESSION_MOVED] = "session moved",
    [TRACE_SESSION_ENDED] = "session ended",
    [TRACE_ACCEPTED] = "server accepted",
    [TRACE_PROVEN] = "proven",
    [TRACE_LOSS] = "lost",
    [TRACE_IKE_TO_SERVER] = "IKE to server",
    [TRACE_IKE_TO_CLIENT] = "IKE to client",
    [TRACE_ESP_TO_SERVER] = "ESP to server",
    [TRACE_ESP_TO_CLIENT] = "ESP to client",
    [TRACE_RECORD_PUT_BACK] = "record put back",
    [TRACE_RECORD_EVICTED] = "record evicted",
    [TRACE_RECORD_EXPIRED] = "record expired",
    [TRACE_RECORD_DELETED] = "record deleted",
};
_Static_assert(sizeof kind_names / sizeof *kind_names == TRACE_KIND_COUNT, "a name for each kind");

const char *trace_kind_name(uint32_t kind)
{
    return kind < TRACE_KIND_COUNT ? kind_names[kind] : "unknown";
}

static void follow_until(struct trace_board *board, uint64_t until_ms)
{
    if (atomic_load_explicit(&board->until_ms, memory_order_relaxed) < until_ms)
        atomic_store_explicit(&board->until_ms, until_ms, memory_order_release);
}

static struct trace_watch *watch_find(struct trace_board *board, const struct hp_endpoint *client, uint64_t now_ms)
{
    for (uint32_t i = 0; i < SEGMENT_TRACES; i++) {
        struct hp_endpoint present;

        if (atomic_load_explicit(&board->watches[i].until_ms, memory_order_acquire) <= now_ms)
            continue;
        words_load(&present, &board->watches[i].client, sizeof present);
        if (endpoint_same_address(&present, client))
            return &board->watches[i];
    }
    return NULL;
}

/* Two monitors may be there for a moment, in a reload: who changes the time first has the watch. */
static bool watch_take(struct trace_watch *watch, const struct hp_endpoint *client, uint64_t now_ms)
{
    uint64_t until_ms = atomic_load_explicit(&watch->until_ms, memory_order_relaxed);
    struct hp_endpoint address = *client;

    if (until_ms >= now_ms || !atomic_compare_exchange_strong_explicit(&watch->until_ms, &until_ms, now_ms,
                                                                       memory_order_acq_rel, memory_order_relaxed))
        return false;
    address.port = 0;
    words_store(&watch->client, &address, sizeof address);
    atomic_store_explicit(&watch->until_ms, now_ms + TRACE_LEASE_MS, memory_order_release);
    return true;
}

bool trace_follow(struct segment *segment, const struct hp_endpoint *client, uint64_t now_ms)
{
    struct trace_board *board = segment->traces;
    struct trace_watch *watch = watch_find(board, client, now_ms);
    bool followed = watch != NULL;

    if (followed)
        atomic_store_explicit(&watch->until_ms, now_ms + TRACE_LEASE_MS, memory_order_release);
    for (uint32_t i = 0; i < SEGMENT_TRACES && !followed; i++) {
        followed = watch_take(&board->watches[i], client, now_ms);
        if (followed)
            atomic_fetch_add_explicit(&board->generation, 1, memory_order_release);
    }
    if (followed)
        follow_until(board, now_ms + TRACE_LEASE_MS);
    return followed;
}

void trace_leave(struct segment *segment, const struct hp_endpoint *client)
{
    struct trace_board *board = segment->traces;
    struct trace_watch *watch = watch_find(board, client, 0);
    uint64_t latest_ms = 0;

    if (watch != NULL)
        atomic_store_explicit(&watch->until_ms, 0, memory_order_release);
    for (uint32_t i = 0; i < SEGMENT_TRACES; i++) {
        uint64_t until_ms = atomic_load_explicit(&board->watches[i].until_ms, memory_order_relaxed);

        latest_ms = until_ms > latest_ms ? until_ms : latest_ms;
    }
    atomic_store_explicit(&board->until_ms, latest_ms, memory_order_release);
}

bool trace_wants(const struct segment *segment, const struct hp_endpoint *client, uint64_t now_ms)
{
    const struct trace_board *board = segment->traces;

    for (uint32_t i = 0; i < SEGMENT_TRACES; i++) {
        struct hp_endpoint name;

        if (atomic_load_explicit(&board->watches[i].until_ms, memory_order_acquire) <= now_ms)
            continue;
        words_load(&name, &board->watches[i].client, sizeof name);
        if (endpoint_names(&name, client))
            return true;
    }
    return false;
}

void trace_text(struct trace_event *event, const char *text)
{
    size_t size = strnlen(text, sizeof event->text - 1);

    memset(event->text, 0, sizeof event->text);
    memcpy(event->text, text, size);
}

void trace_post(struct segment *segment, const struct trace_event *event)
{
    struct trace_board *board = segment->traces;
    uint64_t sequence = atomic_fetch_add_explicit(&board->last, 1, memory_order_acq_rel) + 1;
    struct trace_slot *slot = &board->events[sequence % SEGMENT_TRACE_EVENTS];

    atomic_store_explicit(&slot->sequence, 0, memory_order_relaxed);
    words_store(&slot->event, event, sizeof *event); /* release: the 0 comes first */
    atomic_store_explicit(&slot->sequence, sequence, memory_order_release);
}

void trace_record(struct segment *segment, enum trace_kind kind, const struct record_view *record, uint64_t now_ms)
{
    const struct trace_event event = {.at_ms = now_ms,
                                      .client = record->client,
                                      .service = record->service,
                                      .kind = (uint16_t)kind,
                                      .server = (uint16_t)RECORD_SERVER(record->ref.value),
                                      .worker = SEGMENT_NO_INDEX};

    if (trace_wants(segment, &record->client, now_ms))
        trace_post(segment, &event);
}

uint64_t trace_last(const struct segment *segment)
{
    return atomic_load_explicit(&segment->traces->last, memory_order_acquire);
}

enum trace_look trace_read(const struct segment *segment, uint64_t sequence, struct trace_event *event)
{
    const struct trace_slot *slot = &segment->traces->events[sequence % SEGMENT_TRACE_EVENTS];
    uint64_t before = atomic_load_explicit(&slot->sequence, memory_order_acquire);

    if (before < sequence)
        return TRACE_NOT_YET;
    if (before > sequence)
        return TRACE_OVERWRITTEN;
    words_load(event, &slot->event, sizeof *event);
    if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != sequence)
        return TRACE_OVERWRITTEN;
    event->text[sizeof event->text - 1] = '\0';
    return TRACE_HERE;
}
