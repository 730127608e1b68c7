/* SPDX-License-Identifier: Apache-2.0 */
/* A valid IKE_SA_INIT from each of many addresses, at a steady rate. Whoever floods listens as well, so that every
 * datagram that was answered is known. Ends when all are sent and nothing has come for half a second. */
#include "board.h"
#include "post.h"
#include "roles.h"

#include <arpa/inet.h>
#include <err.h>
#include <stdlib.h>
#include <time.h>

#define TURN_NS 400000
#define QUIET_NS 500000000u

static uint32_t hear(struct post *in, struct board *board)
{
    uint32_t dropped, count, all = 0;
    struct wire_trace trace;

    do {
        count = post_receive(in, &dropped);
        board_add(board, BOARD_queue_drops, dropped);
        board_add(board, BOARD_received, count);
        for (uint32_t i = 0; i < count; i++) {
            const struct post_slot *slot = &in->slots[i];
            if (wire_read(&trace, slot->data, slot->size) && trace.answer && trace.address == slot->own)
                board_add(board, BOARD_answered, 1);
            else
                board_add(board, BOARD_stray, 1);
        }
        all += count;
    } while (count == POST_VECTOR);
    return all;
}

static void send_vector(struct post *out, struct board *board, const struct role_options *options, uint32_t from,
                        uint32_t count)
{
    uint32_t taken;

    for (uint32_t i = 0; i < count; i++) {
        struct wire_trace trace = {.client = WIRE_NOBODY,
                                   .address = options->from + from + i,
                                   .sequence = 1,
                                   .step = WIRE_INIT,
                                   .service = WIRE_IKE,
                                   .salt = options->salt};
        out->slots[i].peer = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_port = htons(options->ports[0]), .sin_addr.s_addr = htonl(options->to)};
        out->slots[i].own = trace.address;
        out->slots[i].size = wire_write(out->slots[i].data, &trace);
    }
    out->count = count;
    taken = post_send(out);
    board_add(board, BOARD_sent, taken);
    board_add(board, BOARD_send_errors, count - taken);
}

int role_flood(const struct role_options *options)
{
    struct board *board = board_map(options->board, sizeof *board);
    struct post *in = post_open(INADDR_ANY, options->own_ports[0]), *out = calloc(1, sizeof *out);
    uint64_t start_ns = clock_ns(), end_ns = start_ns + (uint64_t)(options->seconds * 1e9), heard_ns = start_ns;
    struct timespec pause = {.tv_nsec = TURN_NS};
    uint32_t done = 0;

    if (out == NULL)
        err(1, "calloc");
    out->fd = in->fd;
    board_set(board, BOARD_ready, 1);
    for (uint64_t now_ns = start_ns; !role_ended && now_ns < end_ns; now_ns = clock_ns()) {
        double wanted = (double)(now_ns - start_ns) * options->rate / 1e9 - done;
        if (hear(in, board) > 0 || done < options->clients)
            heard_ns = now_ns;
        else if (now_ns - heard_ns > QUIET_NS)
            break;
        if (done < options->clients && wanted > options->rate / 5) {
            board_add(board, BOARD_behind, (uint64_t)wanted);
            start_ns = now_ns - (uint64_t)(done * 1e9 / options->rate);
            continue;
        }
        while (wanted >= 1 && done < options->clients) {
            uint32_t count = wanted < POST_VECTOR ? (uint32_t)wanted : POST_VECTOR;
            count = count < options->clients - done ? count : options->clients - done;
            send_vector(out, board, options, done, count);
            done += count;
            wanted -= count;
        }
        nanosleep(&pause, NULL);
    }
    board_set(board, BOARD_begun, done);
    return done == options->clients ? 0 : 1;
}
