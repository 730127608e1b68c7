/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: who holds STATE/master.lock is the master; SIGTERM to it, and wait until it has gone. It ends its
 * processes first, those that are stopped or hang as well. What a master has left that died is ended here, with the
 * lock in hand, so that no other master takes it over meanwhile.
 * Fails: nobody holds the lock -> such processes alone are there, or nobody at all: status 0
 *        it does not end       -> stopped, or it hangs: killed after STOP_LIMIT_MS, then what it leaves
 * The lock and not the control socket, because the monitor behind that may hang. */
#include "cli/settings.h"
#include "cli/verbs.h"
#include "process/survivors.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#define STOP_LIMIT_MS 8000 /* the master needs 3 s for processes that hang */
#define KILL_LIMIT_MS 2000
#define SURVIVORS_LIMIT_MS 3000

static const struct usage usage = {
    .verb = "stop",
    .operands = "",
    .text = "Ends the running daemon in order, and by force when it does not answer, and waits for that.\n"
            "Records and sessions stay in the state folder: the next start goes on with them. Under\n"
            "systemd use systemctl stop: it would start again what ends by itself.",
    .example = "homeport stop",
    .options = ARGUMENT_CONFIG | ARGUMENT_STATE,
};

/* The pid of the master, 0: there is none. */
static int master_pid(const char *folder, pid_t *pid, struct error *error)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[600];
    int fd, status;

    *pid = 0;
    snprintf(path, sizeof path, "%s/master.lock", folder);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return 0;
    status = fd < 0 || fcntl(fd, F_GETLK, &lock) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    if (status < 0) {
        error_set(error, status, "cannot ask who holds %s: %s", path, strerror(-status));
        return status == -EACCES ? error_next(error, "only root and the daemon's own user may stop it") : status;
    }
    if (lock.l_type == F_UNLCK)
        return 0;
    if (lock.l_pid > 0)
        *pid = lock.l_pid;
    else
        error_set(error, -ESRCH, "who holds %s lives in another container or pid namespace", path);
    return lock.l_pid > 0 ? 0 : error_next(error, "stop it there");
}

static int send_and_wait(int pidfd, pid_t pid, struct error *error)
{
    if (pidfd_send_signal(pidfd, SIGTERM, NULL, 0) < 0 && errno != ESRCH) {
        error_set(error, -errno, "cannot end the master, process %d: %s", (int)pid, strerror(errno));
        return error_next(error, "only root and the daemon's own user may stop it");
    }
    if (pidfd_wait(pidfd, STOP_LIMIT_MS))
        return 0;
    fprintf(stderr, "homeport stop: the master, process %d, does not end: killing it\n", (int)pid);
    pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
    if (pidfd_wait(pidfd, KILL_LIMIT_MS))
        return 0;
    error_set(error, -ETIMEDOUT, "process %d cannot be killed", (int)pid);
    return error_next(error, pid == 1 ? "from inside a container nobody can: docker kill or podman kill it from outside"
                                      : "it waits for the kernel: see its log and the kernel's");
}

/* Of the master that holds the lock: *pidfd -1: there is none. */
static int master_open(const char *folder, int *pidfd, pid_t *pid, struct error *error)
{
    for (;;) {
        pid_t again = 0;
        int status = master_pid(folder, pid, error);

        *pidfd = -1;
        if (status < 0 || *pid == 0)
            return status;
        *pidfd = pidfd_open(*pid, 0);
        if (*pidfd < 0 && errno != ESRCH)
            return error_set(error, -errno, "cannot watch process %d: %s", (int)*pid, strerror(errno));
        /* Asked once more, now that the number cannot come to mean another process. */
        status = *pidfd < 0 ? 0 : master_pid(folder, &again, error);
        if (status == 0 && again == *pid)
            return 0;
        if (*pidfd >= 0)
            close(*pidfd);
        if (status < 0)
            return status;
    }
}

static int stop_master(const char *folder, struct error *error)
{
    pid_t pid;
    int pidfd, status = master_open(folder, &pidfd, &pid, error);

    if (status < 0 || pidfd < 0)
        return status;
    status = send_and_wait(pidfd, pid, error);
    close(pidfd);
    return status;
}

static int stop_survivors(int folder, struct error *error)
{
    struct survivor found[SEGMENT_PROCESSES];
    int count = survivors_find(folder, found, error);

    return count > 0 ? survivors_end(folder, found, count, SURVIVORS_LIMIT_MS, error) : count;
}

/* 1: a new master has come in between. */
static int stop_what_is_left(const char *path, struct error *error)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), status = 0;
    int file = folder >= 0 ? openat(folder, "master.lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;

    if (file >= 0) /* else nothing has ever run here */
        status = fcntl(file, F_SETLK, &lock) == 0 ? stop_survivors(folder, error) : 1;
    else if (errno != ENOENT) {
        status = error_set(error, -errno, "cannot open %s/master.lock: %s", path, strerror(errno));
        error_next(error, "only root and the daemon's own user may stop it");
    }
    if (file >= 0)
        close(file);
    if (folder >= 0)
        close(folder);
    return status;
}

static int stop(const char *folder, struct error *error)
{
    int status;

    do {
        status = stop_master(folder, error);
        if (status == 0)
            status = stop_what_is_left(folder, error);
    } while (status == 1);
    return status;
}

int cli_stop(int argc, char **argv)
{
    struct arguments arguments;
    struct error error = {0};
    char folder[512];
    int status = arguments_read(&arguments, &usage, argc, argv);

    if (status >= 0)
        return status;
    status = settings_state(&arguments, folder, sizeof folder, &error);
    if (status == 0)
        status = stop(folder, &error);
    return status < 0 ? cli_failed(arguments.verb, &error) : 0;
}
