/* SPDX-License-Identifier: Apache-2.0 */
#include "responder.h"

#include "base/endpoint.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int udp_socket(uint8_t last, uint16_t *port)
{
    struct hp_endpoint here = {.address = {127, 0, 0, last}, .port = *port, .family = 4};
    struct sockaddr_storage address;
    socklen_t size = endpoint_to_sockaddr(&here, &address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&address, size) < 0) {
        close(fd);
        return -1;
    }
    size = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &size);
    endpoint_from_sockaddr(&here, (struct sockaddr *)&address, size);
    *port = here.port;
    return fd;
}

/* Our answer is the request with the response flag: the right shape is all that counts. */
static size_t spoil(uint8_t *data, size_t size, enum manner manner)
{
    uint8_t *header = memcmp(data, "\0\0\0\0", 4) == 0 ? data + 4 : data;

    header[19] = 0x20;
    switch (manner) {
    case MANNER_GARBAGE:
        memset(data, 0xa5, size);
        break;
    case MANNER_WRONG_SPI:
        header[3] ^= 0x40;
        break;
    case MANNER_IKEV1:
        header[17] = 0x10;
        break;
    case MANNER_ANSWER:
    case MANNER_SILENT:
    case MANNER_STRANGER:
        break;
    }
    return size;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct responder *self = poll->data;
    struct sockaddr_storage from;
    socklen_t from_size = sizeof from;
    uint8_t data[2048];
    ssize_t size = recvfrom(self->fd, data, sizeof data, 0, (struct sockaddr *)&from, &from_size);

    (void)status;
    (void)events;
    if (size < 28)
        return;
    if (memcmp(data, "\0\0\0\0", 4) == 0)
        self->marked++;
    else
        self->plain++;
    endpoint_from_sockaddr(&self->peer, (struct sockaddr *)&from, from_size);
    if (self->manner == MANNER_SILENT)
        return;
    size = (ssize_t)spoil(data, (size_t)size, self->manner);
    sendto(self->manner == MANNER_STRANGER ? self->stranger : self->fd, data, (size_t)size, 0, (struct sockaddr *)&from,
           from_size);
}

uint16_t responder_open(struct responder *responder, uv_loop_t *loop, uint8_t last, uint16_t port, enum manner manner)
{
    uint16_t any = 0;

    memset(responder, 0, sizeof *responder);
    responder->manner = manner;
    responder->fd = udp_socket(last, &port);
    if (responder->fd < 0)
        return 0;
    responder->stranger = udp_socket((uint8_t)(last + 100), &any);
    uv_poll_init(loop, &responder->poll, responder->fd);
    responder->poll.data = responder;
    uv_poll_start(&responder->poll, UV_READABLE, on_readable);
    return port;
}

static void on_closed(uv_handle_t *handle)
{
    ((struct responder *)handle->data)->closed = true;
}

void responder_close(struct responder *responder, uv_loop_t *loop)
{
    uv_close((uv_handle_t *)&responder->poll, on_closed);
    close(responder->fd);
    close(responder->stranger);
    while (!responder->closed)
        uv_run(loop, UV_RUN_NOWAIT);
}

uint16_t responder_closed_port(uint8_t last)
{
    uint16_t port = 0;
    int fd = udp_socket(last, &port);

    close(fd);
    return port;
}
