/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/socket_message.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#define MAGIC 0x656e616cu /* "lane" */
#define HEAD offsetof(struct socket_message, rows)

union control {
    struct cmsghdr align;
    uint8_t space[CMSG_SPACE(SOCKET_MESSAGE_ROWS * sizeof(int))];
};

int socket_message_send(int fd, struct socket_message *message, const int *descriptors, uint32_t count)
{
    union control control = {0};
    size_t size = count * sizeof *descriptors;
    struct iovec iov = {.iov_base = message, .iov_len = HEAD + message->count * sizeof message->rows[0]};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    message->magic = MAGIC;
    if (count > 0) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(rights), descriptors, size);
    }
    while (sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

static uint32_t descriptors_read(struct msghdr *header, int *descriptors)
{
    uint32_t count = 0;

    for (struct cmsghdr *rights = CMSG_FIRSTHDR(header); rights != NULL; rights = CMSG_NXTHDR(header, rights)) {
        if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
            continue;
        count = (uint32_t)((rights->cmsg_len - CMSG_LEN(0)) / sizeof *descriptors);
        memcpy(descriptors, CMSG_DATA(rights), count * sizeof *descriptors);
    }
    return count;
}

static bool is_valid(const struct socket_message *message, size_t size)
{
    return size >= HEAD && message->magic == MAGIC && message->count <= SOCKET_MESSAGE_ROWS &&
           message->kind <= SOCKET_MESSAGE_ASK && size == HEAD + message->count * sizeof message->rows[0];
}

int socket_message_receive(int fd, struct socket_message *message, int descriptors[SOCKET_MESSAGE_ROWS],
                           uint32_t *count, bool wait)
{
    union control control;
    struct iovec iov = {.iov_base = message, .iov_len = sizeof *message};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size;

    do
        size = recvmsg(fd, &header, (wait ? 0 : MSG_DONTWAIT) | MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    *count = 0;
    if (size < 0)
        return errno == EAGAIN ? -EAGAIN : -EPIPE;
    if (size == 0)
        return -EPIPE;
    *count = descriptors_read(&header, descriptors);
    return is_valid(message, (size_t)size) ? 0 : -EBADMSG;
}
