/* SPDX-License-Identifier: Apache-2.0 */
#include "base/endpoint.h"
#include "relay/run.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint8_t payload[BATCH_SLOTS][2048];

struct pair {
    int from, to; /* from is connected to to */
    struct runs *runs;
};

static int loopback_socket(struct sockaddr_in *name)
{
    socklen_t size = sizeof *name;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    *name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cr_assert_eq(bind(fd, (struct sockaddr *)name, sizeof *name), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)name, &size), 0);
    return fd;
}

static void pair_open(struct pair *pair)
{
    struct sockaddr_in from, to;

    pair->from = loopback_socket(&from);
    pair->to = loopback_socket(&to);
    cr_assert_eq(connect(pair->from, (struct sockaddr *)&to, sizeof to), 0);
    pair->runs = calloc(1, sizeof *pair->runs);
    for (uint32_t i = 0; i < BATCH_SLOTS; i++)
        memset(payload[i], (int)i + 1, sizeof payload[i]);
}

static void pair_close(struct pair *pair)
{
    close(pair->from);
    close(pair->to);
    free(pair->runs);
}

static void add(struct runs *runs, uint32_t number, uint32_t size, const void *owner)
{
    struct run_datagram datagram = {.owner = owner, .data = payload[number], .size = size};

    runs_add(runs, &datagram);
}

static void expect(int fd, uint32_t number, uint32_t size)
{
    uint8_t data[4096];
    struct pollfd look = {.fd = fd, .events = POLLIN};

    cr_assert_eq(poll(&look, 1, 2000), 1, "datagram %u did not arrive", number);
    cr_expect_eq(recv(fd, data, sizeof data, 0), (ssize_t)size, "datagram %u", number);
    cr_expect_eq(memcmp(data, payload[number], size), 0, "datagram %u", number);
}

Test(run, arrives_as_the_datagrams_that_it_was_made_of)
{
    struct pair pair;
    struct run_result result;

    pair_open(&pair);
    for (uint32_t i = 0; i < 5; i++)
        add(pair.runs, i, i == 4 ? 300 : 700, &pair);
    cr_expect_eq(pair.runs->count, 1, "equal ones and a shorter last one are one run");
    runs_send(pair.runs, pair.from, &result);
    cr_expect_eq(result.datagrams, 5);
    cr_expect_eq(result.bytes, 4 * 700 + 300);
    cr_expect_eq(result.gso_runs, 1);
    for (uint32_t i = 0; i < 5; i++)
        expect(pair.to, i, i == 4 ? 300 : 700);
    pair_close(&pair);
}

Test(run, ends_at_a_shorter_a_longer_an_empty_datagram_and_at_another_owner)
{
    struct pair pair;
    struct run_result result;
    static const uint32_t sizes[] = {700, 300, 300, 700, 0, 0, 700, 700};

    pair_open(&pair);
    for (uint32_t i = 0; i < 8; i++)
        add(pair.runs, i, sizes[i], i == 7 ? (void *)&result : (void *)&pair);
    cr_expect_eq(pair.runs->count, 7, "only 700 and the 300 behind it belong together, not %u", pair.runs->count);
    runs_send(pair.runs, pair.from, &result);
    cr_expect_eq(result.datagrams, 8);
    for (uint32_t i = 0; i < 8; i++)
        expect(pair.to, i, sizes[i]);
    pair_close(&pair);
}

/* IP_TOS as it arrives. */
static uint8_t mark_of(int fd, uint32_t number)
{
    uint8_t data[4096];
    _Alignas(struct cmsghdr) uint8_t control[128];
    struct iovec iov = {.iov_base = data, .iov_len = sizeof data};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct pollfd look = {.fd = fd, .events = POLLIN};
    uint8_t mark = 0;

    cr_assert_eq(poll(&look, 1, 2000), 1, "datagram %u did not arrive", number);
    cr_assert_eq(recvmsg(fd, &header, 0), 700);
    cr_expect_eq(memcmp(data, payload[number], 700), 0, "datagram %u", number);
    cr_assert(CMSG_FIRSTHDR(&header) != NULL && batch_mark(CMSG_FIRSTHDR(&header), &mark));
    return mark;
}

Test(run, is_of_one_mark)
{
    static const uint8_t marks[] = {0, 0, 0xba, 0xba, 0xba, 3, 0};
    struct pair pair;
    struct run_result result;

    pair_open(&pair);
    cr_assert_eq(batch_ask_marks(pair.to, 4), 0);
    for (uint32_t i = 0; i < sizeof marks; i++) {
        struct run_datagram datagram = {.owner = &pair, .data = payload[i], .size = 700, .mark = marks[i], .family = 4};
        runs_add(pair.runs, &datagram);
    }
    cr_expect_eq(pair.runs->count, 4, "not %u", pair.runs->count);
    runs_send(pair.runs, pair.from, &result);
    cr_expect_eq(result.datagrams, sizeof marks);
    cr_expect_eq(result.gso_runs, 2);
    for (uint32_t i = 0; i < sizeof marks; i++)
        cr_expect_eq(mark_of(pair.to, i), marks[i], "datagram %u", i);
    pair_close(&pair);
}

Test(run, that_must_go_singly_keeps_its_mark)
{
    struct pair pair;
    struct run_result result;
    int on = 1;

    pair_open(&pair);
    cr_assert_eq(batch_ask_marks(pair.to, 4), 0);
    cr_assert_eq(setsockopt(pair.from, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on), 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct run_datagram datagram = {.owner = &pair, .data = payload[i], .size = 700, .mark = 0xba, .family = 4};
        runs_add(pair.runs, &datagram);
    }
    runs_send(pair.runs, pair.from, &result);
    cr_expect_eq(result.datagrams, 3);
    cr_expect_eq(result.gso_runs, 0);
    for (uint32_t i = 0; i < 3; i++)
        cr_expect_eq(mark_of(pair.to, i), 0xba, "datagram %u", i);
    pair_close(&pair);
}

Test(run, never_holds_more_than_a_datagram_may)
{
    struct pair pair;
    struct run_result result;

    pair_open(&pair);
    for (uint32_t i = 0; i < BATCH_SLOTS; i++)
        add(pair.runs, i, 2000, &pair);
    for (uint32_t i = 0; i < pair.runs->count; i++)
        cr_expect_leq(pair.runs->runs[i].bytes, RUN_BYTES);
    runs_send(pair.runs, pair.from, &result);
    cr_expect_eq(result.datagrams, BATCH_SLOTS);
    for (uint32_t i = 0; i < BATCH_SLOTS; i++)
        expect(pair.to, i, 2000);
    pair_close(&pair);
}

/* A socket that sends no checksums refuses segments: EINVAL or EIO, as the kernel likes. */
Test(run, that_the_kernel_refuses_goes_singly)
{
    struct pair pair;
    struct run_result result;
    int on = 1;

    pair_open(&pair);
    setsockopt(pair.from, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on);
    for (uint32_t i = 0; i < 4; i++)
        add(pair.runs, i, 500, &pair);
    runs_send(pair.runs, pair.from, &result);
    cr_expect_eq(result.datagrams, 4);
    cr_expect_eq(result.dropped, 0);
    for (uint32_t i = 0; i < 4; i++)
        expect(pair.to, i, 500);
    pair_close(&pair);
}

Test(run, after_segments_have_failed_for_good_is_of_one)
{
    struct pair pair;

    pair_open(&pair);
    pair.runs->no_segments = true;
    for (uint32_t i = 0; i < 4; i++)
        add(pair.runs, i, 500, &pair);
    cr_expect_eq(pair.runs->count, 4);
    pair_close(&pair);
}

/* The peer's port is closed, a datagram provokes an ICMP error, the port opens: what is sent next must arrive. */
Test(run, eaten_by_an_icmp_error_is_sent_again)
{
    struct pair pair;
    struct run_result result;
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    struct pollfd look;

    pair_open(&pair);
    cr_assert_eq(getsockname(pair.to, (struct sockaddr *)&name, &size), 0);
    close(pair.to);
    add(pair.runs, 0, 100, &pair);
    runs_send(pair.runs, pair.from, &result);
    look = (struct pollfd){.fd = pair.from};
    cr_assert_eq(poll(&look, 1, 2000), 1, "no ICMP error came");
    pair.to = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(pair.to, (struct sockaddr *)&name, size), 0);
    for (uint32_t i = 1; i < 4; i++)
        add(pair.runs, i, 100, &pair);
    runs_send(pair.runs, pair.from, &result);
    cr_expect_eq(result.datagrams, 3);
    cr_expect_eq(result.dropped, 0);
    cr_expect_geq(result.resends, 1);
    for (uint32_t i = 1; i < 4; i++)
        expect(pair.to, i, 100);
    pair_close(&pair);
}

/* An unreachable network refuses each try: that is a drop, and neither an ICMP error nor a resend. */
Test(run, that_has_no_route_is_dropped_once)
{
    struct pair pair;
    struct run_result result;
    struct sockaddr_in nowhere = {.sin_family = AF_INET, .sin_port = 9, .sin_addr = {.s_addr = htonl(0xffffffffu)}};

    pair_open(&pair);
    runs_add(pair.runs, &(struct run_datagram){.owner = &pair,
                                               .data = payload[0],
                                               .size = 100,
                                               .name = (struct sockaddr *)&nowhere, /* broadcast: EACCES */
                                               .name_size = sizeof nowhere});
    runs_send(pair.runs, pair.from, &result);
    cr_expect_eq(result.datagrams, 0);
    cr_expect_eq(result.dropped, 1);
    cr_expect_eq(result.icmp_errors, 0);
    cr_expect_eq(result.resends, 0);
    pair_close(&pair);
}
