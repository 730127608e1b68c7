/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: the variables are read and taken away; each change of state is one datagram; the tick pings.
 * Fails: no variable            -> nothing is ever sent
 *        the name is odd        -> one warning, nothing is ever sent
 *        nobody is at the name  -> one warning, and tried again at the next change: a manager may be back by then
 *        its queue is full      -> the last change is kept and sent by the next tick; a ping is only left out
 *        the master hangs       -> no tick, no ping: systemd kills it after WatchdogSec and starts it again */
#include "process/notify.h"

#include "base/clock.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long value;

    if (text == NULL || text[0] < '0' || text[0] > '9')
        return 0;
    errno = 0;
    value = strtoull(text, &end, 10);
    return *end != '\0' || errno != 0 ? 0 : value;
}

/* Half of what the watchdog grants, 0: none, or it is meant for another process (a shell that has started us). */
static uint64_t ping_interval_ms(void)
{
    const char *pid = getenv("WATCHDOG_PID");

    if (pid != NULL && number(pid) != (uint64_t)getpid())
        return 0;
    return (number(getenv("WATCHDOG_USEC")) / 2 + 999) / 1000;
}

static int address_set(struct notify *self, const char *name)
{
    size_t length = strlen(name);

    if ((name[0] != '/' && name[0] != '@') || length < 2)
        return -EAFNOSUPPORT;
    if (length >= sizeof self->address.sun_path)
        return -ENAMETOOLONG;
    self->address.sun_family = AF_UNIX;
    memcpy(self->address.sun_path, name, length);
    if (name[0] == '@')
        self->address.sun_path[0] = '\0'; /* abstract: the length ends the name, not an octet */
    self->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    return 0;
}

static void complain(struct notify *self, struct log *log, int code)
{
    const char *name = self->address.sun_path;

    if (!self->complained)
        log_write(log, LOG_WARNING, "the service manager's NOTIFY_SOCKET %s%.*s cannot be reached: %s",
                  name[0] == '\0' ? "@" : "", (int)sizeof self->address.sun_path - 1, name[0] == '\0' ? name + 1 : name,
                  strerror(-code));
    self->complained = true;
}

void notify_open(struct notify *self, struct log *log)
{
    const char *name = getenv("NOTIFY_SOCKET");
    int status;

    memset(self, 0, sizeof *self);
    self->fd = -1;
    if (name != NULL) {
        status = address_set(self, name);
        if (status == 0) {
            self->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
            status = self->fd < 0 ? -errno : 0;
            self->every_ms = ping_interval_ms();
        }
        if (status < 0)
            log_write(log, LOG_WARNING, "the service manager's NOTIFY_SOCKET %s cannot be used: %s", name,
                      strerror(-status));
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_close(struct notify *self)
{
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
}

/* false: the queue is full, so that it is worth another try. */
static bool send_text(struct notify *self, struct log *log, const char *text)
{
    const struct sockaddr *to = (const struct sockaddr *)&self->address;

    if (sendto(self->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, to, self->size) >= 0)
        return true;
    if (errno == EAGAIN || errno == ENOBUFS)
        return false;
    complain(self, log, -errno);
    return true;
}

void notify_say(struct notify *self, struct log *log, const char *state, const char *status)
{
    char *text = self->unsent;
    int length;

    if (self->fd < 0)
        return;
    length = snprintf(text, NOTIFY_TEXT, "%s", state);
    if (status != NULL && length > 0 && length < (int)NOTIFY_TEXT) {
        snprintf(text + length, NOTIFY_TEXT - (size_t)length, "\nSTATUS=%s", status);
        for (char *octet = text + length + 1; *octet != '\0'; octet++)
            *octet = (unsigned char)*octet < ' ' ? ' ' : *octet;
    }
    if (send_text(self, log, text))
        text[0] = '\0';
}

void notify_reloading(struct notify *self, struct log *log)
{
    char state[64];

    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_monotonic_us());
    notify_say(self, log, state, "reloading");
}

void notify_tick(struct notify *self, struct log *log, uint64_t now_ms)
{
    if (self->fd < 0)
        return;
    if (self->unsent[0] != '\0' && send_text(self, log, self->unsent))
        self->unsent[0] = '\0';
    if (self->every_ms == 0 || now_ms - self->pinged_ms < self->every_ms)
        return;
    self->pinged_ms = now_ms;
    send_text(self, log, "WATCHDOG=1");
}
