/* SPDX-License-Identifier: Apache-2.0 */
/* From which length on a run of datagrams is better sent with UDP_SEGMENT: the number behind RUN_LEAST of
 * core/relay/run.c. Both ways are one system call (sendmmsg), in turns; what is counted is this process's time. */
#include "traffic.h"

#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LONGEST 32u

struct runs {
    int fd;
    uint32_t size, length;
    uint8_t data[2048];
    struct iovec vectors[LONGEST];
    struct mmsghdr headers[LONGEST];
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(uint16_t))];
};

static double spent(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void prepare(struct runs *self, bool segments)
{
    struct cmsghdr *message = (struct cmsghdr *)(void *)self->control;
    uint16_t size = (uint16_t)self->size;

    memset(self->headers, 0, sizeof self->headers);
    for (uint32_t i = 0; i < self->length; i++) {
        self->vectors[i] = (struct iovec){.iov_base = self->data, .iov_len = self->size};
        self->headers[i].msg_hdr = (struct msghdr){.msg_iov = &self->vectors[i], .msg_iovlen = 1};
    }
    if (!segments)
        return;
    *message = (struct cmsghdr){.cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(sizeof size)};
    memcpy(CMSG_DATA(message), &size, sizeof size);
    self->headers[0].msg_hdr.msg_iovlen = self->length;
    self->headers[0].msg_hdr.msg_control = self->length > 1 ? self->control : NULL;
    self->headers[0].msg_hdr.msg_controllen = self->length > 1 ? sizeof self->control : 0;
}

/* Nanoseconds a datagram. */
static double cost(struct runs *self, bool segments)
{
    uint32_t calls = 256 / self->length;
    double begin;

    prepare(self, segments);
    begin = spent();
    for (uint32_t i = 0; i < calls; i++)
        if (sendmmsg(self->fd, self->headers, segments ? 1 : self->length, 0) < 0)
            err(1, "sendmmsg");
    return (spent() - begin) * 1e9 / (calls * self->length);
}

/* Of one datagram without a header for it. */
static double cost_plainly(struct runs *self)
{
    double begin = spent();

    for (uint32_t i = 0; i < 256; i++)
        if (send(self->fd, self->data, self->size, 0) < 0)
            err(1, "send");
    return (spent() - begin) * 1e9 / 256;
}

int role_runs(const struct role_options *options)
{
    struct runs *self = traffic_zeroed(1, sizeof *self);
    struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_port = htons(options->port), .sin_addr.s_addr = htonl(options->to)};
    double end = traffic_now() + options->seconds;
    const uint32_t lengths[] = {1, 2, 3, 4, 8, 16, 32};
    double sums[sizeof lengths / sizeof lengths[0]][2] = {{0}};
    double plainly = 0;
    uint32_t rounds = 0;

    self->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    self->size = options->size;
    if (self->fd < 0 || connect(self->fd, (struct sockaddr *)&name, sizeof name) < 0)
        err(1, "socket");
    for (; traffic_now() < end; rounds++) {
        for (uint32_t i = 0; i < 2 * sizeof lengths / sizeof lengths[0]; i++) {
            self->length = lengths[i / 2];
            sums[i / 2][i % 2] += cost(self, i % 2 == 1);
        }
        plainly += cost_plainly(self);
    }
    printf("{\"warm\": true}\n{");
    for (uint32_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        printf("%s\"%u\": [%.0f, %.0f]", i == 0 ? "" : ", ", lengths[i], sums[i][0] / rounds, sums[i][1] / rounds);
    printf(", \"plainly\": %.0f}\n", plainly / rounds);
    close(self->fd);
    return 0;
}
