/* SPDX-License-Identifier: Apache-2.0 */
/* The story: the same 60 clients connect through each persistence in turn -> a row of the table each -> the last one
 * goes on until somebody ends it.
 * Fails: 500 and 4500 cannot be bound -> high ports, and why
 *        the daemon does not start, or ends -> its lines, exit status 1
 *        a vendor's way does not bring everybody home, or source_address does -> the table says so, exit status 1
 *        Ctrl-C, SIGTERM, or nobody reads -> daemon, servers and folder go in order, whatever was going on */
#include "cli/demo/demo.h"
#include "base/hash.h"
#include "cli/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct demo_run runs[] = {
    {"source_address", "splits", false},
    {"port_following", "KEMP's way", true},
    {"match_across_services", "F5's way", true},
    {"persistency_group", "NetScaler's way", true},
};
#define RUNS (sizeof runs / sizeof runs[0])

static const char usage[] =
    "usage: homeport demo [--once] [--seed N]\n"
    "\n"
    "Starts this daemon on the loopback with three built-in IKEv2 servers and 60 clients, once\n"
    "for each way of persistence, and shows which clients came home. Then it keeps the last\n"
    "one running until Ctrl-C.\n"
    "\n"
    "options:\n"
    "  --once      end after the table; 0 only if each vendor's way connected all clients and\n"
    "              source_address did not\n"
    "  --seed N    start the clients in the order of an earlier demo\n"
    "  -h, --help  this text\n"
    "\n"
    "example:\n"
    "  homeport demo --once\n";

/* 0, or the exit status + 1. */
static int read_options(struct demo *self, int argc, char **argv)
{
    char *rest;

    hash_random(&self->seed, sizeof self->seed);
    self->seed %= 1000000;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(usage, stdout);
            return 1;
        }
        if (strcmp(argv[i], "--once") == 0) {
            self->once = true;
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            self->seed = strtoull(argv[++i], &rest, 10);
            if (*argv[i] == '\0' || *rest != '\0') {
                fprintf(stderr, "homeport demo: --seed takes a number, not '%s'\n", argv[i]);
                return 3;
            }
        } else {
            fprintf(stderr, "homeport demo: what is '%s'?\n%s", argv[i], usage);
            return 3;
        }
    }
    return 0;
}

static void tell_beginning(struct demo *self)
{
    if (self->place.high)
        console_line(&self->console, "%s: ports %u and %u instead of 500 and 4500", self->place.error.what,
                     self->place.ike, self->place.nat_t);
    console_line(&self->console, "%u clients connect 500 -> 4500 within a second, in the order of seed %llu",
                 DEMO_CLIENTS, (unsigned long long)self->seed);
    console_line(&self->console, "configurations, moved to the loopback: %s", self->folder);
    console_line(&self->console, "%s", "");
}

static void tell_verb(struct demo *self, const char *verb, const char *what)
{
    console_line(&self->console, "  # %s\n  %s %s -c %s", what, self->self, verb, self->config);
}

static void tell_what_to_try(struct demo *self)
{
    console_line(&self->console, "\n%s goes on, until Ctrl-C. In another terminal:", self->run->name);
    tell_verb(self, "status", "its processes, and what they have done");
    tell_verb(self, "sessions", "who talks to which server");
    tell_verb(self, "affinity --explain 127.10.0.7", "where a client belongs, and why");
    tell_verb(self, "reload", "new processes, and everybody stays at home");
    console_line(&self->console,
                 "  # a worker dies: everybody stays at home\n"
                 "  kill -9 $(pgrep -P %d -f _worker | head -n 1)\n"
                 "  # a server dies: its clients connect anew, with another",
                 (int)daemon_pid(self->daemon));
    for (uint32_t i = 0; i < DEMO_SERVERS; i++)
        console_line(&self->console, "  kill %-7d  # %s", (int)responders_pid(self->responders, i), self->servers[i]);
    console_line(&self->console, "%s", "");
}

static void keep_running(struct demo *self)
{
    struct stay stay = {
        .console = &self->console,
        .clients = self->clients,
        .responders = self->responders,
        .servers = self->servers,
    };

    tell_what_to_try(self);
    stay_open(&stay, &self->loop);
    self->stay = &stay;
    while (!self->interrupted && !daemon_gone(self->daemon))
        uv_run(&self->loop, UV_RUN_ONCE);
    stay_close(&stay, &self->loop);
    self->stay = NULL;
}

/* as_promised: out, whether each run came out as it must. */
static int tell_story(struct demo *self, bool *as_promised, struct error *error)
{
    struct result result;

    *as_promised = true;
    for (size_t i = 0; i < RUNS; i++) {
        int status = demo_connect(self, &runs[i], &result, error);
        if (status < 0)
            return status;
        if (i == 0)
            table_head(&self->console, self->servers);
        table_row(&self->console, runs[i].name, runs[i].label, &result, self->servers, &self->place);
        if ((result.connected == DEMO_CLIENTS) != runs[i].homes)
            *as_promised = false;
        if (i == RUNS - 1 && !self->once)
            keep_running(self);
        status = demo_end(self, error);
        if (status < 0)
            return status;
    }
    return 0;
}

static int fail(const struct demo *self, const struct error *error)
{
    char line[sizeof error->what + sizeof error->next + 4];

    if (error->code == -EINTR)
        return 1;
    fprintf(stderr, "homeport demo: %s\n", error_line(error, line, sizeof line));
    demo_tell_tail(self);
    return 1;
}

static int play(struct demo *self)
{
    struct error error = {0}, ended = {0};
    bool as_promised = false;
    int status = demo_open(self, &error);

    if (status == 0) {
        tell_beginning(self);
        status = tell_story(self, &as_promised, &error);
    }
    (void)demo_end(self, &ended); /* what a failure left open */
    status = status < 0 ? fail(self, &error) : as_promised ? 0 : 1;
    if (status == 1 && error.code == 0)
        fprintf(stderr, "homeport demo: not every persistence did what it promises; see the table\n");
    demo_close(self);
    return status;
}

int cli_demo(int argc, char **argv)
{
    struct demo *self = calloc(1, sizeof *self);
    int status;

    if (self == NULL)
        return 1;
    console_open(&self->console);
    status = read_options(self, argc, argv);
    status = status > 0 ? status - 1 : play(self);
    free(self);
    return status;
}
