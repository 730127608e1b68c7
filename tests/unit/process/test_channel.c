/* SPDX-License-Identifier: Apache-2.0 */
#include "process/channel.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct end {
    struct channel *channel;
    uint32_t messages, descriptors, closed, last;
    uint32_t stop_after; /* close the channel inside the event */
};
struct fixture {
    uv_loop_t loop;
    struct end a, b;
    int raw[2];
};

static void on_message(void *arg, const struct message *message, int *descriptors, uint32_t count)
{
    struct end *end = arg;

    cr_assert(end->messages == 0 || message->count == 0 || message->lanes[0] == end->last + 1, "out of order");
    end->last = message->lanes[0];
    end->messages++;
    end->descriptors += count;
    while (count > 0)
        close(descriptors[--count]);
    if (end->stop_after != 0 && end->messages == end->stop_after) {
        channel_close(end->channel);
        end->channel = NULL;
    }
}

static void on_closed(void *arg)
{
    ((struct end *)arg)->closed++;
}

static void open_end(struct fixture *f, struct end *end, int fd)
{
    struct channel_events events = {end, on_message, on_closed};
    struct error error;

    cr_assert_eq(channel_open(&end->channel, &f->loop, fd, &events, &error), 0);
}

static void open_fixture(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    uv_loop_init(&f->loop);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f->raw), 0);
    open_end(f, &f->a, f->raw[0]);
}

static void close_fixture(struct fixture *f)
{
    channel_close(f->a.channel);
    channel_close(f->b.channel);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&f->loop), 0, "a handle was left open");
}

static void run_until(struct fixture *f, const uint32_t *value, uint32_t wanted)
{
    for (int turns = 0; *value < wanted && turns < 100000; turns++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    cr_assert_eq(*value, wanted);
}

Test(channel, many_messages_to_a_slow_reader_arrive_in_order_and_with_their_descriptors, .timeout = 20)
{
    struct fixture f;
    struct message message = {.kind = MESSAGE_LISTENERS, .count = 1};

    open_fixture(&f);
    for (uint32_t i = 1; i <= 1000; i++) {
        int descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);

        message.lanes[0] = i;
        cr_assert_eq(channel_send(f.a.channel, &message, &descriptor, 1), 0);
        close(descriptor); /* what waits in the queue has a copy of its own */
    }
    open_end(&f, &f.b, f.raw[1]);
    run_until(&f, &f.b.messages, 1000);
    cr_assert_eq(f.b.descriptors, 1000);
    close_fixture(&f);
}

Test(channel, a_packet_of_another_size_is_dropped_with_its_descriptors, .timeout = 20)
{
    struct fixture f;
    struct message message = {.kind = MESSAGE_READY};

    open_fixture(&f);
    for (int i = 1; i < 64; i++)
        cr_assert_eq(send(f.raw[1], &message, (size_t)i, 0), i);
    message.kind = MESSAGE_KINDS;
    cr_assert_gt(send(f.raw[1], &message, sizeof message, 0), 0);
    message.kind = MESSAGE_READY;
    cr_assert_gt(send(f.raw[1], &message, sizeof message, 0), 0);
    run_until(&f, &f.a.messages, 1);
    close(f.raw[1]);
    close_fixture(&f);
}

Test(channel, the_other_end_going_is_told_once_and_later_sends_fail, .timeout = 20)
{
    struct fixture f;
    struct message message = {.kind = MESSAGE_STOP};

    open_fixture(&f);
    close(f.raw[1]);
    run_until(&f, &f.a.closed, 1);
    cr_assert_lt(channel_send(f.a.channel, &message, NULL, 0), 0);
    uv_run(&f.loop, UV_RUN_NOWAIT);
    cr_assert_eq(f.a.closed, 1);
    close_fixture(&f);
}

Test(channel, can_be_closed_inside_its_own_event, .timeout = 20)
{
    struct fixture f;
    struct message message = {.kind = MESSAGE_READY};

    open_fixture(&f);
    f.a.stop_after = 2;
    for (uint32_t i = 1; i <= 5; i++) {
        message.lanes[0] = i;
        cr_assert_gt(send(f.raw[1], &message, sizeof message, 0), 0);
    }
    run_until(&f, &f.a.messages, 2);
    for (int i = 0; i < 10; i++)
        uv_run(&f.loop, UV_RUN_NOWAIT);
    cr_assert_eq(f.a.messages, 2);
    close(f.raw[1]);
    close_fixture(&f);
}

/* Dead with messages of ours unread: the kernel reports a reset before it hands out what the dead one had said. */
Test(channel, last_words_of_one_that_died_without_reading_are_heard, .timeout = 20)
{
    struct fixture f;
    struct message message = {.kind = MESSAGE_STOP};

    open_fixture(&f);
    cr_assert_eq(channel_send(f.a.channel, &message, NULL, 0), 0);
    message.kind = MESSAGE_FAILED;
    cr_assert_gt(send(f.raw[1], &message, sizeof message, 0), 0);
    close(f.raw[1]);
    run_until(&f, &f.a.closed, 1);
    cr_assert_eq(f.a.messages, 1);
    close_fixture(&f);
}
