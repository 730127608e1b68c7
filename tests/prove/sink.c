/* SPDX-License-Identifier: Apache-2.0 */
/* The servers: each answers the clients that began with it, and one memory for all of them knows where each flow came
 * from last. A flow that comes to another server has moved; one that comes from another port of the balancer has
 * changed its port. */
#include "board.h"
#include "post.h"
#include "roles.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <time.h>

#define SOCKETS_MAX 32u

struct sink {
    const struct role_options *options;
    struct board_table *table;
    struct post *posts[SOCKETS_MAX];
    uint32_t count;
};

static void note_lane(struct sink *self, const struct post_slot *slot)
{
    uint32_t number = ntohs(slot->peer.sin_port) % self->options->lanes;
    struct board_lane *lane = &self->table->lanes[number];
    uint64_t count = atomic_load_explicit(&lane->count, memory_order_relaxed);

    atomic_store_explicit(&lane->times_ns[count % BOARD_TIMES], slot->time_ns, memory_order_relaxed);
    atomic_store_explicit(&lane->count, count + 1, memory_order_release);
}

static void note_order(struct board *board, struct board_row *row, uint32_t sequence)
{
    if (sequence > row->sequence) {
        board_add(board, BOARD_gaps, sequence - row->sequence - 1);
        row->sequence = sequence;
        return;
    }
    board_add(board, BOARD_out_of_order, 1);
    if (board_get(board, BOARD_gaps) > 0)
        board_add(board, BOARD_gaps, UINT64_MAX);
}

static void note_flow(struct sink *self, const struct post_slot *slot, const struct wire_trace *trace)
{
    struct board *board = &self->table->board;
    struct board_row *row = &self->table->rows[2 * trace->client + trace->service];
    uint16_t port = ntohs(slot->peer.sin_port);

    if (row->server != 0 && row->server != slot->own)
        board_add(board, BOARD_moved, 1);
    else if (row->server != 0 && row->port != port)
        board_add(board, BOARD_port_changed, 1);
    if (row->server != 0 && (row->server != slot->own || row->port != port))
        row->changes++;
    row->server = slot->own;
    row->port = port;
    row->received++;
    row->last_ns = slot->time_ns;
    note_order(board, row, trace->sequence);
}

/* Like a real server it knows only the clients that have begun with it. */
static bool knows(struct sink *self, const struct post_slot *slot, const struct wire_trace *trace)
{
    struct board_row *row;

    if (trace->client == WIRE_NOBODY)
        return true;
    row = &self->table->rows[2 * trace->client];
    if (trace->step == WIRE_INIT)
        row->home = slot->own;
    return row->home == slot->own;
}

/* What a datagram becomes, in place. false: nothing. */
static bool answer(struct sink *self, struct post_slot *slot)
{
    struct board *board = &self->table->board;
    struct wire_trace trace;

    if (wire_read(&trace, slot->data, slot->size) && !trace.answer &&
        (trace.client == WIRE_NOBODY || trace.client < self->options->clients)) {
        board_add(board, BOARD_received, 1);
        note_lane(self, slot);
        if (trace.client != WIRE_NOBODY)
            note_flow(self, slot, &trace);
        if (!knows(self, slot, &trace)) {
            board_add(board, BOARD_strangers, 1);
            return false;
        }
        wire_answer(slot->data, slot->size, &trace);
        return true;
    }
    if (wire_answer_probe(slot->data, slot->size)) {
        board_add(board, BOARD_probes, 1);
        return true;
    }
    board_add(board, BOARD_stray, 1);
    return false;
}

/* The slots that stay go back to where they came from. */
static void serve(struct sink *self, struct post *post)
{
    struct board *board = &self->table->board;
    uint32_t dropped, count = post_receive(post, &dropped), kept = 0, taken;

    board_add(board, BOARD_queue_drops, dropped);
    for (uint32_t i = 0; i < count; i++) {
        if (!answer(self, &post->slots[i]))
            continue;
        if (kept != i)
            post->slots[kept] = post->slots[i];
        kept++;
    }
    post->count = kept;
    taken = post_send(post);
    board_add(board, BOARD_answered, taken);
    board_add(board, BOARD_send_errors, kept - taken);
}

int role_sink(const struct role_options *options)
{
    struct sink self = {.options = options, .count = 2 * options->servers};
    struct pollfd polls[SOCKETS_MAX];
    struct timespec pause = {.tv_nsec = POST_TURN_NS};
    uint64_t end_ns = clock_ns() + (uint64_t)(options->seconds * 1e9);

    self.table = board_map(options->board, sizeof *self.table + 2ul * options->clients * sizeof self.table->rows[0]);
    for (uint32_t i = 0; i < self.count; i++) {
        self.posts[i] = post_open(options->to + i / 2, options->ports[i % 2]);
        polls[i] = (struct pollfd){.fd = self.posts[i]->fd, .events = POLLIN};
    }
    board_set(&self.table->board, BOARD_ready, 1);
    while (!role_ended && clock_ns() < end_ns) {
        if (poll(polls, self.count, 200) <= 0)
            continue;
        for (uint32_t i = 0; i < self.count; i++)
            if (polls[i].revents != 0)
                serve(&self, self.posts[i]);
        nanosleep(&pause, NULL);
    }
    return 0;
}
