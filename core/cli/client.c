/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"

#include "base/clock.h"
#include "cli/settings.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_LIMIT (512u << 20)

static int no_answer(struct error *error, int code, const char *folder, const struct arguments *arguments)
{
    if (code == ETIMEDOUT && strcmp(arguments->verb, "reload") == 0) {
        error_set(error, -code, "no answer in time from %s/control.sock", folder);
        return error_next(error, "homeport status says whether the daemon is well, its log how the reload goes on");
    }
    if (code == ETIMEDOUT) {
        error_set(error, -code, "the monitor does not answer at %s/control.sock: it is stopped or hangs", folder);
        return error_next(error, "traffic goes on; kill -9 its `homeport _monitor` process (ps -ef shows it): "
                                 "the master starts another");
    }
    error_set(error, -code, "nobody answers at %s/control.sock: %s", folder,
              code == ENOENT || code == ECONNREFUSED ? "homeport is not running" : strerror(code));
    if (code == EACCES || code == EPERM)
        return error_next(error, "only root and the group of that folder may ask");
    return error_next(error, "start it: homeport run -c %s; or name its state folder with --state DIR",
                      arguments->config);
}

static int connect_to(int *out, const char *folder)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int size = snprintf(address.sun_path, sizeof address.sun_path, "%s/control.sock", folder);
    int fd, code;

    if (size >= (int)sizeof address.sun_path)
        return ENAMETOOLONG;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        code = errno;
        close(fd);
        return code;
    }
    *out = fd;
    return 0;
}

int client_wait(int fd, short events, uint64_t deadline_ms)
{
    struct pollfd item = {.fd = fd, .events = events};
    uint64_t now = clock_now_ms();
    int ready = poll(&item, 1, now < deadline_ms ? (int)(deadline_ms - now) : 0);

    return ready > 0 ? 0 : ready == 0 ? ETIMEDOUT : errno == EINTR ? 0 : errno;
}

static int send_all(int fd, const char *text, size_t size, uint64_t deadline_ms)
{
    while (size > 0) {
        ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
        int code = sent >= 0 ? 0 : errno == EAGAIN || errno == EINTR ? client_wait(fd, POLLOUT, deadline_ms) : errno;

        if (code != 0)
            return code;
        if (sent > 0) {
            text += sent;
            size -= (size_t)sent;
        }
    }
    return 0;
}

/* Everything until the end of the stream, from malloc. 0 or an errno value. */
static int read_all(int fd, char **text, size_t *size, uint64_t deadline_ms)
{
    size_t room = 0;

    *text = NULL;
    *size = 0;
    for (;;) {
        ssize_t got;
        int code;

        if (*size + 65536 > room) {
            char *larger = room > ANSWER_LIMIT ? NULL : realloc(*text, room = room * 2 + 131072);

            if (larger == NULL)
                return ENOMEM;
            *text = larger;
        }
        got = recv(fd, *text + *size, room - *size, 0);
        if (got == 0)
            return 0;
        code = got > 0 ? 0 : errno == EAGAIN || errno == EINTR ? client_wait(fd, POLLIN, deadline_ms) : errno;
        if (code != 0)
            return code;
        *size += got > 0 ? (size_t)got : 0;
    }
}

int client_judge(const json_t *answer, size_t size, struct error *error)
{
    const char *what = json_string_value(json_object_get(answer, "error"));
    const char *next = json_string_value(json_object_get(answer, "next"));

    if (json_is_true(json_object_get(answer, "ok")))
        return 0;
    if (what != NULL) {
        error_set(error, -EINVAL, "%s", what);
        return next != NULL && next[0] != '\0' ? error_next(error, "%s", next) : error->code;
    }
    error_set(error, -EPROTO,
              size == 0 ? "the daemon closed the connection without an answer"
                        : "the daemon's answer is not understood");
    return error_next(error, "is the command of the same version as the daemon? see its log");
}

int client_no_answer(struct error *error, int code, const struct arguments *arguments)
{
    char folder[512];
    int status = settings_state(arguments, folder, sizeof folder, error);

    return status < 0 ? status : no_answer(error, code, folder, arguments);
}

int client_open(const struct arguments *arguments, json_t *request, uint64_t deadline_ms, int *out, struct error *error)
{
    char folder[512], *line = json_dumps(request, JSON_COMPACT);
    int fd = -1, code = line == NULL ? ENOMEM : 0, status;

    json_decref(request);
    status = settings_state(arguments, folder, sizeof folder, error);
    if (status < 0) {
        free(line);
        return status;
    }
    if (code == 0)
        code = connect_to(&fd, folder);
    if (code == 0)
        code = send_all(fd, line, strlen(line), deadline_ms);
    if (code == 0)
        code = send_all(fd, "\n", 1, deadline_ms);
    free(line);
    if (code == 0) {
        *out = fd;
        return 0;
    }
    if (fd >= 0)
        close(fd);
    return no_answer(error, code, folder, arguments);
}

int client_ask(const struct arguments *arguments, json_t *request, int timeout_ms, json_t **answer, struct error *error)
{
    uint64_t deadline_ms = clock_now_ms() + (uint64_t)timeout_ms;
    char *text = NULL;
    size_t size = 0;
    int fd = -1, code, status;

    *answer = NULL;
    status = client_open(arguments, request, deadline_ms, &fd, error);
    if (status < 0)
        return status;
    code = read_all(fd, &text, &size, deadline_ms);
    close(fd);
    if (code != 0) {
        free(text);
        return client_no_answer(error, code, arguments);
    }
    *answer = json_loadb(text, size, 0, NULL);
    free(text);
    return client_judge(*answer, size, error);
}

json_t *client_read(const struct arguments *arguments, json_t *request, int *status)
{
    struct error error = {0};
    json_t *answer;

    *status = 1;
    if (client_ask(arguments, request, CLIENT_TIMEOUT_MS, &answer, &error) < 0) {
        cli_failed(arguments->verb, &error);
        json_decref(answer);
        return NULL;
    }
    *status = 0;
    if (!arguments->json)
        return answer;
    json_dumpf(answer, stdout, JSON_INDENT(2));
    putchar('\n');
    if (json_is_false(json_object_get(answer, "healthy")))
        *status = 1;
    json_decref(answer);
    return NULL;
}

const char *answer_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text != NULL ? text : "-";
}

json_int_t answer_number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}
