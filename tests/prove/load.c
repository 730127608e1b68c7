/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that connect as IKEv2 does behind a NAT (IKE_SA_INIT on the first port, IKE_AUTH on the second), say
 * something encrypted on the first as well, so that both flows are proven, and then talk on: in turns, at a steady
 * rate. All of them share two sockets; a client is an address. */
#include "board.h"
#include "post.h"
#include "roles.h"

#include <arpa/inet.h>
#include <err.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CONNECTED 3u /* step of a client that is through */
#define LATE_NS 200000000.0
#define SCANS 512u /* turns that looking at all clients takes */

enum load_mode { MODE_LISTEN, MODE_OPEN, MODE_STEADY };

struct client {
    uint8_t step; /* enum wire_step while it connects */
    uint8_t tries;
    bool gave_up;
    uint64_t asked_ns;
};

struct flow {
    uint32_t sequence; /* of its last datagram */
    uint32_t top;      /* highest answered */
    uint64_t seen;     /* bit n: top - n is answered */
};

struct load {
    const struct role_options *options;
    struct board *board;
    struct post *posts[2], *out[2]; /* the same sockets: what comes and what goes */
    struct client *clients;
    struct flow *flows;
    uint32_t begun, scan, cursor, stride;
    uint64_t mode, again;
    double start_ns, done; /* pace: what has been done since then */
    double rate;
};

static void *zeroed(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        err(1, "calloc");
    return memory;
}

static void flush(struct load *self, uint32_t service)
{
    struct post *out = self->out[service];
    uint32_t count = out->count, taken;

    if (count == 0)
        return;
    taken = post_send(out);
    board_add(self->board, BOARD_sent, taken);
    if (self->mode == MODE_STEADY)
        board_add(self->board, BOARD_sent_steadily, taken);
    board_add(self->board, BOARD_send_errors, count - taken);
}

static void say(struct load *self, uint32_t client, enum wire_step step, enum wire_service service)
{
    const struct role_options *options = self->options;
    struct post *out = self->out[service];
    struct post_slot *slot = &out->slots[out->count++];
    struct wire_trace trace = {.client = options->first + client,
                               .address = options->from + client,
                               .sequence = ++self->flows[2 * client + service].sequence,
                               .step = (uint8_t)step,
                               .service = (uint8_t)service,
                               .steady = self->mode == MODE_STEADY,
                               .salt = options->salt};

    slot->peer = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(options->ports[service]), .sin_addr.s_addr = htonl(options->to)};
    slot->own = trace.address;
    slot->size = wire_write(slot->data, &trace);
    if (out->count == POST_VECTOR)
        flush(self, service);
}

static void connect_on(struct load *self, uint32_t number, uint64_t now_ns)
{
    static const enum wire_service services[] = {WIRE_IKE, WIRE_NATT, WIRE_IKE};
    struct client *client = &self->clients[number];

    client->asked_ns = now_ns;
    say(self, number, (enum wire_step)client->step, services[client->step]);
}

/* From the beginning. */
static void connect_anew(struct load *self, uint32_t number, uint64_t now_ns)
{
    struct client *client = &self->clients[number];

    if (self->options->tries != 0 && client->tries >= self->options->tries) {
        client->gave_up = true;
        board_add(self->board, BOARD_gave_up, 1);
        return;
    }
    client->tries++;
    client->step = WIRE_INIT;
    connect_on(self, number, now_ns);
}

/* Who gave up has all tries again. */
static void try_again(struct load *self, uint64_t now_ns)
{
    uint64_t again = board_get(self->board, BOARD_again);

    if (again == self->again)
        return;
    self->again = again;
    board_set(self->board, BOARD_gave_up, 0);
    for (uint32_t i = 0; i < self->begun; i++) {
        if (!self->clients[i].gave_up)
            continue;
        self->clients[i] = (struct client){0};
        connect_anew(self, i, now_ns);
    }
}

/* How many are due now. */
static uint32_t due(struct load *self, uint64_t now_ns)
{
    double rate = (double)board_get(self->board, BOARD_rate), wanted;

    if (rate != self->rate) {
        self->rate = rate;
        self->start_ns = (double)now_ns;
        self->done = 0;
    }
    wanted = ((double)now_ns - self->start_ns) * rate / 1e9 - self->done;
    if (wanted > LATE_NS * rate / 1e9 + 1) {
        board_add(self->board, BOARD_behind, (uint64_t)wanted);
        self->start_ns = (double)now_ns;
        self->done = 0;
        return 1;
    }
    return wanted > 0 ? (uint32_t)wanted : 0;
}

static void open_clients(struct load *self, uint64_t now_ns)
{
    uint32_t clients = self->options->clients, part = clients / SCANS + 1, count = due(self, now_ns);

    self->done += count;
    for (; count > 0 && self->begun < clients; count--)
        connect_anew(self, self->begun++, now_ns);
    board_set(self->board, BOARD_begun, self->begun);
    try_again(self, now_ns);
    for (uint32_t i = 0; i < part && self->begun > 0; i++) {
        uint32_t number = self->scan = (self->scan + 1) % self->begun;
        const struct client *client = &self->clients[number];
        if (client->step < CONNECTED && !client->gave_up &&
            now_ns - client->asked_ns > self->options->patience * 1000000ull)
            connect_anew(self, number, now_ns);
    }
}

static void talk(struct load *self, uint64_t now_ns)
{
    uint32_t flows = 2 * self->options->clients, left = flows, count = due(self, now_ns);

    self->done += count;
    while (count > 0 && left-- > 0) {
        uint32_t flow = self->cursor = (self->cursor + self->stride) % flows;
        if (self->clients[flow / 2].step < CONNECTED)
            continue;
        say(self, flow / 2, flow % 2 == WIRE_IKE ? WIRE_INFORMATIONAL : WIRE_ESP, (enum wire_service)(flow % 2));
        count--;
    }
}

/* false: this one was answered before. */
static bool note_answer(struct load *self, struct flow *flow, uint32_t sequence)
{
    uint32_t ahead;

    if (sequence > flow->top) {
        ahead = sequence - flow->top;
        flow->seen = ahead < 64 ? flow->seen << ahead | 1 : 1;
        flow->top = sequence;
        return true;
    }
    ahead = flow->top - sequence;
    if (ahead >= 64 || (flow->seen >> ahead & 1) != 0) {
        board_add(self->board, BOARD_twice, 1);
        return false;
    }
    flow->seen |= 1ull << ahead;
    board_add(self->board, BOARD_out_of_order, 1);
    return true;
}

static void hear_one(struct load *self, const struct post_slot *slot, uint32_t service, uint64_t now_ns)
{
    const struct role_options *options = self->options;
    uint32_t number = slot->own - options->from;
    struct wire_trace trace;
    struct client *client;

    if (number >= options->clients || !wire_read(&trace, slot->data, slot->size) || !trace.answer ||
        trace.address != slot->own || trace.service != service || trace.salt != options->salt ||
        ntohl(slot->peer.sin_addr.s_addr) != options->to || ntohs(slot->peer.sin_port) != options->ports[service]) {
        board_add(self->board, BOARD_stray, 1);
        return;
    }
    if (!note_answer(self, &self->flows[2 * number + service], trace.sequence))
        return;
    board_add(self->board, BOARD_answered, 1);
    if (trace.steady)
        board_add(self->board, BOARD_answered_steadily, 1);
    client = &self->clients[number];
    if (client->step >= CONNECTED || trace.step != client->step || client->gave_up)
        return;
    client->step++;
    if (client->step == CONNECTED)
        board_add(self->board, BOARD_connected, 1);
    else
        connect_on(self, number, now_ns);
}

static void hear(struct load *self, uint32_t service)
{
    struct post *post = self->posts[service];
    uint32_t dropped, count;
    uint64_t now_ns = clock_ns();

    do {
        count = post_receive(post, &dropped);
        board_add(self->board, BOARD_queue_drops, dropped);
        board_add(self->board, BOARD_received, count);
        for (uint32_t i = 0; i < count; i++)
            hear_one(self, &post->slots[i], service, now_ns);
    } while (count == POST_VECTOR);
}

static void turn(struct load *self)
{
    uint64_t mode = board_get(self->board, BOARD_mode), now_ns = clock_ns();

    if (mode != self->mode) {
        self->mode = mode;
        self->rate = 0; /* a pace of its own */
    }
    hear(self, WIRE_IKE);
    hear(self, WIRE_NATT);
    if (mode == MODE_OPEN)
        open_clients(self, now_ns);
    else if (mode == MODE_STEADY)
        talk(self, now_ns);
    flush(self, WIRE_IKE);
    flush(self, WIRE_NATT);
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int role_load(const struct role_options *options)
{
    struct load self = {.options = options, .stride = 7919};
    uint64_t end_ns = clock_ns() + (uint64_t)(options->seconds * 1e9);
    struct timespec pause = {.tv_nsec = POST_TURN_NS};

    self.board = board_map(options->board, sizeof *self.board);
    self.clients = zeroed(options->clients, sizeof *self.clients);
    self.flows = zeroed(2ul * options->clients, sizeof *self.flows);
    while (common_divisor(self.stride, 2 * options->clients) != 1)
        self.stride++;
    for (uint32_t i = 0; i < 2; i++) {
        self.posts[i] = post_open(INADDR_ANY, options->own_ports[i]);
        self.out[i] = zeroed(1, sizeof *self.out[i]);
        self.out[i]->fd = self.posts[i]->fd;
    }
    board_set(self.board, BOARD_ready, 1);
    while (!role_ended && clock_ns() < end_ns) {
        turn(&self);
        nanosleep(&pause, NULL);
    }
    return 0;
}
