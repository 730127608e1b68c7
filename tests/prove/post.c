/* SPDX-License-Identifier: Apache-2.0 */
#include "post.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define QUEUE (128 << 20) /* octets of buffer: what we drop ourselves makes a run void */

uint64_t clock_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void set_option(int fd, int level, int name, int value, const char *what)
{
    if (setsockopt(fd, level, name, &value, sizeof value) < 0)
        err(1, "%s", what);
}

struct post *post_open(uint32_t address, uint16_t port)
{
    struct post *self = calloc(1, sizeof *self);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};

    if (self == NULL)
        err(1, "calloc");
    self->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (self->fd < 0)
        err(1, "socket");
    set_option(self->fd, SOL_SOCKET, SO_RCVBUFFORCE, QUEUE, "SO_RCVBUFFORCE (needs root)");
    set_option(self->fd, SOL_SOCKET, SO_SNDBUFFORCE, QUEUE, "SO_SNDBUFFORCE (needs root)");
    set_option(self->fd, SOL_SOCKET, SO_RXQ_OVFL, 1, "SO_RXQ_OVFL");
    set_option(self->fd, SOL_SOCKET, SO_TIMESTAMPNS, 1, "SO_TIMESTAMPNS");
    set_option(self->fd, IPPROTO_IP, IP_PKTINFO, 1, "IP_PKTINFO");
    if (bind(self->fd, (struct sockaddr *)&own, sizeof own) < 0)
        err(1, "cannot bind %s:%u", inet_ntoa(own.sin_addr), port);
    return self;
}

static void prepare(struct post *self, uint32_t i, uint32_t size)
{
    self->vectors[i] = (struct iovec){self->slots[i].data, size};
    self->messages[i].msg_hdr = (struct msghdr){.msg_name = &self->slots[i].peer,
                                                .msg_namelen = sizeof self->slots[i].peer,
                                                .msg_iov = &self->vectors[i],
                                                .msg_iovlen = 1,
                                                .msg_control = self->control[i],
                                                .msg_controllen = sizeof self->control[i]};
}

static void read_control(struct post *self, uint32_t i, uint32_t *drops)
{
    struct msghdr *header = &self->messages[i].msg_hdr;

    for (struct cmsghdr *one = CMSG_FIRSTHDR(header); one != NULL; one = CMSG_NXTHDR(header, one)) {
        if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SO_RXQ_OVFL) {
            memcpy(drops, CMSG_DATA(one), sizeof *drops);
        } else if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec time;
            memcpy(&time, CMSG_DATA(one), sizeof time);
            self->slots[i].time_ns = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
        } else if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(one), sizeof info);
            self->slots[i].own = ntohl(info.ipi_addr.s_addr);
        }
    }
}

uint32_t post_receive(struct post *self, uint32_t *dropped)
{
    uint32_t drops = self->drops;
    int count;

    for (uint32_t i = 0; i < POST_VECTOR; i++)
        prepare(self, i, WIRE_SIZE);
    count = recvmmsg(self->fd, self->messages, POST_VECTOR, MSG_DONTWAIT, NULL);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED)
            err(1, "recvmmsg");
        count = 0;
    }
    for (uint32_t i = 0; i < (uint32_t)count; i++) {
        self->slots[i].size = self->messages[i].msg_len;
        read_control(self, i, &drops);
    }
    *dropped = drops - self->drops;
    self->drops = drops;
    self->count = (uint32_t)count;
    return self->count;
}

static void address_from(struct post *self, uint32_t i)
{
    struct msghdr *header = &self->messages[i].msg_hdr;
    struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(self->slots[i].own)};
    struct cmsghdr *one = CMSG_FIRSTHDR(header);

    one->cmsg_level = IPPROTO_IP;
    one->cmsg_type = IP_PKTINFO;
    one->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(one), &info, sizeof info);
    header->msg_controllen = CMSG_SPACE(sizeof info);
}

uint32_t post_send(struct post *self)
{
    uint32_t at = 0, taken = 0;

    for (uint32_t i = 0; i < self->count; i++) {
        prepare(self, i, self->slots[i].size);
        address_from(self, i);
    }
    while (at < self->count) {
        int sent = sendmmsg(self->fd, self->messages + at, self->count - at, 0);
        if (sent <= 0) {
            at++; /* the kernel's word on this one; the next may go */
            continue;
        }
        at += (uint32_t)sent;
        taken += (uint32_t)sent;
    }
    self->count = 0;
    return taken;
}
