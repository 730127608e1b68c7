/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/batch.h"

#include <errno.h>
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

int batch_receive(struct batch *batch, int fd)
{
    int count;

    do
        count = recvmmsg(fd, batch->headers + batch->used, BATCH_SLOTS - batch->used, MSG_DONTWAIT, NULL);
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
