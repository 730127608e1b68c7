/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: channel_send writes at once; poll says readable, a packet is read, its descriptors go to the callee.
 * Fails: the other end is slow    -> packets wait in the queue, in order, until poll says writable
 *        the other end is gone    -> what it said before is read, closed() once, later sends answer -EPIPE
 *        a packet of another size -> it is dropped and its descriptors are closed: nothing is guessed */
#include "process/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct packet {
    struct packet *next;
    struct message message;
    uint32_t count;
    int descriptors[MESSAGE_ITEMS];
};

struct channel {
    uv_poll_t poll;
    int fd;
    struct channel_events events;
    struct packet *first, **last;
    bool gone, closing;
};

static void watch(struct channel *self);

/* 1: sent, 0: would block, negative: gone. */
static int write_packet(int fd, const struct message *message, const int *descriptors, uint32_t count)
{
    union {
        char room[CMSG_SPACE(sizeof(int) * MESSAGE_ITEMS)];
        struct cmsghdr align;
    } control;
    struct iovec part = {(void *)message, sizeof *message};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

    if (count > 0) {
        struct cmsghdr *cmsg = &control.align;

        memset(&control, 0, sizeof control);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(cmsg), descriptors, sizeof(int) * count);
        header.msg_control = control.room;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    }
    if (sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
        return 1;
    return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ETOOMANYREFS ? 0 : -errno;
}

static void packet_free(struct packet *packet)
{
    for (uint32_t i = 0; i < packet->count; i++)
        close(packet->descriptors[i]);
    free(packet);
}

static void flush(struct channel *self)
{
    while (self->first != NULL) {
        struct packet *packet = self->first;

        if (!self->gone && write_packet(self->fd, &packet->message, packet->descriptors, packet->count) == 0)
            return;
        self->first = packet->next;
        if (self->first == NULL)
            self->last = &self->first;
        packet_free(packet);
    }
}

/* The descriptors of a received packet, into out; returns how many. */
static uint32_t received(struct msghdr *header, int out[MESSAGE_ITEMS])
{
    uint32_t count = 0;

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg != NULL; cmsg = CMSG_NXTHDR(header, cmsg))
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
            uint32_t here = (uint32_t)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));

            for (uint32_t i = 0; i < here && count < MESSAGE_ITEMS; i++)
                memcpy(&out[count++], CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
        }
    return count;
}

/* The size of what came, or as recvmsg. */
static ssize_t receive(int fd, struct message *message, int descriptors[MESSAGE_ITEMS], uint32_t *count, int flags)
{
    union {
        char room[CMSG_SPACE(sizeof(int) * MESSAGE_ITEMS)];
        struct cmsghdr align;
    } control;
    struct iovec part = {message, sizeof *message};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t size = recvmsg(fd, &header, flags | MSG_CMSG_CLOEXEC);

    *count = size > 0 ? received(&header, descriptors) : 0;
    return size;
}

static bool is_message(struct message *message, ssize_t size, int *descriptors, uint32_t count)
{
    if (size != sizeof *message || message->kind >= MESSAGE_KINDS || message->count > MESSAGE_ITEMS) {
        while (count > 0)
            close(descriptors[--count]);
        return false;
    }
    message->text[sizeof message->text - 1] = '\0';
    return true;
}

/* false: nothing more to read now. */
static bool read_packet(struct channel *self)
{
    struct message message;
    int descriptors[MESSAGE_ITEMS];
    uint32_t count;
    ssize_t size = receive(self->fd, &message, descriptors, &count, MSG_DONTWAIT);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (size < 0 && errno == ECONNRESET)
        return true; /* it died with our messages unread; said once, and its own last ones are behind it */
    if (size <= 0) {
        self->gone = true;
        return false;
    }
    if (is_message(&message, size, descriptors, count))
        self->events.message(self->events.arg, &message, descriptors, count);
    return true;
}

int channel_receive(int fd, struct message *message, int descriptors[MESSAGE_ITEMS], uint32_t *count, int limit_ms)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    ssize_t size;

    if (poll(&item, 1, limit_ms > 0 ? limit_ms : 0) <= 0)
        return -ETIMEDOUT;
    size = receive(fd, message, descriptors, count, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (size <= 0)
        return -EPIPE;
    return is_message(message, size, descriptors, *count) ? 0 : -EBADMSG;
}

void channel_drain(struct channel *channel)
{
    while (!channel->gone && !channel->closing && read_packet(channel))
        ;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct channel *self = poll->data;

    if (events & UV_WRITABLE)
        flush(self);
    channel_drain(self);
    if (self->closing)
        return;
    if (self->gone || status < 0) {
        self->gone = true;
        uv_poll_stop(&self->poll);
        flush(self);
        self->events.closed(self->events.arg);
        return;
    }
    watch(self);
}

static void watch(struct channel *self)
{
    uv_poll_start(&self->poll, UV_READABLE | (self->first != NULL ? UV_WRITABLE : 0), on_poll);
}

int channel_open(struct channel **out, uv_loop_t *loop, int fd, const struct channel_events *events,
                 struct error *error)
{
    struct channel *self = calloc(1, sizeof *self);
    int status;

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory for a channel");
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    self->fd = fd;
    self->events = *events;
    self->last = &self->first;
    self->poll.data = self;
    status = uv_poll_init(loop, &self->poll, fd);
    if (status < 0) {
        free(self);
        return error_set(error, status, "cannot watch a channel: %s", uv_strerror(status));
    }
    watch(self);
    *out = self;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct channel *self = handle->data;

    close(self->fd);
    free(self);
}

void channel_close(struct channel *channel)
{
    if (channel == NULL || channel->closing)
        return;
    channel->closing = true;
    flush(channel);
    channel->gone = true; /* what could not be sent any more is let go */
    flush(channel);
    uv_close((uv_handle_t *)&channel->poll, on_closed);
}

int channel_send(struct channel *channel, const struct message *message, const int *descriptors, uint32_t count)
{
    struct packet *packet;
    int status = 0;

    if (channel->gone)
        return -EPIPE;
    if (channel->first == NULL)
        status = write_packet(channel->fd, message, descriptors, count);
    if (status != 0)
        return status < 0 ? status : 0;
    packet = calloc(1, sizeof *packet);
    if (packet == NULL)
        return -ENOMEM;
    packet->message = *message;
    for (; packet->count < count; packet->count++) {
        packet->descriptors[packet->count] = fcntl(descriptors[packet->count], F_DUPFD_CLOEXEC, 0);
        if (packet->descriptors[packet->count] < 0) {
            packet_free(packet);
            return -errno;
        }
    }
    *channel->last = packet;
    channel->last = &packet->next;
    watch(channel);
    return 0;
}

void series_begin(struct channel_series *series, struct channel *channel, enum message_kind kind)
{
    memset(series, 0, sizeof *series);
    series->channel = channel;
    series->message.kind = kind;
}

int series_end(struct channel_series *series)
{
    if (series->message.count > 0 && series->status == 0)
        series->status = channel_send(series->channel, &series->message, series->descriptors, series->descriptor_count);
    series->message.count = series->descriptor_count = 0;
    return series->status;
}

void series_add(struct channel_series *series, uint32_t listener, uint32_t lane, int descriptor)
{
    struct message *message = &series->message;

    message->listeners[message->count] = listener;
    message->lanes[message->count++] = lane;
    if (descriptor >= 0)
        series->descriptors[series->descriptor_count++] = descriptor;
    if (message->count == MESSAGE_ITEMS)
        series_end(series);
}
