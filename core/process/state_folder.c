/* SPDX-License-Identifier: Apache-2.0 */
/* STATE: 0750 root:GROUP of the configured user. master.lock (POSIX lock: flock and OFD locks live on in forked
 * workers; opened once, because closing any descriptor of the file drops it), segment (0600), control.sock (0660),
 * process-SLOT.sock of each worker and monitor (survivors.h). control.sock has another name until somebody is there who
 * answers on it: a start that fails leaves that of the processes which it would have taken over. */
#include "process/master.h"

#include "process/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONTROL_SOCKET "control.sock"
#define CONTROL_NEW "control.sock.new"

static int check_folder(int folder, const char *path, struct error *error)
{
    struct stat state;

    if (fstat(folder, &state) < 0)
        return error_set(error, -errno, "cannot look at the state folder %s: %s", path, strerror(errno));
    if (state.st_uid != geteuid()) {
        error_set(error, -EPERM, "the state folder %s belongs to user %u, and homeport runs as user %u", path,
                  state.st_uid, geteuid());
        return error_next(error, "remove it, give it to user %u, or name another with `state:`", geteuid());
    }
    if ((state.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        error_set(error, -EPERM, "the state folder %s can be written by others", path);
        return error_next(error, "chmod go-w %s", path);
    }
    return 0;
}

/* Its members may ask over the control socket. Without the capability CHOWN they cannot, and all else works: notices.c
 * says so. */
static int give_to_group(struct master *self, const struct plan *plan, const char *name, struct error *error)
{
    int code = fchownat(self->folder, name, 0, plan->gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;

    if (code == 0 || !sandbox_has_capability(CAP_CHOWN))
        return 0;
    return error_set(error, code, "cannot give %s/%s to group %u: %s", plan->state, name, plan->gid, strerror(-code));
}

static int not_made(const char *path, struct error *error)
{
    int code = -errno;

    error_set(error, code, "cannot make the state folder %s: %s", path, strerror(errno));
    if (code != -EROFS && code != -EACCES && code != -EPERM)
        return error_next(error, "make the folder above it, or name another with `state:`");
    return error_next(error, "name one that user %u can write with `state:` (container: mount one there, -v %s:%s)",
                      geteuid(), path, path);
}

static int open_folder(struct master *self, const struct plan *plan, struct error *error)
{
    const char *path = plan->state;
    bool made = mkdir(path, 0750) == 0;

    if (!made && errno != EEXIST)
        return not_made(path, error);
    self->folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (self->folder < 0) {
        int code = -errno;

        error_set(error, code, "cannot open the state folder %s: %s", path, strerror(errno));
        if (code == -EACCES)
            return error_next(error, "give it to user %u, or name another with `state:`", geteuid());
        return error_next(error, "it must be a folder of its own, not a link");
    }
    if (made && geteuid() == 0) {
        int status = give_to_group(self, plan, "", error);

        if (status < 0)
            return status;
        if (fchmod(self->folder, 0750) < 0)
            return error_set(error, -errno, "cannot open the state folder %s to its group: %s", path, strerror(errno));
    }
    return check_folder(self->folder, path, error);
}

static int lock_failed(const struct plan *plan, struct error *error)
{
    int code = -errno;

    error_set(error, code, "cannot open %s/master.lock: %s", plan->state, strerror(errno));
    if (code == -EROFS)
        return error_next(error, "mount it so that it can be written, or name another with `state:`");
    return error_next(error, "find out who put it there, then remove it");
}

/* 0: the lock is ours. Else whose it is: a pid, or -1 in a pid namespace that we do not see. */
static pid_t lock_holder(int fd)
{
    for (;;) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

        if (fcntl(fd, F_SETLK, &lock) == 0)
            return 0;
        if (fcntl(fd, F_GETLK, &lock) < 0)
            return -1;
        if (lock.l_type != F_UNLCK) /* else it was given back just now */
            return lock.l_pid > 0 ? lock.l_pid : -1;
    }
}

static int lock_folder(struct master *self, const struct plan *plan, struct error *error)
{
    pid_t holder;
    char text[16];

    self->lock = openat(self->folder, "master.lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (self->lock < 0)
        return lock_failed(plan, error);
    holder = lock_holder(self->lock);
    if (holder != 0) {
        if (holder > 0)
            error_set(error, -EBUSY, "another homeport (pid %d) runs on the state folder %s", (int)holder, plan->state);
        else
            error_set(error, -EBUSY, "a homeport of another container runs on the state folder %s", plan->state);
        return error_next(error, "stop it, or name another folder with `state:`");
    }
    snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(self->lock, 0) < 0 || pwrite(self->lock, text, strlen(text), 0) < 0)
        return error_set(error, -errno, "cannot write %s/master.lock: %s", plan->state, strerror(errno));
    return 0;
}

static int open_control(struct master *self, const struct plan *plan, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(self->control_path, sizeof self->control_path, "%s/" CONTROL_SOCKET, plan->state);
    if (strlen(self->control_path) >= sizeof address.sun_path) {
        error_set(error, -ENAMETOOLONG, "the path of the control socket %s is longer than %zu octets",
                  self->control_path, sizeof address.sun_path - 1);
        return error_next(error, "name a shorter folder with `state:`");
    }
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" CONTROL_NEW, self->folder);
    unlinkat(self->folder, CONTROL_NEW, 0); /* ours by the lock */
    self->control = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (self->control < 0 || bind(self->control, (struct sockaddr *)&address, sizeof address) < 0 ||
        fchmodat(self->folder, CONTROL_NEW, 0660, 0) < 0 || listen(self->control, 64) < 0)
        return error_set(error, -errno, "cannot open the control socket %s: %s", self->control_path, strerror(errno));
    return geteuid() == 0 ? give_to_group(self, plan, CONTROL_NEW, error) : 0;
}

int state_folder_announce(struct master *self, struct error *error)
{
    if (self->control_named)
        return 0;
    if (renameat(self->folder, CONTROL_NEW, self->folder, CONTROL_SOCKET) < 0)
        return error_set(error, -errno, "cannot open the control socket %s: %s", self->control_path, strerror(errno));
    self->control_named = true;
    return 0;
}

int state_folder_open(struct master *self, const struct plan *plan, struct error *error)
{
    int status = open_folder(self, plan, error);

    if (status == 0)
        status = lock_folder(self, plan, error);
    return status == 0 ? open_control(self, plan, error) : status;
}

void state_folder_close(struct master *self)
{
    if (self->control >= 0) {
        unlinkat(self->folder, CONTROL_NEW, 0);
        if (self->control_named)
            unlinkat(self->folder, CONTROL_SOCKET, 0);
        close(self->control);
    }
    if (self->lock >= 0)
        close(self->lock); /* the file stays: removing it would race with the next master's lock */
    if (self->folder >= 0)
        close(self->folder);
}
