/* SPDX-License-Identifier: Apache-2.0 */
/* TCP for the benches: a server that does what a connection's first octet asks for, and clients that ask. */
#include "traffic.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (256u << 10)
#define QUESTION 64u /* octets, as the answer */
#define EVENTS 256

enum wish { WISH_NONE = 0, WISH_PUSH = 'p', WISH_PULL = 'g', WISH_ANSWER = 'a' };

struct stream {
    int fd;
    enum wish wish;
};

struct streams {
    const struct role_options *options;
    int epoll;
    uint64_t octets, connections, failures;
    uint8_t chunk[CHUNK];
};

static struct streams *streams_open(const struct role_options *options)
{
    struct streams *self = traffic_zeroed(1, sizeof *self);

    self->options = options;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (self->epoll < 0)
        err(1, "epoll");
    return self;
}

static void watch(const struct streams *self, int operation, struct stream *stream, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = stream};

    if (epoll_ctl(self->epoll, operation, stream->fd, &event) < 0)
        err(1, "epoll");
}

static int tcp_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        err(1, "socket");
    return fd;
}

static struct sockaddr_in name_of(uint32_t address, uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
}

static void stream_end(struct stream *stream)
{
    close(stream->fd);
    free(stream);
}

/* The number of octets that were read; 0: none now; -1: the end. */
static ssize_t take(struct streams *self, const struct stream *stream)
{
    ssize_t size = recv(stream->fd, self->chunk, sizeof self->chunk, MSG_DONTWAIT);

    if (size > 0)
        return size;
    return size < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

/* false: it is broken. */
static bool give(struct streams *self, const struct stream *stream, size_t size)
{
    return send(stream->fd, self->chunk, size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno == EAGAIN || errno == EINTR;
}

/* ---- the server ---- */

static void serve_accept(struct streams *self, int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct stream *stream = traffic_zeroed(1, sizeof *stream);
        stream->fd = fd;
        watch(self, EPOLL_CTL_ADD, stream, EPOLLIN);
    }
}

/* false: it has ended. */
static bool serve_hear(struct streams *self, struct stream *stream)
{
    ssize_t size = take(self, stream);

    if (size < 0)
        return false;
    if (size > 0 && stream->wish == WISH_NONE) {
        stream->wish = (enum wish)self->chunk[0];
        if (stream->wish == WISH_PULL)
            watch(self, EPOLL_CTL_MOD, stream, EPOLLOUT);
    }
    if (stream->wish == WISH_PUSH)
        *self->options->count += (uint64_t)size;
    return stream->wish != WISH_ANSWER || (give(self, stream, QUESTION), false);
}

int role_serve(const struct role_options *options)
{
    struct streams *self = streams_open(options);
    struct stream listener = {.fd = tcp_socket()};
    struct sockaddr_in name = name_of(INADDR_ANY, options->port);
    struct epoll_event ready[EVENTS];
    double end = traffic_now() + options->seconds;

    if (bind(listener.fd, (struct sockaddr *)&name, sizeof name) < 0 || listen(listener.fd, 4096) < 0)
        err(1, "port %u", options->port);
    watch(self, EPOLL_CTL_ADD, &listener, EPOLLIN);
    while (traffic_now() < end) {
        int count = epoll_wait(self->epoll, ready, EVENTS, 1000);
        for (int i = 0; i < count; i++) {
            struct stream *stream = ready[i].data.ptr;
            if (stream == &listener)
                serve_accept(self, listener.fd);
            else if (stream->wish == WISH_PULL ? !give(self, stream, CHUNK) : !serve_hear(self, stream))
                stream_end(stream);
        }
    }
    return 0;
}

/* ---- the client ---- */

/* What it asks for goes out when it is connected. */
static void client_begin(struct streams *self, enum wish wish)
{
    struct sockaddr_in name = name_of(self->options->to, self->options->port);
    struct stream *stream = traffic_zeroed(1, sizeof *stream);

    stream->fd = tcp_socket();
    stream->wish = wish;
    if (connect(stream->fd, (struct sockaddr *)&name, sizeof name) < 0 && errno != EINPROGRESS)
        err(1, "connect");
    watch(self, EPOLL_CTL_ADD, stream, EPOLLOUT);
}

/* false: it has ended. */
static bool client_event(struct streams *self, struct stream *stream, uint32_t events)
{
    ssize_t size;

    if ((events & EPOLLOUT) != 0) {
        self->chunk[0] = (uint8_t)stream->wish;
        if (!give(self, stream, stream->wish == WISH_PUSH ? CHUNK : QUESTION)) {
            self->failures++;
            return false;
        }
        if (stream->wish != WISH_PUSH)
            watch(self, EPOLL_CTL_MOD, stream, EPOLLIN);
        return true;
    }
    size = take(self, stream);
    if (size > 0)
        self->octets += (uint64_t)size;
    if (size >= 0)
        return true;
    self->failures += stream->wish != WISH_ANSWER;
    self->connections++;
    return false;
}

static void client_for(struct streams *self, double seconds)
{
    double end = traffic_now() + seconds;
    struct epoll_event ready[EVENTS];

    while (traffic_now() < end) {
        int count = epoll_wait(self->epoll, ready, EVENTS, 10);
        for (int i = 0; i < count; i++) {
            struct stream *stream = ready[i].data.ptr;
            enum wish wish = stream->wish;
            if (client_event(self, stream, ready[i].events))
                continue;
            stream_end(stream);
            if (wish == WISH_ANSWER)
                client_begin(self, wish);
        }
    }
}

static int client(const struct role_options *options, enum wish wish, uint32_t streams)
{
    struct streams *self = streams_open(options);
    uint64_t octets, connections, count;
    double begin, seconds;

    for (uint32_t i = 0; i < streams; i++)
        client_begin(self, wish);
    client_for(self, options->warmup);
    octets = self->octets;
    connections = self->connections;
    count = *options->count;
    printf("{\"warm\": true}\n");
    fflush(stdout);
    begin = traffic_now();
    client_for(self, options->seconds);
    seconds = traffic_now() - begin;
    printf("{\"seconds\": %.3f, \"octets\": %llu, \"sink\": %llu, \"connections\": %llu, \"failures\": %llu}\n",
           seconds, (unsigned long long)(self->octets - octets), (unsigned long long)(*options->count - count),
           (unsigned long long)(self->connections - connections), (unsigned long long)self->failures);
    return 0;
}

int role_push(const struct role_options *options)
{
    return client(options, WISH_PUSH, options->flows);
}

int role_pull(const struct role_options *options)
{
    return client(options, WISH_PULL, options->flows);
}

int role_connect(const struct role_options *options)
{
    return client(options, WISH_ANSWER, options->window);
}
