/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: accept, read up to the first newline, answer, close.
 * Fails: more than 64 connections     -> the rest wait in the kernel's queue until one has ended
 *        no newline within 5 s        -> closed
 *        half a request, then the end -> an error object
 *        more than 64 KiB             -> an error object, the rest is not read
 *        the reader is slow           -> a piece that it does not take within 5 s closes the connection
 *        the reader is gone           -> the write fails, closed
 *        a trace      -> goes on until its reader goes (trace.c)
 *        no memory                    -> closed without an answer; a new one waits until another has ended */
#include "monitor/control/connection.h"
#include "monitor/control/requests.h"

#include "base/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct control {
    struct control_sources sources;
    uv_pipe_t listener;
    bool listening, waiting, closing; /* waiting: somebody is there, and we are full */
    struct connection *connections;
    uint32_t count;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void accept_one(struct control *self);

static void on_failed_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int control_open(struct control **out, const struct control_sources *sources, int listener, struct error *error)
{
    struct control *self = calloc(1, sizeof *self);
    int status;

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory for the control socket");
    self->sources = *sources;
    if (listener >= 0) {
        uv_pipe_init(sources->context->loop, &self->listener, 0);
        self->listener.data = self;
        status = uv_pipe_open(&self->listener, listener);
        if (status < 0) {
            uv_close((uv_handle_t *)&self->listener, on_failed_closed);
            return error_set(error, status, "cannot watch the control socket: %s", uv_strerror(status));
        }
        self->listening = true;
    }
    *out = self;
    return 0;
}

static void finish_close(struct control *self)
{
    if (self->listening || self->count > 0)
        return;
    self->closed(self->closed_arg);
    free(self);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    struct control *self = connection->control;
    struct connection **link = &self->connections;

    if (--connection->open_handles > 0)
        return;
    while (*link != connection)
        link = &(*link)->next;
    *link = connection->next;
    self->count--;
    free(connection->text);
    free(connection);
    if (self->closing) {
        finish_close(self);
    } else if (self->waiting) {
        self->waiting = false;
        accept_one(self);
    }
}

static void connection_close(struct connection *connection)
{
    if (connection->closing)
        return;
    connection->closing = true;
    if (!connection->control->closing) /* else the next monitor finds its watch */
        trace_end(connection);
    recount_forget(connection->sources->recount, &connection->drop.search);
    uv_close((uv_handle_t *)&connection->pipe, on_handle_closed);
    uv_close((uv_handle_t *)&connection->timer, on_handle_closed);
    uv_close((uv_handle_t *)&connection->work, on_handle_closed);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct control *self = handle->data;

    self->listening = false;
    finish_close(self);
}

void control_close(struct control *control, void (*done)(void *arg), void *arg)
{
    if (control == NULL) {
        done(arg);
        return;
    }
    control->closing = true;
    control->closed = done;
    control->closed_arg = arg;
    for (struct connection *connection = control->connections; connection != NULL; connection = connection->next)
        connection_close(connection);
    if (control->listening)
        uv_close((uv_handle_t *)&control->listener, on_listener_closed);
    else
        finish_close(control);
}

static void on_timeout(uv_timer_t *timer)
{
    connection_close(timer->data);
}

void connection_extend(struct connection *connection)
{
    uv_timer_start(&connection->timer, on_timeout, CONTROL_TIMEOUT_MS, 0);
}

static void on_ignored_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct connection *connection = handle->data;

    (void)suggested;
    *buffer = uv_buf_init(connection->trace.ignored, sizeof connection->trace.ignored);
}

static void on_ignored(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    (void)buffer;
    if (size < 0)
        connection_close(stream->data);
}

/* Nobody waits for anything now: no time-out, but its reader may go. */
static void trace_written(struct connection *connection)
{
    uv_timer_stop(&connection->timer);
    if (uv_is_readable((uv_stream_t *)&connection->pipe) && !uv_is_closing((uv_handle_t *)&connection->pipe))
        (void)uv_read_start((uv_stream_t *)&connection->pipe, on_ignored_allocate, on_ignored);
}

static void on_written(uv_write_t *write, int status)
{
    struct connection *connection = write->data;

    free(connection->text);
    connection->text = NULL;
    if (connection->trace.on && status == 0 && !connection->closing) {
        trace_written(connection);
        return;
    }
    if (status < 0 || connection->closing || connection->listing.kind == LISTING_NONE || connection->listing.ended) {
        connection_close(connection);
        return;
    }
    connection_list(connection);
}

uint32_t connection_traces(const struct connection *connection, const struct hp_endpoint *client)
{
    uint32_t count = 0;

    for (const struct connection *other = connection->control->connections; other != NULL; other = other->next)
        count += other->trace.on && (client == NULL || endpoint_same_address(client, &other->trace.client));
    return count;
}

static void write_piece(struct connection *connection)
{
    uv_buf_t piece = uv_buf_init(connection->text, (unsigned)connection->size);

    connection_extend(connection);
    connection->write.data = connection;
    if (uv_write(&connection->write, (uv_stream_t *)&connection->pipe, &piece, 1, on_written) < 0)
        connection_close(connection);
}

void connection_write(struct connection *connection, char *text, size_t size)
{
    connection->text = text;
    connection->size = size;
    write_piece(connection);
}

void connection_answer(struct connection *connection, json_t *answer)
{
    char *text = answer == NULL ? NULL : json_dumps(answer, JSON_COMPACT);
    size_t size = text == NULL ? 0 : strlen(text);

    json_decref(answer);
    free(connection->text);
    connection->text = text == NULL ? NULL : realloc(text, size + 1);
    if (connection->text == NULL) {
        free(text);
        connection_close(connection);
        return;
    }
    connection->text[size] = '\n';
    connection->size = size + 1;
    write_piece(connection);
}

void connection_refuse(struct connection *connection, const char *error, const char *next)
{
    connection_answer(connection, json_pack("{s:b, s:s, s:s}", "ok", 0, "error", error, "next", next));
}

void connection_list(struct connection *connection)
{
    free(connection->text);
    connection->text = listing_piece(connection, &connection->size);
    if (connection->text == NULL)
        connection_close(connection);
    else
        write_piece(connection);
}

int connection_give_away(struct connection *connection)
{
    uv_os_fd_t fd = -1;
    int copy = -1;

    if (uv_fileno((uv_handle_t *)&connection->pipe, &fd) == 0)
        copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        connection_refuse(connection, "no descriptor left to pass the request on", "try again");
    else
        connection_close(connection);
    return copy;
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct connection *connection = handle->data;

    (void)suggested;
    *buffer = uv_buf_init(connection->text + connection->size, (unsigned)(CONTROL_REQUEST_MAX - connection->size));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct connection *connection = stream->data;
    const char *newline;

    (void)buffer;
    if (size < 0) {
        uv_read_stop(stream);
        if (size == UV_EOF && connection->size > 0)
            connection_refuse(connection, "the request ends without a newline", "send one JSON object on one line");
        else
            connection_close(connection);
        return;
    }
    newline = memchr(connection->text + connection->size, '\n', (size_t)size);
    connection->size += (size_t)size;
    if (newline != NULL) {
        uv_read_stop(stream);
        request_answer(connection, connection->text, (size_t)(newline - connection->text));
    } else if (connection->size == CONTROL_REQUEST_MAX) {
        uv_read_stop(stream);
        connection_refuse(connection, "the request is longer than 64 KiB", "send one JSON object on one line");
    }
}

static void accept_one(struct control *self)
{
    struct connection *connection;

    if (self->count == CONTROL_CONNECTIONS) {
        self->waiting = true;
        return;
    }
    connection = calloc(1, sizeof *connection);
    if (connection != NULL)
        connection->text = malloc(CONTROL_REQUEST_MAX);
    if (connection == NULL || connection->text == NULL) {
        free(connection);
        self->waiting = true; /* until another one ends */
        return;
    }
    connection->control = self;
    connection->sources = &self->sources;
    uv_pipe_init(self->sources.context->loop, &connection->pipe, 0);
    uv_timer_init(self->sources.context->loop, &connection->timer);
    uv_timer_init(self->sources.context->loop, &connection->work);
    connection->pipe.data = connection->timer.data = connection->work.data = connection;
    connection->open_handles = 3;
    connection->next = self->connections;
    self->connections = connection;
    self->count++;
    connection_extend(connection);
    if (uv_accept((uv_stream_t *)&self->listener, (uv_stream_t *)&connection->pipe) < 0 ||
        uv_read_start((uv_stream_t *)&connection->pipe, on_allocate, on_read) < 0)
        connection_close(connection);
}

static void on_connection(uv_stream_t *listener, int status)
{
    if (status == 0)
        accept_one(listener->data);
}

int control_start(struct control *control, struct error *error)
{
    int status = control->listening ? uv_listen((uv_stream_t *)&control->listener, 128, on_connection) : 0;

    return status < 0 ? error_set(error, status, "cannot listen on the control socket: %s", uv_strerror(status)) : 0;
}
