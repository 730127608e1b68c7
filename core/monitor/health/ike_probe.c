/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: a socket is opened, bound to the source where one is written, and connected, so that the kernel drops
 * what comes from anybody else and hands us ICMP errors. A probe with a new random SPI goes out: plain towards port
 * 500, marked towards 4500, both elsewhere. The first IKEv2 message with that SPI is the answer. Fails: nothing comes
 * -> SILENT when the time is over; an answer after that bears an old SPI and is ignored garbage, another SPI      ->
 * ignored, the wait goes on ICMP port unreachable     -> REFUSED at once. libuv stops a watcher on POLLERR: it is
 * started again no route to the server    -> FAILED at once no socket, source address not on this machine -> UNSENT at
 * once; the next probe tries to open it again */
#include "monitor/health/ike_probe.h"

#include "base/hash.h"
#include "ike/ike.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READS_A_TURN 16 /* a server that floods us must not hold the loop */

struct ike_probe {
    struct probe_target target;
    struct probe_events events;
    uv_loop_t *loop;
    uv_timer_t timer; /* the time-out of the probe under way */
    uv_poll_t *poll;  /* NULL: no socket */
    int fd;
    uint8_t spi[8];
    bool under_way;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void on_poll(uv_poll_t *poll, int status, int events);

struct ike_probe *ike_probe_open(uv_loop_t *loop, const struct probe_target *target, const struct probe_events *events)
{
    struct ike_probe *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
    self->target = *target;
    self->events = *events;
    self->loop = loop;
    self->fd = -1;
    uv_timer_init(loop, &self->timer);
    self->timer.data = self;
    return self;
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

/* The watcher is let go of before its descriptor is closed. */
static void close_socket(struct ike_probe *self)
{
    if (self->poll != NULL) {
        self->poll->data = NULL;
        uv_close((uv_handle_t *)self->poll, on_poll_closed);
        self->poll = NULL;
    }
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct ike_probe *self = handle->data;

    self->closed(self->closed_arg);
    free(self);
}

void ike_probe_close(struct ike_probe *probe, void (*closed)(void *arg), void *arg)
{
    probe->closed = closed;
    probe->closed_arg = arg;
    probe->under_way = false;
    close_socket(probe);
    uv_close((uv_handle_t *)&probe->timer, on_timer_closed);
}

static void finish(struct ike_probe *self, enum probe_result result, const char *why)
{
    self->under_way = false;
    uv_timer_stop(&self->timer);
    self->events.result(self->events.arg, result, why);
}

static void fail(struct ike_probe *self, int code)
{
    switch (code) {
    case ECONNREFUSED:
        finish(self, PROBE_REFUSED, "port unreachable (ICMP)");
        break;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EPROTO:
    case EACCES: /* of a connected socket: administratively prohibited */
    case EPERM:
        finish(self, PROBE_FAILED, strerror(code));
        break;
    default:
        close_socket(self);
        finish(self, PROBE_UNSENT, strerror(code));
    }
}

/* 0 or an errno value. The socket counts as open only when all of it went well. */
static int open_socket(struct ike_probe *self)
{
    struct sockaddr_storage address;
    socklen_t size = endpoint_to_sockaddr(&self->target.server, &address);
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int code = fd < 0 ? errno : 0;

    if (fd >= 0 && self->target.source.family != 0) {
        struct sockaddr_storage source;
        socklen_t source_size = endpoint_to_sockaddr(&self->target.source, &source);

        if (bind(fd, (const struct sockaddr *)&source, source_size) < 0)
            code = errno;
    }
    if (code == 0 && connect(fd, (const struct sockaddr *)&address, size) < 0)
        code = errno;
    if (code == 0 && (self->poll = calloc(1, sizeof *self->poll)) == NULL)
        code = ENOMEM;
    if (code == 0 && (code = -uv_poll_init(self->loop, self->poll, fd)) != 0) {
        free(self->poll);
        self->poll = NULL;
    }
    if (code != 0) {
        if (fd >= 0)
            close(fd);
        return code;
    }
    self->fd = fd;
    self->poll->data = self;
    uv_poll_start(self->poll, UV_READABLE, on_poll);
    return 0;
}

/* 0 or an errno value. An ICMP error that waits on the socket eats the first try. */
static int send_probe(struct ike_probe *self, bool marked)
{
    uint8_t data[IKE_PROBE_SIZE];
    size_t size = ike_write_probe(data, self->spi, marked);

    for (int attempt = 0; attempt < 2; attempt++)
        if (send(self->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
    return errno;
}

static void on_timeout(uv_timer_t *timer)
{
    finish(timer->data, PROBE_SILENT, "");
}

void ike_probe_send(struct ike_probe *probe, uint64_t timeout_ms)
{
    uint16_t port = probe->target.server.port;
    int code = 0;

    hash_random(probe->spi, sizeof probe->spi);
    probe->spi[0] |= 1; /* an SPI of zero is none */
    probe->under_way = true;
    if (probe->fd < 0)
        code = open_socket(probe);
    if (code == 0 && port != 4500)
        code = send_probe(probe, false);
    if (code == 0 && port != 500)
        code = send_probe(probe, true);
    if (code != 0)
        fail(probe, code);
    else
        uv_timer_start(&probe->timer, on_timeout, timeout_ms, 0);
}

static bool is_answer(const struct ike_probe *self, const uint8_t *data, size_t size)
{
    struct ike_datagram datagram;

    ike_read(&datagram, data, size, self->target.server.port);
    return datagram.kind == IKE_MESSAGE && memcmp(datagram.header.initiator_spi, self->spi, sizeof self->spi) == 0;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct ike_probe *self = poll->data;
    uint8_t data[4096];

    (void)events;
    for (int i = 0; i < READS_A_TURN && self->poll == poll; i++) {
        ssize_t size = recv(self->fd, data, sizeof data, MSG_DONTWAIT);

        if (size >= 0 && self->under_way && is_answer(self, data, (size_t)size))
            finish(self, PROBE_ANSWERED, "");
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (size < 0)
            fail(self, errno);
    }
    if (status < 0 && self->poll == poll)
        uv_poll_start(poll, UV_READABLE, on_poll);
}
