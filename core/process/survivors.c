/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: the folder is read, each socket in it is connected to, the kernel says who listens there.
 * Fails: nobody listens there any more (ECONNREFUSED) -> that process is dead, its name is removed
 *        it dies between connect and pidfd            -> its connection is at its end: dead as well
 *        anything else                                -> an error: one that may live is not taken for dead
 *        it is stopped or hangs                       -> connected all the same; who waits for its words sets the limit
 * Paths go by /proc/self/fd: the folder's own may be longer than a socket's name can be. */
#include "process/survivors.h"

#include "base/clock.h"
#include "process/channel.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME_BEFORE "process-"
#define NAME_AFTER ".sock"
#define KILL_LIMIT_MS 2000u /* what the kernel may take to end one that is killed */

static void name_of(char name[32], uint32_t slot)
{
    snprintf(name, 32, NAME_BEFORE "%u" NAME_AFTER, slot);
}

static void address_of(struct sockaddr_un *out, int folder, uint32_t slot)
{
    char name[32];

    name_of(name, slot);
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(out->sun_path, sizeof out->sun_path, "/proc/self/fd/%d/%s", folder, name);
}

int survivor_socket(int folder, uint32_t slot, struct error *error)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    survivor_forget(folder, slot); /* that of a dead one */
    address_of(&address, folder, slot);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    error_set(error, -errno, "cannot make the socket " NAME_BEFORE "%u" NAME_AFTER " in the state folder: %s", slot,
              strerror(errno));
    if (fd >= 0)
        close(fd);
    return error->code;
}

void survivor_forget(int folder, uint32_t slot)
{
    char name[32];

    name_of(name, slot);
    (void)unlinkat(folder, name, 0);
}

/* The slot of process-SLOT.sock; SEGMENT_NO_INDEX: another file. Slot 0 is the master's own. */
static uint32_t slot_of(const char *file)
{
    char name[32];
    uint32_t slot;

    if (strncmp(file, NAME_BEFORE, sizeof NAME_BEFORE - 1) != 0)
        return SEGMENT_NO_INDEX;
    slot = (uint32_t)strtoul(file + sizeof NAME_BEFORE - 1, NULL, 10);
    if (slot == 0 || slot >= SEGMENT_PROCESSES)
        return SEGMENT_NO_INDEX;
    name_of(name, slot);
    return strcmp(name, file) == 0 ? slot : SEGMENT_NO_INDEX;
}

static bool has_hung_up(int connection)
{
    struct pollfd item = {.fd = connection, .events = 0};

    return poll(&item, 1, 0) > 0 && (item.revents & (POLLHUP | POLLERR)) != 0;
}

void survivor_let_go(struct survivor *survivor)
{
    if (survivor->connection >= 0)
        close(survivor->connection);
    if (survivor->pidfd >= 0)
        close(survivor->pidfd);
    survivor->connection = survivor->pidfd = -1;
}

static int not_known(uint32_t slot, int code, struct error *error)
{
    return error_set(error, code, "cannot tell whether the process of " NAME_BEFORE "%u" NAME_AFTER " lives: %s", slot,
                     strerror(-code));
}

/* 1: it lives, 0: it is dead. Negative: neither is certain, error is set. */
static int survivor_connect(struct survivor *out, int folder, uint32_t slot, struct error *error)
{
    struct sockaddr_un address;
    struct ucred peer;
    socklen_t size = sizeof peer;
    int code = 0;

    *out = (struct survivor){.slot = slot, .pidfd = -1};
    address_of(&address, folder, slot);
    out->connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (out->connection < 0 || connect(out->connection, (struct sockaddr *)&address, sizeof address) < 0) {
        code = errno == ECONNREFUSED || errno == ENOENT ? 0 : not_known(slot, -errno, error);
    } else if (getsockopt(out->connection, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.pid <= 0) {
        code = not_known(slot, -ESRCH, error); /* in another pid namespace */
    } else {
        out->pid = peer.pid; /* of the process that has called listen */
        out->pidfd = pidfd_open(peer.pid, 0);
        if (out->pidfd < 0 && errno != ESRCH)
            code = not_known(slot, -errno, error);
        else if (out->pidfd >= 0 && !has_hung_up(out->connection))
            return 1;
    }
    survivor_let_go(out);
    return code;
}

static int find_all(DIR *files, int folder, struct survivor found[SEGMENT_PROCESSES], struct error *error)
{
    const struct dirent *file;
    int count = 0;

    while ((file = readdir(files)) != NULL && count < (int)SEGMENT_PROCESSES) {
        uint32_t slot = slot_of(file->d_name);
        int lives = slot != SEGMENT_NO_INDEX ? survivor_connect(&found[count], folder, slot, error) : 0;

        if (lives < 0) {
            while (count > 0)
                survivor_let_go(&found[--count]);
            return lives;
        }
        count += lives;
        if (lives == 0 && slot != SEGMENT_NO_INDEX)
            survivor_forget(folder, slot);
    }
    return count;
}

int survivors_find(int folder, struct survivor found[SEGMENT_PROCESSES], struct error *error)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), count;
    DIR *files = copy >= 0 ? fdopendir(copy) : NULL;

    if (files == NULL) {
        error_set(error, -errno, "cannot read the state folder: %s", strerror(errno));
        if (copy >= 0)
            close(copy);
        return error->code;
    }
    count = find_all(files, folder, found, error);
    closedir(files);
    return count;
}

bool pidfd_wait(int pidfd, uint64_t limit_ms)
{
    uint64_t deadline_ms = clock_now_ms() + limit_ms;
    struct pollfd item = {.fd = pidfd, .events = POLLIN};

    for (;;) {
        uint64_t now_ms = clock_now_ms();

        if (poll(&item, 1, now_ms < deadline_ms ? (int)(deadline_ms - now_ms) : 0) > 0)
            return true;
        if (now_ms >= deadline_ms)
            return false;
    }
}

static uint64_t left_of(uint64_t deadline_ms)
{
    uint64_t now_ms = clock_now_ms();

    return now_ms < deadline_ms ? deadline_ms - now_ms : 0;
}

int survivors_end(int folder, struct survivor *found, int count, int limit_ms, struct error *error)
{
    const struct message stop = {.kind = MESSAGE_STOP};
    uint64_t deadline_ms = clock_now_ms() + (uint64_t)limit_ms;
    int status = 0;

    for (int i = 0; i < count; i++)
        if (found[i].connection >= 0)
            (void)send(found[i].connection, &stop, sizeof stop, MSG_DONTWAIT | MSG_NOSIGNAL);
    for (int i = 0; i < count; i++)
        if (!pidfd_wait(found[i].pidfd, left_of(deadline_ms)))
            (void)pidfd_send_signal(found[i].pidfd, SIGKILL, NULL, 0);
    deadline_ms = clock_now_ms() + KILL_LIMIT_MS;
    for (int i = 0; i < count; i++) {
        if (pidfd_wait(found[i].pidfd, left_of(deadline_ms))) {
            survivor_forget(folder, found[i].slot);
        } else {
            status = error_set(error, -ETIMEDOUT, "process %d of the last master cannot be ended", (int)found[i].pid);
            error_next(error, "end it by hand: kill -9 %d (a root without the capability KILL may not)",
                       (int)found[i].pid);
        }
        survivor_let_go(&found[i]);
    }
    return status;
}
