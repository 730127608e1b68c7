/* SPDX-License-Identifier: Apache-2.0 */
/* The verb drop: a client's sessions and records go, as if it had never been here.
 *
 * Happy path: count the client's records; post the drop; wait until the holder of every lane has ended its rows; delete
 * the client's records that no session watches; answer with sessions ended and records gone.
 * Fails: a holder does not answer within 2 s (being replaced, stopped) -> its successor walks the drop when it takes
 * the lane; the answer says that not all lanes have */
#include "monitor/control/requests.h"

#include "base/clock.h"

#define LOOK_EVERY_MS 20u
#define GIVE_UP_MS 2000u

static uint32_t lanes_behind(const struct segment *segment, uint64_t sequence)
{
    uint32_t behind = 0;

    for (uint32_t i = 0; i < segment->lane_count; i++)
        if (atomic_load_explicit(&segment->lanes[i].drop_seen, memory_order_acquire) < sequence)
            behind++;
    return behind;
}

static uint32_t sessions_ended(const struct segment *segment, uint64_t sequence)
{
    for (uint32_t i = 0; i < SEGMENT_DROPS; i++)
        if (atomic_load_explicit(&segment->drops[i].sequence, memory_order_acquire) == sequence)
            return atomic_load_explicit(&segment->drops[i].ended, memory_order_relaxed);
    return 0; /* newer drops have taken its place */
}

static void on_deleted(struct recount_search *search)
{
    struct connection *connection = search->arg;
    const struct segment *segment = connection->sources->context->segment;
    const struct drop *drop = &connection->drop;
    uint32_t left = search->found - search->removed;

    connection_answer(
        connection, json_pack("{s:b, s:o, s:I, s:I, s:I, s:I}", "ok", 1, "client", json_address(&search->client),
                              "sessions_ended", (json_int_t)sessions_ended(segment, drop->sequence), "records_deleted",
                              (json_int_t)(drop->before > left ? drop->before - left : 0), "records_left",
                              (json_int_t)left, "lanes_behind", (json_int_t)lanes_behind(segment, drop->sequence)));
}

static void on_look(uv_timer_t *timer)
{
    struct connection *connection = timer->data;
    struct drop *drop = &connection->drop;

    if (lanes_behind(connection->sources->context->segment, drop->sequence) > 0 && clock_now_ms() < drop->give_up_ms)
        return;
    uv_timer_stop(timer);
    drop->search.remove = true;
    drop->search.done = on_deleted;
    connection_extend(connection);
    recount_search(connection->sources->recount, &drop->search);
}

static void on_counted(struct recount_search *search)
{
    struct connection *connection = search->arg;
    struct drop *drop = &connection->drop;

    drop->before = search->found;
    drop->sequence = drop_post(connection->sources->context->segment, &search->client);
    drop->give_up_ms = clock_now_ms() + GIVE_UP_MS;
    connection_extend(connection);
    uv_timer_start(&connection->work, on_look, 0, LOOK_EVERY_MS);
}

void answer_drop(struct connection *connection, const json_t *request)
{
    struct drop *drop = &connection->drop;

    switch (request_client(connection, request, &drop->search.client)) {
    case CLIENT_ABSENT:
        connection_refuse(connection, "drop needs a client", "write an address: homeport drop 198.51.100.7");
        return;
    case CLIENT_WRONG:
        return;
    case CLIENT_GIVEN:
        break;
    }
    drop->search.arg = connection;
    drop->search.done = on_counted;
    recount_search(connection->sources->recount, &drop->search);
}
