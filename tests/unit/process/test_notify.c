/* SPDX-License-Identifier: Apache-2.0 */
#include "process/notify.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fixture {
    struct notify notify;
    struct log log; /* into a pipe */
    int manager, said;
};

static void set_number(const char *name, long long value)
{
    char text[32];

    snprintf(text, sizeof text, "%lld", value);
    setenv(name, text, 1);
}

/* Leaves its name in $NOTIFY_SOCKET. */
static void listen_as_manager(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "homeport-unit-%d", (int)getpid());
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);

    f->manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(f->manager, (struct sockaddr *)&address, size), 0);
    address.sun_path[0] = '@';
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
}

static void open_fixture(struct fixture *f, const char *watchdog_usec, long long watchdog_pid)
{
    int ends[2];

    cr_assert_eq(pipe(ends), 0);
    log_init(&f->log, "test");
    f->said = ends[0];
    f->log.fd = ends[1];
    listen_as_manager(f);
    unsetenv("WATCHDOG_PID");
    setenv("WATCHDOG_USEC", watchdog_usec, 1);
    if (watchdog_pid != 0)
        set_number("WATCHDOG_PID", watchdog_pid);
    notify_open(&f->notify, &f->log);
}

static void close_fixture(struct fixture *f)
{
    notify_close(&f->notify);
    close(f->manager);
    close(f->said);
    close(f->log.fd);
}

static const char *heard(const struct fixture *f)
{
    static char text[2048]; /* of this test's own process */
    ssize_t size = recv(f->manager, text, sizeof text - 1, 0);

    text[size > 0 ? size : 0] = '\0';
    return text;
}

Test(notify, takes_the_variables_away_from_children)
{
    struct fixture f;

    open_fixture(&f, "1000000", getpid());
    cr_assert_null(getenv("NOTIFY_SOCKET"));
    cr_assert_null(getenv("WATCHDOG_USEC"));
    cr_assert_null(getenv("WATCHDOG_PID"));
    close_fixture(&f);
}

Test(notify, status_cannot_add_assignments)
{
    struct fixture f;
    char long_text[3000];

    open_fixture(&f, "", 0);
    notify_say(&f.notify, &f.log, "READY=1", "worker 1: bad\nMAINPID=1\r\tend");
    cr_assert_str_eq(heard(&f), "READY=1\nSTATUS=worker 1: bad MAINPID=1  end");
    memset(long_text, '\n', sizeof long_text);
    long_text[sizeof long_text - 1] = '\0';
    notify_say(&f.notify, &f.log, "READY=1", long_text);
    cr_assert_null(strchr(strchr(heard(&f), '\n') + 1, '\n'));
    close_fixture(&f);
}

Test(notify, pings_at_half_of_the_time)
{
    struct fixture f;

    open_fixture(&f, "1000000", getpid());
    notify_tick(&f.notify, &f.log, 10000);
    cr_assert_str_eq(heard(&f), "WATCHDOG=1");
    notify_tick(&f.notify, &f.log, 10499);
    cr_assert_str_eq(heard(&f), "");
    notify_tick(&f.notify, &f.log, 10500);
    cr_assert_str_eq(heard(&f), "WATCHDOG=1");
    close_fixture(&f);
}

Test(notify, pings_nobody_who_did_not_ask)
{
    static const struct {
        const char *usec;
        bool other;
    } cases[] = {{"", false},   {"0", false},   {"-5", false},  {"1000000", true},
                 {"1s", false}, {" 10", false}, {"1e6", false}, {"99999999999999999999999", false}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;

        open_fixture(&f, cases[i].usec, cases[i].other ? getppid() : 0);
        notify_tick(&f.notify, &f.log, 1u << 20);
        cr_assert_str_eq(heard(&f), "", "%s", cases[i].usec);
        close_fixture(&f);
    }
}

Test(notify, what_a_full_queue_refused_comes_later)
{
    struct fixture f;
    int messages = 0;

    open_fixture(&f, "", 0);
    while (f.notify.unsent[0] == '\0' && messages++ < 100000)
        notify_say(&f.notify, &f.log, "RELOADING=1", NULL);
    notify_say(&f.notify, &f.log, "READY=1", "the last");
    notify_tick(&f.notify, &f.log, 1);
    while (strcmp(heard(&f), "RELOADING=1") == 0)
        messages--;
    cr_assert_eq(messages, 1, "all that were sent came, but the one that did not fit");
    notify_tick(&f.notify, &f.log, 2);
    cr_assert_str_eq(heard(&f), "READY=1\nSTATUS=the last");
    notify_tick(&f.notify, &f.log, 3);
    cr_assert_str_eq(heard(&f), "");
    close_fixture(&f);
}

Test(notify, a_manager_that_has_gone_costs_one_line_and_may_come_back)
{
    struct fixture f;
    char text[512];
    ssize_t size;

    open_fixture(&f, "", 0);
    close(f.manager);
    for (int i = 0; i < 3; i++)
        notify_say(&f.notify, &f.log, "READY=1", NULL);
    size = read(f.said, text, sizeof text - 1);
    cr_assert_gt(size, 0);
    text[size] = '\0';
    cr_assert_eq(strchr(text, '\n'), text + size - 1, "%s", text);
    cr_assert_not_null(strstr(text, "NOTIFY_SOCKET @homeport-unit-"), "%s", text);
    listen_as_manager(&f);
    notify_say(&f.notify, &f.log, "READY=1", NULL);
    cr_assert_str_eq(heard(&f), "READY=1");
    close_fixture(&f);
}
