/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/socket_message.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define MAGIC 0x656e616cu /* "lane" */
#define HEAD offsetof(struct socket_message, rows)

union control {
    struct cmsghdr align;
    uint8_t space[CMSG_SPACE(SOCKET_MESSAGE_ROWS * sizeof(int))];
};

static int send_whole(int fd, const struct msghdr *header)
{
    while (sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

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
    return send_whole(fd, &header);
}

int socket_message_send_rest(int fd, struct socket_message *message, const uint8_t *data, uint32_t size)
{
    struct iovec iov[] = {{.iov_base = message, .iov_len = sizeof *message},
                          {.iov_base = (void *)(uintptr_t)data, .iov_len = size}};
    struct msghdr header = {.msg_iov = iov, .msg_iovlen = 2};

    message->magic = MAGIC;
    message->kind = SOCKET_MESSAGE_REST;
    return send_whole(fd, &header);
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

/* Octets stand behind a whole message. */
static bool is_valid(const struct socket_message *message, size_t size)
{
    if (size < HEAD || message->magic != MAGIC || message->count > SOCKET_MESSAGE_ROWS)
        return false;
    if (message->kind == SOCKET_MESSAGE_REST)
        return size >= sizeof *message;
    return message->kind < SOCKET_MESSAGE_REST && size == HEAD + message->count * sizeof message->rows[0];
}

static int receive(int fd, struct socket_message *message, int *descriptors, uint32_t *count, struct iovec *rest,
                   bool wait)
{
    union control control;
    struct iovec iov[] = {{.iov_base = message, .iov_len = sizeof *message}, *rest};
    struct msghdr header = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size;

    /* Reset: once, by an end that has gone and had not read all; what it had sent comes behind. */
    do
        size = recvmsg(fd, &header, (wait ? 0 : MSG_DONTWAIT) | MSG_CMSG_CLOEXEC);
    while (size < 0 && (errno == EINTR || errno == ECONNRESET));
    rest->iov_len = 0;
    *count = 0;
    if (size < 0)
        return errno == EAGAIN ? -EAGAIN : -EPIPE;
    if (size == 0)
        return -EPIPE;
    *count = descriptors_read(&header, descriptors);
    if ((header.msg_flags & MSG_TRUNC) != 0 || !is_valid(message, (size_t)size))
        return -EBADMSG;
    if (message->kind == SOCKET_MESSAGE_REST)
        rest->iov_len = (size_t)size - sizeof *message;
    return 0;
}

int socket_message_receive(int fd, struct socket_message *message, int descriptors[SOCKET_MESSAGE_ROWS],
                           uint32_t *count, bool wait)
{
    struct iovec none = {0};

    return receive(fd, message, descriptors, count, &none, wait);
}

int socket_message_receive_rest(int fd, struct socket_message *message, int descriptors[SOCKET_MESSAGE_ROWS],
                                uint32_t *count, uint8_t *data, uint32_t *size)
{
    struct iovec rest = {.iov_base = data, .iov_len = *size};
    int status = receive(fd, message, descriptors, count, &rest, false);

    *size = (uint32_t)rest.iov_len;
    return status;
}
