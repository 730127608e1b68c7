/* SPDX-License-Identifier: Apache-2.0 */
#include "process/next_master.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct next_master {
    uv_poll_t poll;
    int fd;
    uid_t uid;
    void (*came)(void *arg, int connection);
    void *arg;
};

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct next_master *self = poll->data;
    struct ucred peer;
    socklen_t size = sizeof peer;
    int connection = accept4(self->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)status;
    (void)events;
    if (connection < 0)
        return;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || (peer.uid != 0 && peer.uid != self->uid))
        close(connection);
    else
        self->came(self->arg, connection);
}

int next_master_open(struct next_master **out, uv_loop_t *loop, int fd, uid_t uid,
                     void (*came)(void *arg, int connection), void *arg, struct error *error)
{
    struct next_master *self = calloc(1, sizeof *self);
    int status;

    if (self == NULL) {
        close(fd);
        return error_set(error, -ENOMEM, "no memory for the socket of the next master");
    }
    *self = (struct next_master){.fd = fd, .uid = uid, .came = came, .arg = arg};
    self->poll.data = self;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC); /* what a plugin starts must not keep it */
    /* Here and not where it was bound: the kernel names to who connects the process that has called listen. */
    status = listen(fd, 4) < 0 ? -errno : uv_poll_init(loop, &self->poll, fd);
    if (status < 0) {
        free(self);
        close(fd);
        return error_set(error, status, "cannot listen for the next master: %s", strerror(-status));
    }
    uv_poll_start(&self->poll, UV_READABLE, on_connection);
    *out = self;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct next_master *self = handle->data;

    close(self->fd);
    free(self);
}

void next_master_close(struct next_master *self)
{
    if (self != NULL)
        uv_close((uv_handle_t *)&self->poll, on_closed);
}
