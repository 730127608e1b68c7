/* SPDX-License-Identifier: Apache-2.0 */
/* One direction of a stream over pairs of sockets: from[0] is the peer that speaks, to[0] the one that hears. */
#include "relay/stream_half.h"

#include <criterion/criterion.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUDGET (4 * STREAM_CHUNK)

static int from[2], to[2];
static struct stream_half half;
static uint8_t chunk[STREAM_CHUNK];
static uint32_t got, gone; /* by the last move */
static uint32_t known;     /* by the next */

static void open_pairs(void)
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, from), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, to), 0);
    half = (struct stream_half){0};
    known = 0;
}

static void close_pairs(void)
{
    stream_half_close(&half);
    for (int i = 0; i < 2; i++) {
        if (from[i] >= 0)
            close(from[i]);
        if (to[i] >= 0)
            close(to[i]);
    }
}

TestSuite(stream_half, .init = open_pairs, .fini = close_pairs);

static enum stream_half_state move(uint32_t budget)
{
    got = gone = 0;
    return stream_half_move(&half, from[1], to[1], chunk, budget, known, &got, &gone);
}

static uint8_t octet(uint32_t position)
{
    return (uint8_t)(position * 7 + position / 251);
}

/* As much as the kernel takes at once. */
static uint32_t speak(uint32_t position, uint32_t size)
{
    uint8_t data[8192];
    uint32_t said = 0;

    while (said < size) {
        uint32_t some = size - said < sizeof data ? size - said : sizeof data;
        for (uint32_t i = 0; i < some; i++)
            data[i] = octet(position + said + i);
        ssize_t sent = send(from[0], data, some, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        said += (uint32_t)sent;
    }
    return said;
}

/* All that is there; it must go on from that position. */
static uint32_t hear(uint32_t position)
{
    uint8_t data[8192];
    uint32_t heard = 0;
    ssize_t size;

    while ((size = recv(to[0], data, sizeof data, MSG_DONTWAIT)) > 0) {
        for (uint32_t i = 0; i < (uint32_t)size; i++)
            cr_assert_eq(data[i], octet(position + heard + i), "octet %u", position + heard + i);
        heard += (uint32_t)size;
    }
    return heard;
}

Test(stream_half, what_comes_leaves_and_nothing_is_kept)
{
    cr_assert_eq(speak(0, 1000), 1000);
    cr_expect_eq(move(BUDGET), STREAM_HALF_READS);
    cr_expect_eq(got, 1000);
    cr_expect_eq(gone, 1000);
    cr_expect_null(half.rest);
    cr_expect_eq(hear(0), 1000);
    cr_expect_eq(move(BUDGET), STREAM_HALF_READS);
    cr_expect_eq(got, 0);
}

/* Until somebody takes it, at most a chunk is kept and nothing more is read. */
static uint32_t fill(void)
{
    uint32_t said = 0, more = 1;

    while (more > 0) {
        more = speak(said, 100000);
        said += more;
        (void)move(BUDGET);
        cr_assert_leq(half.size, STREAM_CHUNK);
    }
    cr_assert_eq(stream_half_state(&half), STREAM_HALF_WRITES);
    return said;
}

Test(stream_half, a_target_that_takes_nothing_stops_the_source)
{
    uint32_t said = fill();

    cr_expect_eq(move(BUDGET), STREAM_HALF_WRITES);
    cr_expect_eq(got, 0);
    cr_expect_eq(gone, 0);
    cr_expect_gt(said, STREAM_CHUNK);
}

Test(stream_half, what_was_kept_comes_first_and_whole)
{
    uint32_t said = fill(), heard = 0, turns = 0;

    while (heard < said && turns++ < 100000) {
        heard += hear(heard);
        cr_assert_neq(move(BUDGET), STREAM_HALF_TARGET_BROKEN);
    }
    cr_expect_eq(heard, said);
    cr_expect_null(half.rest);
    cr_expect_eq(stream_half_state(&half), STREAM_HALF_READS);
}

Test(stream_half, the_end_is_passed_on_once_all_is_sent)
{
    uint32_t said = fill(), heard = 0, turns = 0;
    uint8_t one;

    cr_assert_eq(shutdown(from[0], SHUT_WR), 0);
    cr_expect_eq(move(BUDGET), STREAM_HALF_WRITES);
    cr_expect_not(half.shut);
    while (!half.shut && turns++ < 100000) {
        heard += hear(heard);
        (void)move(BUDGET);
    }
    heard += hear(heard);
    cr_expect_eq(heard, said);
    cr_expect_eq(recv(to[0], &one, 1, MSG_DONTWAIT), 0);
    cr_expect_eq(stream_half_state(&half), STREAM_HALF_SHUT);
    cr_expect_eq(move(BUDGET), STREAM_HALF_SHUT);
}

Test(stream_half, the_other_direction_lives_on_behind_an_end)
{
    struct stream_half back = {0};
    uint32_t read = 0, written = 0;
    char data[8];

    cr_assert_eq(shutdown(from[0], SHUT_WR), 0);
    cr_expect_eq(move(BUDGET), STREAM_HALF_SHUT);
    cr_assert_eq(send(to[0], "answer", 6, 0), 6);
    cr_expect_eq(stream_half_move(&back, to[1], from[1], chunk, BUDGET, 0, &read, &written), STREAM_HALF_READS);
    cr_expect_eq(recv(from[0], data, sizeof data, MSG_DONTWAIT), 6);
    cr_expect_arr_eq(data, "answer", 6);
}

Test(stream_half, no_more_than_its_budget_is_read_at_once)
{
    int size = 4 << 20;
    uint32_t said;

    (void)setsockopt(from[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    (void)setsockopt(to[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    said = speak(0, 4 * STREAM_CHUNK);
    cr_assert_gt(said, STREAM_CHUNK);
    (void)move(1);
    cr_expect_gt(got, 0);
    cr_expect_leq(got, STREAM_CHUNK);
}

/* Of a pair of this family: who leaves octets unread resets. */
Test(stream_half, a_source_that_was_reset_is_broken)
{
    cr_assert_eq(send(from[1], "unread", 6, 0), 6);
    close(from[0]);
    from[0] = -1;
    cr_expect_eq(move(BUDGET), STREAM_HALF_SOURCE_BROKEN);
    cr_expect_not(half.shut);
}

Test(stream_half, a_target_that_has_gone_is_broken)
{
    close(to[0]);
    to[0] = -1;
    cr_assert_eq(speak(0, 10), 10);
    cr_expect_eq(move(BUDGET), STREAM_HALF_TARGET_BROKEN);
}

Test(stream_half, a_target_that_goes_while_something_is_kept_is_broken)
{
    (void)fill();
    close(to[0]);
    to[0] = -1;
    cr_expect_eq(move(BUDGET), STREAM_HALF_TARGET_BROKEN);
}

Test(stream_half, room_for_more_than_a_chunk_is_refused)
{
    cr_expect_not(stream_half_expect(&half, STREAM_CHUNK + 1));
    cr_expect_null(half.rest);
    cr_expect(stream_half_expect(&half, STREAM_CHUNK));
    cr_expect_eq(half.size, STREAM_CHUNK);
}

static bool has_ended(void)
{
    uint8_t octet;

    return recv(to[0], &octet, 1, MSG_DONTWAIT) == 0;
}

Test(stream_half, whose_source_has_ended_is_over_in_one_move)
{
    known = STREAM_HALF_ENDS;
    cr_assert_eq(speak(0, 1000), 1000);
    cr_assert_eq(shutdown(from[0], SHUT_WR), 0);
    cr_expect_eq(move(BUDGET), STREAM_HALF_SHUT);
    cr_expect_eq(hear(0), 1000);
    cr_expect(has_ended());
}

static void tcp_pair(int pair[2])
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(listener, (struct sockaddr *)&name, sizeof name), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&name, &size), 0);
    pair[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(pair[1], (struct sockaddr *)&name, sizeof name), 0);
    pair[0] = accept(listener, NULL, NULL);
    cr_assert_geq(pair[0], 0);
    close(listener);
}

static uint32_t segments_in(int fd)
{
    struct tcp_info info;
    socklen_t size = sizeof info;

    cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    return info.tcpi_segs_in;
}

Test(stream_half, whose_source_has_ended_takes_one_segment_for_the_rest_and_the_end)
{
    uint32_t before;

    close(to[0]);
    close(to[1]);
    tcp_pair(to);
    known = STREAM_HALF_ENDS;
    cr_assert_eq(speak(0, 1000), 1000);
    cr_assert_eq(shutdown(from[0], SHUT_WR), 0);
    before = segments_in(to[0]);
    cr_expect_eq(move(BUDGET), STREAM_HALF_SHUT);
    cr_expect_eq(hear(0), 1000);
    cr_expect(has_ended());
    cr_expect_eq(segments_in(to[0]) - before, 1);
}

Test(stream_half, whose_target_is_closed_next_leaves_the_end_to_that)
{
    known = STREAM_HALF_CLOSES;
    cr_assert_eq(speak(0, 1000), 1000);
    cr_assert_eq(shutdown(from[0], SHUT_WR), 0);
    cr_expect_eq(move(BUDGET), STREAM_HALF_READS);
    cr_expect_eq(move(BUDGET), STREAM_HALF_SHUT);
    cr_expect_eq(hear(0), 1000);
    cr_expect_not(has_ended());
    close(to[1]);
    to[1] = -1;
    cr_expect(has_ended());
}
