/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: it sleeps until its worker has died; lets go of all descriptors but the sessions' sockets (others wait
 * for the end of the worker's connections); the master asks for each lane; each lane's sockets leave, then DONE; the
 * channel comes to its end, and so does the keeper. Which row has which descriptor stands in memory that both see:
 * written after opening, cleared before closing, so that a worker which dies in between leaves a socket too few, never
 * one too many. It shares all memory with its worker (CLONE_VM): to copy a worker's page tables would take a start
 * twice as long.
 *
 * Fails: the worker ends in an orderly way -> it ends its keeper first
 *        the keeper dies, or both (the
 *        kernel is out of memory)          -> the worker's sockets are closed, and opened again by its successor
 *        the master dies, or has told the
 *        worker to stop                    -> the channel's end: it ends
 *        the taker dies                    -> that lane's sockets are closed
 *        too many descriptors on their way -> a look each millisecond
 * The taker believes nothing: it looks at each socket (upstream_leads_to, upstream_comes_from). */
#include "relay/keeper.h"

#include "relay/socket_message.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_NS 1000000 /* while too many descriptors are on their way */
#define STACK (64u << 10)
#define DESCRIPTORS_MAX (1 << 20)

struct keeper {
    const struct segment *segment;
    int channel;
    int pidfd; /* the worker's */
    pid_t pid;
    uint8_t *stack; /* the keeper's */
    uint8_t *kept;  /* by descriptor below limit: 1: not to be closed */
    int limit;
    _Atomic int *sockets; /* by row of the segment, behind them the lanes' epoll instances: descriptor + 1; 0: none */
    uint32_t rows;
};

void keeper_note(struct keeper *keeper, const struct session_row *row, int fd)
{
    if (keeper != NULL)
        atomic_store_explicit(&keeper->sockets[row - keeper->segment->rows], fd + 1, memory_order_relaxed);
}

void keeper_note_epoll(struct keeper *keeper, uint32_t lane, int fd)
{
    if (keeper != NULL)
        atomic_store_explicit(&keeper->sockets[keeper->rows + lane], fd + 1, memory_order_relaxed);
}

int keeper_ask(int keeper, uint32_t lane, int fd)
{
    struct socket_message message = {.kind = SOCKET_MESSAGE_ASK, .lane = lane};

    return socket_message_send(keeper, &message, &fd, 1);
}

void keeper_channel(int keeper)
{
    int on = 1;

    (void)setsockopt(keeper, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
}

static pid_t sender_pid(int keeper)
{
    union {
        struct cmsghdr align;
        char octets[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct socket_message message;
    struct iovec iov = {.iov_base = &message, .iov_len = sizeof message};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct ucred sender = {0};

    if (recvmsg(keeper, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
        return 0;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(&header); item != NULL; item = CMSG_NXTHDR(&header, item))
        if (item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_CREDENTIALS)
            memcpy(&sender, CMSG_DATA(item), sizeof sender);
    return sender.pid;
}

int keeper_process(int keeper, pid_t worker, pid_t *pid)
{
    int off = 0;

    *pid = sender_pid(keeper);
    if (*pid <= 0)
        return -1;
    /* Once is enough, and with it the kernel would give the socket a name when we ask. */
    (void)setsockopt(keeper, SOL_SOCKET, SO_PASSCRED, &off, sizeof off);
    return *pid == worker ? -1 : pidfd_open(*pid, 0);
}

/* ---- the keeper itself ----
 * It has the worker's memory, which was left in whatever state the worker died in: it allocates nothing, logs nothing,
 * and calls nothing but the kernel. */

static int socket_of(const struct keeper *self, uint32_t row)
{
    return atomic_load_explicit(&self->sockets[row], memory_order_relaxed) - 1;
}

/* What its worker needs for `source: transparent` is nothing to a keeper. */
static void capabilities_drop(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

    (void)syscall(SYS_capset, &header, none); /* fewer is always granted, so errno stays */
}

/* false: the master has gone, or dismisses the worker; nobody will ask. A poll without signals (all are blocked) goes
 * on after SIGSTOP and SIGCONT too, and never touches errno: that word is the worker's, too. */
static bool await_death(const struct keeper *self)
{
    struct pollfd items[2] = {{.fd = self->pidfd, .events = POLLIN}, {.fd = self->channel, .events = 0}};
    struct socket_message here = {.kind = SOCKET_MESSAGE_DONE};

    (void)socket_message_send(self->channel, &here, NULL,
                              0); /* for keeper_process; fails when the master is dead alone */
    (void)prctl(PR_SET_NAME, "homeport-keeper");
    while (poll(items, 2, -1) <= 0)
        ;
    return items[0].revents != 0;
}

/* Whoever is at the other end of the worker's connections waits for their end. */
static void close_others(const struct keeper *self)
{
    unsigned next = 0;

    for (uint32_t row = 0; row < self->rows + self->segment->lane_count; row++)
        if (socket_of(self, row) >= 0 && socket_of(self, row) < self->limit)
            self->kept[socket_of(self, row)] = 1;
    self->kept[self->channel] = 1;
    for (int fd = 0; fd < self->limit; fd++) {
        if (self->kept[fd] == 0)
            continue;
        if ((unsigned)fd > next)
            (void)close_range(next, (unsigned)fd - 1, 0);
        next = (unsigned)fd + 1;
    }
    (void)close_range(next, ~0u, 0);
}

/* false: nobody takes it. */
static bool send_patiently(int fd, struct socket_message *message, const int *descriptors)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    struct pollfd item = {.fd = fd, .events = POLLOUT};
    int status;

    while ((status = socket_message_send(fd, message, descriptors, message->count)) < 0) {
        if (status == -ETOOMANYREFS)
            nanosleep(&pause, NULL);
        else if ((status != -EAGAIN && status != -ENOBUFS) || poll(&item, 1, -1) < 0)
            return false;
    }
    return true;
}

static void give_lane(const struct keeper *self, uint32_t lane, int fd)
{
    struct socket_message message = {.kind = SOCKET_MESSAGE_SOCKETS, .lane = lane};
    int descriptors[SOCKET_MESSAGE_ROWS];
    uint32_t count = self->segment->rows_per_lane, first = lane * count;

    for (uint32_t row = 0; row < count; row++) {
        int own = socket_of(self, first + row);
        if (own >= 0) {
            message.rows[message.count] = row;
            descriptors[message.count++] = own;
        }
        if (message.count < SOCKET_MESSAGE_ROWS && row + 1 < count)
            continue;
        if (message.count > 0 && !send_patiently(fd, &message, descriptors))
            return;
        message.count = 0;
    }
    message.kind = SOCKET_MESSAGE_DONE;
    (void)send_patiently(fd, &message, NULL);
}

static int keep(void *arg)
{
    const struct keeper *self = arg;
    struct socket_message message;
    int descriptors[SOCKET_MESSAGE_ROWS], status = 0;
    uint32_t count;

    capabilities_drop();
    if (!await_death(self))
        _exit(0);
    close_others(self);
    while (status == 0 || status == -EBADMSG) {
        status = socket_message_receive(self->channel, &message, descriptors, &count, true);
        if (status == 0 && count == 1 && message.kind == SOCKET_MESSAGE_ASK && message.lane < self->segment->lane_count)
            give_lane(self, message.lane, descriptors[0]);
        while (count > 0)
            close(descriptors[--count]);
    }
    _exit(0);
}

/* ---- the worker ---- */

/* A table of descriptors that two processes share grows slowly: each time the kernel waits until no core uses the old
 * one. So it has its size before. */
static void make_room(const struct keeper *self, uint32_t descriptors)
{
    int last = descriptors < (uint32_t)self->limit ? (int)descriptors : self->limit - 1;
    int fd = fcntl(self->channel, F_DUPFD_CLOEXEC, last);

    if (fd >= 0)
        close(fd);
}

/* Without a signal for the end: nobody who waits for children of the worker's meets it. */
static int begin(struct keeper *self)
{
    sigset_t all, before;

    self->pidfd = pidfd_open(getpid(), 0);
    if (self->pidfd < 0)
        return -errno;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    self->pid = clone(keep, self->stack + STACK, CLONE_VM | CLONE_FILES, self);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return self->pid < 0 ? -errno : 0;
}

static size_t table_size(const struct keeper *self)
{
    return (self->rows + self->segment->lane_count) * sizeof *self->sockets;
}

static void *memory(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

static void release(struct keeper *self)
{
    if (self->sockets != NULL)
        munmap((void *)self->sockets, table_size(self));
    if (self->kept != NULL)
        munmap(self->kept, (size_t)self->limit);
    if (self->stack != NULL)
        munmap(self->stack, STACK);
    if (self->pidfd >= 0)
        close(self->pidfd);
    close(self->channel);
    free(self);
}

int keeper_open(struct keeper **out, const struct segment *segment, uint32_t descriptors, int channel,
                struct error *error)
{
    struct keeper *self = calloc(1, sizeof *self);
    long limit = sysconf(_SC_OPEN_MAX);
    int status = -ENOMEM;

    if (self == NULL) {
        close(channel);
        return error_set(error, status, "no memory for what keeps the sockets when this process is killed");
    }
    *self = (struct keeper){.segment = segment,
                            .channel = channel,
                            .pidfd = -1,
                            .rows = segment->lane_count * segment->rows_per_lane,
                            .limit = limit > channel && limit < DESCRIPTORS_MAX ? (int)limit : DESCRIPTORS_MAX};
    (void)fcntl(channel, F_SETFD, FD_CLOEXEC); /* what a plugin starts must not keep it */
    make_room(self, descriptors);
    self->sockets = memory(table_size(self));
    self->kept = memory((size_t)self->limit);
    self->stack = memory(STACK);
    if (self->sockets != NULL && self->kept != NULL && self->stack != NULL)
        status = begin(self);
    if (status < 0) {
        release(self);
        return error_set(error, status, "no process can be made that keeps the sockets when this one is killed: %s",
                         strerror(-status));
    }
    *out = self;
    return 0;
}

void keeper_warm(struct keeper *keeper)
{
    if (keeper != NULL)
        (void)madvise((void *)keeper->sockets, table_size(keeper), MADV_POPULATE_WRITE);
}

void keeper_close(struct keeper *keeper)
{
    if (keeper == NULL)
        return;
    kill(keeper->pid, SIGKILL);
    while (waitpid(keeper->pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    release(keeper);
}
