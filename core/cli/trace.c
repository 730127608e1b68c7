/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: the daemon follows the client from its answer on; the records and sessions that are there are asked for
 * and shown; then each line that comes, until we are interrupted.
 * Fails: refused, or nobody answers   -> said, status 1
 *        the monitor is replaced (a reload, or it died) -> the next one is asked for what came since the last line
 *        homeport stops               -> said, status 1
 *        no line for CLIENT_TIMEOUT_MS, though there is one each second
 *                                     -> the monitor hangs: asked once more, then said, status 1 */
#include "base/clock.h"
#include "base/endpoint.h"
#include "cli/client.h"
#include "cli/table.h"
#include "cli/verbs.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REPLACED_MS 15000u /* for another monitor to answer */
#define AGAIN_MS 50

static const struct usage usage = {
    .verb = "trace",
    .operands = "CLIENT",
    .text = "Follows a client, an address, live, until it is interrupted: first the records and sessions\n"
            "that there are, then a line for each session that begins, moves or ends and why, for whatever\n"
            "is refused or dropped and why, for each IKE message both ways, and for the first ESP of a\n"
            "session. With a port behind the address, that flow alone. It goes on behind a reload. SPIs\n"
            "and what is encrypted are never shown.",
    .example = "homeport trace 198.51.100.7",
    .options = ARGUMENT_CONFIG | ARGUMENT_STATE | ARGUMENT_JSON,
    .least = 1,
    .most = 1,
};

struct follower {
    const struct arguments *arguments;
    int fd;                     /* -1: none */
    json_int_t after;           /* sequence of the last event that has come */
    char client[ENDPOINT_TEXT]; /* as the daemon writes it */
    char text[65536];           /* lines that have come and are not shown yet */
    size_t size;
};

/* The next line, from the front of text, into *object; NULL: an empty one. 0 or an errno value. */
static int next_line(struct follower *self, json_t **object, uint64_t deadline_ms)
{
    char *newline;

    while ((newline = memchr(self->text, '\n', self->size)) == NULL) {
        ssize_t got = self->size == sizeof self->text
                          ? 0
                          : recv(self->fd, self->text + self->size, sizeof self->text - self->size, 0);
        int code = got > 0 ? 0 : got == 0 ? ECONNRESET : errno;

        if (code == EAGAIN || code == EINTR)
            code = client_wait(self->fd, POLLIN, deadline_ms);
        if (code != 0)
            return code;
        self->size += got > 0 ? (size_t)got : 0;
    }
    *object = json_loadb(self->text, (size_t)(newline - self->text), 0, NULL);
    self->size -= (size_t)(newline + 1 - self->text);
    memmove(self->text, newline + 1, self->size);
    return 0;
}

static void follower_close(struct follower *self)
{
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
    self->size = 0;
}

/* Asks, and takes the answer. */
static int follower_open(struct follower *self, struct error *error)
{
    uint64_t deadline_ms = clock_now_ms() + CLIENT_TIMEOUT_MS;
    json_t *request = json_pack("{s:s, s:s}", "verb", "trace", "client", self->arguments->operands[0]);
    json_t *answer = NULL;
    int status, code;

    if (self->client[0] != '\0') /* again */
        json_object_set_new(request, "after", json_integer(self->after));
    status = client_open(self->arguments, request, deadline_ms, &self->fd, error);
    if (status < 0)
        return status;
    code = next_line(self, &answer, deadline_ms);
    status = code != 0 ? client_no_answer(error, code, self->arguments) : client_judge(answer, 1, error);
    if (status == 0) {
        self->after = answer_number(answer, "after");
        snprintf(self->client, sizeof self->client, "%s", answer_text(answer, "client"));
    } else {
        follower_close(self);
    }
    json_decref(answer);
    return status;
}

/* The monitor has gone: there is another one soon, or homeport has stopped. */
static int follower_open_again(struct follower *self, struct error *error)
{
    uint64_t give_up_ms = clock_now_ms() + REPLACED_MS;
    int status;

    follower_close(self);
    while ((status = follower_open(self, error)) < 0 && clock_now_ms() < give_up_ms) {
        if (status == -ECONNREFUSED || status == -ENOENT) {
            error_set(error, status, "homeport has stopped");
            return error_next(error, "start it, then follow the client again");
        }
        if (status != -ECONNRESET && status != -EPIPE)
            break;
        poll(NULL, 0, AGAIN_MS);
    }
    return status;
}

static void show_fact(bool *first, const char *fact)
{
    printf("%s%s", *first ? ": " : ", ", fact);
    *first = false;
}

static void show_member(bool *first, const json_t *object, const char *name, const char *format)
{
    const json_t *value = json_object_get(object, name);
    char text[192], number[32];

    if (value == NULL || json_is_null(value))
        return;
    snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    snprintf(text, sizeof text, "%s%s", format, json_is_string(value) ? json_string_value(value) : number);
    show_fact(first, text);
}

static void show_amount(bool *first, const json_t *object, const char *name, const char *whither)
{
    char amount[32], text[64];

    if (json_object_get(object, name) == NULL)
        return;
    snprintf(text, sizeof text, "%s octets %s", amount_text((uint64_t)answer_number(object, name), amount), whither);
    show_fact(first, text);
}

static void show_duration(bool *first, const char *what, json_int_t ms)
{
    char duration[32], text[64];

    snprintf(text, sizeof text, "%s %s", what, duration_text((uint64_t)ms, duration));
    show_fact(first, text);
}

static void show_head(const json_t *object)
{
    const char *time = json_string_value(json_object_get(object, "time"));

    if (time != NULL && strlen(time) > 11)
        printf("%s  ", time + 11);
    if (json_is_string(json_object_get(object, "service")))
        printf("%s  ", answer_text(object, "service"));
    if (json_is_string(json_object_get(object, "client")))
        printf("%s  ", answer_text(object, "client"));
    fputs(answer_text(object, "event"), stdout);
}

static void show_event(const json_t *object)
{
    bool first = true;
    char text[96];

    show_head(object);
    if (json_object_get(object, "exchange") != NULL) {
        snprintf(text, sizeof text, "%s %s %" JSON_INTEGER_FORMAT, answer_text(object, "exchange"),
                 json_is_true(json_object_get(object, "response")) ? "response" : "request",
                 answer_number(object, "message_id"));
        show_fact(&first, text);
    }
    show_member(&first, object, "notify", "");
    show_member(&first, object, "why", "");
    show_member(&first, object, "reason", "");
    show_member(&first, object, "count", "");
    show_member(&first, object, "server", "server ");
    show_member(&first, object, "source_port", "own port ");
    show_amount(&first, object, "size", "long");
    show_amount(&first, object, "bytes_to_server", "to the server");
    show_amount(&first, object, "bytes_to_client", "to the client");
    show_member(&first, object, "worker", "worker ");
    show_member(&first, object, "lane", "lane ");
    putchar('\n');
}

static void show_session(const json_t *object)
{
    bool first = true;

    show_head(object);
    show_member(&first, object, "server", "server ");
    show_member(&first, object, "source_port", "own port ");
    show_duration(&first, "age", answer_number(object, "age_ms"));
    show_duration(&first, "idle", answer_number(object, "idle_ms"));
    show_amount(&first, object, "bytes_to_server", "to the server");
    show_amount(&first, object, "bytes_to_client", "to the client");
    show_fact(&first, json_is_true(json_object_get(object, "proven"))     ? "proven"
                      : json_is_true(json_object_get(object, "answered")) ? "not proven"
                                                                          : "no answer yet");
    show_member(&first, object, "lane", "lane ");
    putchar('\n');
}

static void show_record(const json_t *object)
{
    bool first = true;

    show_head(object);
    show_member(&first, object, "server", "server ");
    show_member(&first, object, "profile", "profile ");
    show_duration(&first, "age", answer_number(object, "age_s") * 1000);
    if (json_is_integer(json_object_get(object, "left")))
        show_duration(&first, "left", answer_number(object, "left") * 1000);
    else
        show_fact(&first, json_is_string(json_object_get(object, "left")) ? "held" : "never expires");
    show_fact(&first, json_is_true(json_object_get(object, "proven")) ? "proven" : "not proven");
    putchar('\n');
}

static void show(const struct follower *self, json_t *object, const char *event, void (*in_words)(const json_t *object))
{
    if (event != NULL)
        json_object_set_new(object, "event", json_string(event));
    if (self->arguments->json) {
        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        in_words(object);
    }
    fflush(stdout);
}

/* What there is already, of one table. A flow's port counts where it was asked for. */
static int show_table(const struct follower *self, const char *verb, const char *table, const char *event,
                      void (*in_words)(const json_t *object), struct error *error)
{
    struct hp_endpoint wanted, client;
    json_t *answer, *object;
    size_t i;
    int status = client_ask(self->arguments, json_pack("{s:s, s:s}", "verb", verb, "client", self->client),
                            CLIENT_TIMEOUT_MS, &answer, error);

    json_array_foreach(json_object_get(answer, table), i, object)
    {
        if (endpoint_parse(&wanted, self->client) && endpoint_parse(&client, answer_text(object, "client")) &&
            wanted.port != 0 && client.port != 0 && wanted.port != client.port)
            continue;
        show(self, object, event, in_words);
    }
    json_decref(answer);
    return status;
}

/* false: the monitor has just gone. */
static bool show_what_is_there(const struct follower *self)
{
    struct error silent = {0};

    return show_table(self, "affinity", "records", "record", show_record, &silent) == 0 &&
           show_table(self, "sessions", "sessions", "session", show_session, &silent) == 0;
}

static void show_notice(const struct follower *self, const char *event)
{
    json_t *notice = json_pack("{s:s, s:s}", "event", event, "client", self->client);

    show(self, notice, NULL, show_event);
    json_decref(notice);
}

/* Until the connection ends, or says nothing. */
static void follow(struct follower *self)
{
    for (;;) {
        json_t *object = NULL;

        if (next_line(self, &object, clock_now_ms() + CLIENT_TIMEOUT_MS) != 0)
            return;
        if (object == NULL)
            continue;
        if (answer_number(object, "sequence") > 0)
            self->after = answer_number(object, "sequence");
        show(self, object, NULL, show_event);
        json_decref(object);
    }
}

static int trace(struct follower *self, struct error *error)
{
    int status = follower_open(self, error);
    bool shown = false;

    if (status == 0)
        show_notice(self, "following");
    while (status == 0) {
        shown = shown || show_what_is_there(self);
        follow(self);
        status = follower_open_again(self, error);
        if (status == 0)
            show_notice(self, "another monitor goes on");
    }
    return status;
}

int cli_trace(int argc, char **argv)
{
    struct arguments arguments;
    struct error error = {0};
    int status = arguments_read(&arguments, &usage, argc, argv);
    struct follower *self;

    if (status >= 0)
        return status;
    self = calloc(1, sizeof *self);
    if (self == NULL)
        return 1;
    self->arguments = &arguments;
    self->fd = -1;
    status = trace(self, &error);
    follower_close(self);
    free(self);
    return status < 0 ? cli_failed(arguments.verb, &error) : 0;
}
