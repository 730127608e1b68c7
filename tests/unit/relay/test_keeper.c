/* SPDX-License-Identifier: Apache-2.0 */
/* A worker that dies, and the keeper of its sockets: this test is the master, and whoever takes the lane. The worker is
 * a process of its own, with nothing but sockets. */
#include "fixture.h"

#include "relay/keeper.h"
#include "relay/socket_message.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROWS 300u /* of a lane: more than one message holds */
#define LANES 2u
#define PATIENCE_MS 10000

static struct fixture fixture;
static int channel[2], life[2], server; /* life: its reading end comes to its end when the worker's copy is closed */
static struct sockaddr_in server_name;
static pid_t worker;

static void address_of(int fd, struct sockaddr_in *name)
{
    socklen_t size = sizeof *name;

    cr_assert_eq(getsockname(fd, (struct sockaddr *)name, &size), 0);
}

static int udp_socket(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    return fd;
}

/* Every second row of each lane has a socket; says "up", then waits for its end, or for a word to end by itself. */
static void work(void)
{
    struct keeper *keeper;
    struct error error = {0};
    char word;

    if (keeper_open(&keeper, fixture.segment, 1000, channel[1], &error) < 0)
        _exit(3);
    for (uint32_t row = 0; row < LANES * ROWS; row += 2) {
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        char text[16];

        if (connect(fd, (struct sockaddr *)&server_name, sizeof server_name) < 0)
            _exit(4);
        keeper_note(keeper, &fixture.segment->rows[row], fd);
        snprintf(text, sizeof text, "%u", row);
        if (send(fd, text, strlen(text), 0) < 0)
            _exit(5);
    }
    keeper_note(keeper, &fixture.segment->rows[0], -1); /* as before closing it */
    if (write(life[1], "u", 1) != 1)
        _exit(6);
    if (read(channel[1], &word, 1) != 1)
        pause(); /* the master has gone */
    keeper_close(keeper);
    _exit(0);
}

static void start(void)
{
    char word;

    fixture_open(&fixture);
    fixture.shape.lanes = LANES;
    fixture.shape.sessions = LANES * ROWS;
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    cr_assert_eq(fixture.segment->rows_per_lane, ROWS);
    server = udp_socket();
    cr_assert_eq(setsockopt(server, SOL_SOCKET, SO_RCVBUF, &(int){1 << 20}, sizeof(int)), 0);
    address_of(server, &server_name);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, life), 0);
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1),
                 0); /* an orphaned keeper becomes our child: its end can be awaited */
    keeper_channel(channel[0]);
    worker = fork();
    if (worker == 0) {
        close(channel[0]);
        close(life[0]);
        work();
    }
    close(channel[1]);
    close(life[1]);
    cr_assert_eq(read(life[0], &word, 1), 1, "the worker has not come up");
}

static void stop(void)
{
    close(channel[0]);
    close(life[0]);
    close(server);
    fixture_close(&fixture);
}

TestSuite(keeper, .init = start, .fini = stop, .timeout = 60);

static pid_t pid_of_keeper(void)
{
    char path[64];
    FILE *file;
    int pid = 0;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)worker, (int)worker);
    file = fopen(path, "r");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%d", &pid), 1);
    fclose(file);
    return pid;
}

static void kill_worker(void)
{
    cr_assert_eq(kill(worker, SIGKILL), 0);
    cr_assert_eq(waitpid(worker, NULL, 0), worker);
}

static void master_lets_go(void)
{
    close(channel[0]);
    channel[0] = -1;
}

static void expect_end(pid_t keeper)
{
    int status = -1;

    cr_assert_eq(waitpid(keeper, &status, 0), keeper, "%s", strerror(errno));
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

/* Where a lane comes. */
static int ask(uint32_t lane)
{
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(keeper_ask(channel[0], lane, pair[1]), 0);
    close(pair[1]);
    return pair[0];
}

/* What comes until DONE: by row, its descriptor. Returns how many. */
static uint32_t take(int from, uint32_t lane, int sockets[ROWS])
{
    struct socket_message message = {.kind = SOCKET_MESSAGE_SOCKETS};
    int descriptors[SOCKET_MESSAGE_ROWS];
    uint32_t count, all = 0;

    memset(sockets, -1, ROWS * sizeof *sockets);
    while (message.kind != SOCKET_MESSAGE_DONE) {
        struct pollfd item = {.fd = from, .events = POLLIN};
        cr_assert_eq(poll(&item, 1, PATIENCE_MS), 1, "nothing comes of lane %u", lane);
        cr_assert_eq(socket_message_receive(from, &message, descriptors, &count, true), 0);
        cr_assert_eq(message.lane, lane);
        cr_assert_eq(message.count, count);
        for (uint32_t i = 0; i < count; i++) {
            cr_assert_lt(message.rows[i], ROWS);
            sockets[message.rows[i]] = descriptors[i];
        }
        all += count;
    }
    close(from);
    return all;
}

/* The server answers every datagram that it has got; returns how many. */
static uint32_t answer_all(void)
{
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    char text[16];
    ssize_t length;
    uint32_t count = 0;

    while ((length = recvfrom(server, text, sizeof text, MSG_DONTWAIT, (struct sockaddr *)&from, &size)) >= 0) {
        cr_assert_eq(sendto(server, text, (size_t)length, 0, (struct sockaddr *)&from, size), length);
        count++;
    }
    return count;
}

static void expect_answer(int fd, uint32_t row)
{
    char text[16] = "", wanted[16];

    snprintf(wanted, sizeof wanted, "%u", row);
    cr_assert_geq(recv(fd, text, sizeof text - 1, MSG_DONTWAIT), 0, "row %u: %s", row, strerror(errno));
    cr_assert_str_eq(text, wanted);
}

static void take_and_expect_answers(int from, uint32_t lane)
{
    int sockets[ROWS];

    cr_assert_eq(take(from, lane, sockets), ROWS / 2 - (lane == 0));
    for (uint32_t row = 0; row < ROWS; row++) {
        bool there = row % 2 == 0 && (lane != 0 || row != 0);
        cr_assert_eq(sockets[row] >= 0, there, "row %u", row);
        if (there)
            expect_answer(sockets[row], lane * ROWS + row);
    }
}

/* The kernel vouches for it: what the message says does not matter. */
Test(keeper, says_once_to_its_master_which_process_it_is)
{
    struct pollfd item = {.fd = channel[0], .events = POLLIN};
    pid_t pid, none;
    int pidfd;

    cr_assert_eq(poll(&item, 1, 5000), 1);
    pidfd = keeper_process(channel[0], worker, &pid);
    cr_expect_eq(pid, pid_of_keeper());
    cr_expect_geq(pidfd, 0);
    cr_expect_eq(keeper_process(channel[0], worker, &none), -1);
    close(pidfd);
    kill_worker();
    master_lets_go();
    expect_end(pid);
}

Test(keeper, has_what_servers_send_while_nobody_is_there)
{
    pid_t keeper = pid_of_keeper();

    kill_worker();
    cr_assert_eq(answer_all(), LANES * ROWS / 2);
    for (uint32_t lane = 0; lane < LANES; lane++)
        take_and_expect_answers(ask(lane), lane);
    master_lets_go();
    expect_end(keeper);
}

/* The worker has died so early that the master has not looked at its keeper yet: what it leaves unread resets the
 * channel when it lets go. */
Test(keeper, does_what_it_was_asked_for_by_a_master_that_has_not_heard_it)
{
    struct pollfd item = {.fd = channel[0], .events = POLLIN};
    pid_t keeper = pid_of_keeper();
    int lanes[LANES];

    cr_assert_eq(poll(&item, 1, PATIENCE_MS), 1);
    cr_assert_eq(kill(keeper, SIGSTOP), 0);
    kill_worker();
    cr_assert_eq(waitpid(keeper, NULL, WUNTRACED), keeper);
    cr_assert_eq(answer_all(), LANES * ROWS / 2);
    for (uint32_t lane = 0; lane < LANES; lane++)
        lanes[lane] = ask(lane);
    master_lets_go();
    cr_assert_eq(kill(keeper, SIGCONT), 0);
    for (uint32_t lane = 0; lane < LANES; lane++)
        take_and_expect_answers(lanes[lane], lane);
    expect_end(keeper);
}

/* Whoever waits for the end of one of the dead worker's connections gets it, though the keeper lives. */
Test(keeper, lets_go_of_everything_else)
{
    struct pollfd item = {.fd = life[0], .events = POLLIN};
    char word;

    kill_worker();
    cr_assert_eq(poll(&item, 1, PATIENCE_MS), 1);
    cr_assert_eq(read(life[0], &word, 1), 0);
}

Test(keeper, ends_with_a_master_that_dies)
{
    pid_t keeper = pid_of_keeper();

    kill_worker();
    master_lets_go();
    expect_end(keeper);
}

/* Or that dismisses the worker, which may hang. */
Test(keeper, ends_while_its_worker_lives_when_nobody_would_ask)
{
    pid_t keeper = pid_of_keeper();
    struct pollfd item = {.fd = (int)syscall(SYS_pidfd_open, keeper, 0), .events = POLLIN};

    master_lets_go();
    cr_assert_eq(poll(&item, 1, PATIENCE_MS), 1, "it stays");
    close(item.fd);
    cr_assert_eq(waitpid(worker, NULL, WNOHANG), 0, "the worker lives on");
    kill_worker();
    expect_end(keeper);
}

Test(keeper, is_ended_by_a_worker_that_ends_in_order)
{
    pid_t keeper = pid_of_keeper();
    int status = -1;

    cr_assert_eq(write(channel[0], "e", 1), 1);
    cr_assert_eq(waitpid(worker, &status, 0), worker);
    cr_assert_eq(status, 0);
    cr_assert_eq(kill(keeper, 0), -1, "it lives on");
    cr_assert_eq(keeper_ask(channel[0], 0, server), -EPIPE);
}

Test(keeper, is_not_fooled_by_a_signal_while_its_worker_lives)
{
    cr_assert_eq(kill(pid_of_keeper(), SIGTERM), 0);
    cr_assert_eq(waitpid(worker, NULL, WNOHANG), 0);
    kill_worker();
    cr_assert_eq(answer_all(), LANES * ROWS / 2);
    take_and_expect_answers(ask(1), 1);
}

/* The taker of one lane dies before it has anything; nonsense is asked for: the other lane is none the worse. */
Test(keeper, minds_neither_a_taker_that_dies_nor_nonsense)
{
    struct socket_message done = {.kind = SOCKET_MESSAGE_DONE};
    int pair[2];

    kill_worker();
    cr_assert_eq(answer_all(), LANES * ROWS / 2);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(keeper_ask(channel[0], 0, pair[1]), 0);
    close(pair[0]);
    close(pair[1]);
    cr_assert_eq(send(channel[0], "nonsense", 8, 0), 8);
    cr_assert_eq(keeper_ask(channel[0], LANES, server), 0);
    cr_assert_eq(socket_message_send(channel[0], &done, NULL, 0), 0);
    take_and_expect_answers(ask(1), 1);
}

/* Killed as well: then there is nobody to ask, and the sockets are closed. */
Test(keeper, that_is_killed_is_missed_by_nobody)
{
    pid_t keeper = pid_of_keeper();

    cr_assert_eq(kill(keeper, SIGKILL), 0);
    cr_assert_eq(waitpid(worker, NULL, WNOHANG), 0, "the worker lives on");
    kill_worker();
    cr_assert_eq(waitpid(keeper, NULL, 0), keeper);
    cr_assert_eq(keeper_ask(channel[0], 0, server), -EPIPE);
}
