/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/batch.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>

/* The kernel writes over the lengths of what it filled. */
static void batch_preset(struct batch *batch, uint32_t slot)
{
    struct msghdr *header = &batch->headers[slot].msg_hdr;

    header->msg_namelen = sizeof batch->names[slot];
    header->msg_controllen = sizeof batch->control[slot];
    header->msg_flags = 0;
}

int batch_open(struct batch *batch, struct error *error)
{
    size_t size = (size_t)BATCH_SLOTS * BATCH_STRIDE;
    void *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (area == MAP_FAILED)
        return error_set(error, -errno, "no memory for a vector of datagrams: %s", strerror(errno));
    memset(batch, 0, sizeof *batch);
    batch->area = area;
    for (uint32_t slot = 0; slot < BATCH_SLOTS; slot++) {
        batch->iov[slot] = (struct iovec){.iov_base = batch->area + (size_t)slot * BATCH_STRIDE, .iov_len = BATCH_SIZE};
        batch->headers[slot].msg_hdr = (struct msghdr){.msg_name = &batch->names[slot],
                                                       .msg_iov = &batch->iov[slot],
                                                       .msg_iovlen = 1,
                                                       .msg_control = batch->control[slot]};
        batch_preset(batch, slot);
    }
    return 0;
}

void batch_close(struct batch *batch)
{
    if (batch->area != NULL)
        munmap(batch->area, (size_t)BATCH_SLOTS * BATCH_STRIDE);
    batch->area = NULL;
}

int batch_receive(struct batch *batch, int fd, uint32_t limit)
{
    uint32_t room = BATCH_SLOTS - batch->used;
    int count;

    do
        count = recvmmsg(fd, batch->headers + batch->used, room < limit ? room : limit, MSG_DONTWAIT, NULL);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return -errno;
    batch->used += (uint32_t)count;
    return count;
}

void batch_reset(struct batch *batch)
{
    for (uint32_t slot = 0; slot < batch->used; slot++)
        batch_preset(batch, slot);
    batch->used = 0;
}

int batch_ask_marks(int fd, uint32_t family)
{
    int on = 1;

    if (family == 4)
        return setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof on) < 0 ? -errno : 0;
    return setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on) < 0 ? -errno : 0;
}

bool batch_mark(const struct cmsghdr *message, uint8_t *mark)
{
    int number;

    if (message->cmsg_level == IPPROTO_IP && message->cmsg_type == IP_TOS) {
        *mark = *CMSG_DATA(message);
        return true;
    }
    if (message->cmsg_level != IPPROTO_IPV6 || message->cmsg_type != IPV6_TCLASS)
        return false;
    memcpy(&number, CMSG_DATA(message), sizeof number);
    *mark = (uint8_t)number;
    return true;
}

uint8_t batch_mark_of(struct batch *batch, uint32_t slot)
{
    struct msghdr *header = &batch->headers[slot].msg_hdr;
    uint8_t mark = 0;

    for (struct cmsghdr *message = CMSG_FIRSTHDR(header); message != NULL; message = CMSG_NXTHDR(header, message))
        if (batch_mark(message, &mark))
            break;
    return mark;
}
