/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: a socket is opened, bound to the source where one is written, and connected, so that the kernel drops
 * what comes from anybody else and hands us ICMP errors. A probe with a new random SPI goes out: plain towards port
 * 500, marked towards 4500, both elsewhere. The first IKEv2 message with that SPI is the answer.
 *
 * Fails: nothing comes            -> SILENT when the time is over; an answer after that bears an old SPI and is ignored
 *        garbage, another SPI     -> ignored, the wait goes on
 *        ICMP port unreachable    -> REFUSED at once. libuv stops a watcher on POLLERR: it is started again
 *        no route to the server   -> FAILED at once
 *        no socket, source address not on this machine -> UNSENT at once; the next probe tries to open it again */
#include "monitor/health/ike_probe.h"

#include "base/hash.h"
#include "ike/ike.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define READS_A_TURN 16 /* a server that floods us must not hold the loop */

struct ike_probe {
    struct probe base; /* its socket stays open from one probe to the next */
    uint8_t spi[8];
    bool under_way;
};

static void on_poll(uv_poll_t *poll, int status, int events);

struct ike_probe *ike_probe_open(uv_loop_t *loop, const struct probe_target *target, const struct probe_events *events)
{
    struct ike_probe *self = calloc(1, sizeof *self);

    if (self != NULL)
        probe_init(&self->base, loop, target, events);
    return self;
}

void ike_probe_close(struct ike_probe *probe, void (*closed)(void *arg), void *arg)
{
    probe->under_way = false;
    probe_close(&probe->base, closed, arg);
}

static void finish(struct ike_probe *self, enum probe_result result, const char *why)
{
    self->under_way = false;
    uv_timer_stop(&self->base.timer);
    self->base.events.result(self->base.events.arg, result, why);
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
        probe_close_socket(&self->base);
        finish(self, PROBE_UNSENT, strerror(code));
    }
}

/* 0 or an errno value. The socket counts as open only when all of it went well. */
static int open_socket(struct probe *probe)
{
    struct sockaddr_storage server, source;
    socklen_t size = endpoint_to_sockaddr(&probe->target.server, &server), source_size;
    int code = 0;

    probe->fd = socket(server.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe->fd < 0)
        return errno;
    source_size = probe->target.source.family != 0 ? endpoint_to_sockaddr(&probe->target.source, &source) : 0;
    if ((source_size > 0 && bind(probe->fd, (const struct sockaddr *)&source, source_size) < 0) ||
        connect(probe->fd, (const struct sockaddr *)&server, size) < 0)
        code = errno;
    if (code == 0)
        code = probe_watch(probe, UV_READABLE, on_poll);
    if (code != 0)
        probe_close_socket(probe);
    return code;
}

/* 0 or an errno value. An ICMP error that waits on the socket eats the first try. */
static int send_probe(struct ike_probe *self, bool marked)
{
    uint8_t data[IKE_PROBE_SIZE];
    size_t size = ike_write_probe(data, self->spi, marked);

    for (int attempt = 0; attempt < 2; attempt++)
        if (send(self->base.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
    return errno;
}

static void on_timeout(uv_timer_t *timer)
{
    finish(timer->data, PROBE_SILENT, "");
}

void ike_probe_send(struct ike_probe *probe, uint64_t timeout_ms)
{
    uint16_t port = probe->base.target.server.port;
    int code = 0;

    hash_random(probe->spi, sizeof probe->spi);
    probe->spi[0] |= 1; /* an SPI of zero is none */
    probe->under_way = true;
    if (probe->base.fd < 0)
        code = open_socket(&probe->base);
    if (code == 0 && port != 4500)
        code = send_probe(probe, false);
    if (code == 0 && port != 500)
        code = send_probe(probe, true);
    if (code != 0)
        fail(probe, code);
    else
        uv_timer_start(&probe->base.timer, on_timeout, timeout_ms, 0);
}

static bool is_answer(const struct ike_probe *self, const uint8_t *data, size_t size)
{
    struct ike_datagram datagram;

    ike_read(&datagram, data, size, self->base.target.server.port);
    return datagram.kind == IKE_MESSAGE && memcmp(datagram.header.initiator_spi, self->spi, sizeof self->spi) == 0;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct ike_probe *self = poll->data; /* base is its first member */
    uint8_t data[4096];

    (void)events;
    for (int i = 0; i < READS_A_TURN && self->base.poll == poll; i++) {
        ssize_t size = recv(self->base.fd, data, sizeof data, MSG_DONTWAIT);

        if (size >= 0 && self->under_way && is_answer(self, data, (size_t)size))
            finish(self, PROBE_ANSWERED, "");
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (size < 0)
            fail(self, errno);
    }
    if (status < 0 && self->base.poll == poll)
        uv_poll_start(poll, UV_READABLE, on_poll);
}
