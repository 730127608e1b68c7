/* SPDX-License-Identifier: Apache-2.0 */
/* What a role tells, and is told, while it runs: a file that is mapped by both sides, words of 64 bits in the order of
 * the list. tests/prove/field.py reads the names from here. */
#ifndef PROVE_BOARD_H
#define PROVE_BOARD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define BOARD(X)                                                                                                       \
    /* told */                                                                                                         \
    X(mode, "load: 0 listens only, 1 opens clients, 2 sends steadily")                                                 \
    X(rate, "datagrams per second; load in mode 1: new clients per second")                                            \
    X(again, "load: raised to let the clients that gave up try anew")                                                  \
    /* tells */                                                                                                        \
    X(ready, "1: sockets are open")                                                                                    \
    X(sent, "datagrams that the kernel took")                                                                          \
    X(sent_steadily, "of these, in mode 2")                                                                            \
    X(received, "datagrams read; sink: of clients")                                                                    \
    X(answered, "sink: answers that the kernel took; load: flows' datagrams that were answered, once each")            \
    X(answered_steadily, "load: of these, sent in mode 2")                                                             \
    X(twice, "answers that had come before")                                                                           \
    X(out_of_order, "answers that came behind a later one of their flow")                                              \
    X(stray, "datagrams that were not ours, or came from elsewhere or to another client")                              \
    X(queue_drops, "datagrams that the kernel dropped at our own sockets (SO_RXQ_OVFL)")                               \
    X(send_errors, "datagrams that the kernel did not take")                                                           \
    X(begun, "load: clients that have begun")                                                                          \
    X(connected, "load: clients that have got through IKE_SA_INIT, IKE_AUTH and one more exchange on the first port")  \
    X(gave_up, "load: clients whose tries are used up")                                                                \
    X(behind, "datagrams left out because we were late by over 0.2 s")                                                 \
    X(moved, "sink: flows that came to another server than before, each time")                                         \
    X(port_changed, "sink: flows that came from another source port than before, each time")                           \
    X(strangers, "sink: not answered, because another server has this client's IKE_SA")                                \
    X(probes, "sink: health probes answered")                                                                          \
    X(gaps, "sink: numbers of flows that were left out on the way")

enum board_word {
#define X(name, help) BOARD_##name,
    BOARD(X)
#undef X
        BOARD_COUNT
};

#define BOARD_WORDS 64u
struct board {
    _Atomic uint64_t words[BOARD_WORDS];
};
_Static_assert((int)BOARD_COUNT <= (int)BOARD_WORDS, "room for every word");

/* What a sink remembers of a flow. flow = 2 * client + service. */
struct board_row {
    uint32_t server; /* host order; 0: never seen */
    uint16_t port;   /* that it came from */
    uint16_t changes;
    uint32_t sequence; /* highest seen */
    uint32_t received;
    uint64_t last_ns; /* realtime, of the kernel */
    uint32_t home;    /* of a client's first flow: the server that has its IKE_SA. Host order */
    uint32_t unused;
};
_Static_assert(sizeof(struct board_row) == 32, "tests/prove/field.py reads IHHIIQII");

/* When the latest datagrams of a lane came. */
#define BOARD_LANES 256u
#define BOARD_TIMES 2048u
struct board_lane {
    _Atomic uint64_t count;
    _Atomic uint64_t times_ns[BOARD_TIMES]; /* number n at n % BOARD_TIMES; realtime, of the kernel */
};

/* A sink's file: the board, the lanes, the rows. */
struct board_table {
    struct board board;
    struct board_lane lanes[BOARD_LANES];
    struct board_row rows[];
};

/* Makes the file anew; never unmapped. Ends the program when it cannot. */
void *board_map(const char *path, size_t size);

static inline void board_add(struct board *board, enum board_word word, uint64_t number)
{
    atomic_store_explicit(&board->words[word], atomic_load_explicit(&board->words[word], memory_order_relaxed) + number,
                          memory_order_release);
}

static inline uint64_t board_get(struct board *board, enum board_word word)
{
    return atomic_load_explicit(&board->words[word], memory_order_acquire);
}

static inline void board_set(struct board *board, enum board_word word, uint64_t number)
{
    atomic_store_explicit(&board->words[word], number, memory_order_release);
}

#endif
