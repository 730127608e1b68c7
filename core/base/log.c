/* SPDX-License-Identifier: Apache-2.0 */
/* A line is put together on the stack, at most LINE_SIZE octets, and leaves with one write(): lines of several
 * processes on one pipe do not mix (PIPE_BUF), and a pipe that polls writable takes one without waiting.
 * Fails: level not wanted       -> nothing happens
 *        line too long          -> it ends in "...", still well-formed
 *        reader slow, gone, bad descriptor -> the line is dropped and counted; the next one carries lost=N */
#include "base/log.h"

#include "base/error.h"

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 4096
#define LINE_TAIL 64 /* kept free for what ends every line: "...", a closing quote, lost=N, the newline */

struct line {
    char text[LINE_SIZE];
    size_t used;
    bool cut;
};

static const char *const level_names[] = {"error", "warning", "info", "debug"};

/* All of it or nothing: an escape is never cut in half. */
static void line_add(struct line *line, const char *text, size_t size)
{
    if (line->cut || size > LINE_SIZE - LINE_TAIL - line->used) {
        line->cut = true;
        return;
    }
    memcpy(line->text + line->used, text, size);
    line->used += size;
}

static void line_text(struct line *line, const char *text)
{
    line_add(line, text, strlen(text));
}

/* What every line has room for, cut or not. */
static void line_tail(struct line *line, const char *text)
{
    size_t size = strlen(text), room = sizeof line->text - line->used;

    if (size > room)
        size = room;
    memcpy(line->text + line->used, text, size);
    line->used += size;
}

/* Pure ASCII in both formats. JSON has \u00NN for control characters; an octet from 0x80 on may be of any encoding or
 * none, so there the string itself shows \xNN. */
static void line_octet(struct line *line, unsigned char octet, enum log_format format)
{
    static const char digits[] = "0123456789abcdef";
    char high = digits[octet >> 4], low = digits[octet & 15];

    if (format == LOG_TEXT)
        line_add(line, (const char[]){'\\', 'x', high, low}, 4);
    else if (octet < 0x80)
        line_add(line, (const char[]){'\\', 'u', '0', '0', high, low}, 6);
    else
        line_add(line, (const char[]){'\\', '\\', 'x', high, low}, 5);
}

static void line_escaped(struct line *line, const char *text, enum log_format format, bool quoted)
{
    for (; *text != '\0'; text++) {
        unsigned char octet = (unsigned char)*text;
        if (octet < 0x20 || octet >= 0x7f)
            line_octet(line, octet, format);
        else if (octet == '\\' || (octet == '"' && quoted))
            line_add(line, (const char[]){'\\', *text}, 2);
        else
            line_add(line, text, 1);
    }
    if (line->cut)
        line_tail(line, "...");
}

/* A value that could be taken for something else in text form: empty, with a blank, a quote or an equals sign. */
static bool needs_quotes(const char *text)
{
    return *text == '\0' || strpbrk(text, " \"=") != NULL;
}

static void line_field(struct line *line, const char *name, const char *text, enum log_format format)
{
    size_t start = line->used;
    bool quoted = format == LOG_JSON || needs_quotes(text);

    line_text(line, format == LOG_JSON ? ",\"" : " ");
    line_text(line, name);
    line_text(line, format == LOG_JSON ? "\":\"" : quoted ? "=\"" : "=");
    if (line->cut) { /* not even room for the name, or cut before: leave it out as a whole */
        line->used = start;
        return;
    }
    line_escaped(line, text, format, quoted);
    if (quoted)
        line_tail(line, "\"");
}

static void line_begin_json(struct line *line, const struct log *log, enum log_level level, const char *message)
{
    struct timespec now = {0};
    struct tm utc = {0};
    char head[128];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    snprintf(head, sizeof head, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\",\"level\":\"%s\"",
             utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
             now.tv_nsec / 1000000, level_names[level]);
    line_text(line, head);
    line_field(line, "process", log->process, LOG_JSON);
    line_field(line, "message", message, LOG_JSON);
}

static void line_begin_text(struct line *line, const struct log *log, enum log_level level, const char *message)
{
    line_text(line, "homeport ");
    line_text(line, log->process);
    line_text(line, ": ");
    line_text(line, level_names[level]);
    line_text(line, ": ");
    line_escaped(line, message, LOG_TEXT, false);
}

static void line_end(struct line *line, const struct log *log)
{
    char lost[48];

    if (log->dropped != 0) {
        if (log->format == LOG_JSON)
            snprintf(lost, sizeof lost, ",\"lost\":%" PRIu64, log->dropped);
        else
            snprintf(lost, sizeof lost, " lost=%" PRIu64, log->dropped);
        line_tail(line, lost);
    }
    line_tail(line, log->format == LOG_JSON ? "}\n" : "\n");
}

/* False: the reader cannot take a line now, or there is none. */
static bool line_send(const struct line *line, int fd)
{
    struct pollfd reader = {.fd = fd, .events = POLLOUT};

    if (poll(&reader, 1, 0) != 1 || reader.revents != POLLOUT)
        return false;
    return write(fd, line->text, line->used) == (ssize_t)line->used;
}

void log_init(struct log *log, const char *process)
{
    struct tm utc;

    *log = (struct log){.level = LOG_INFO, .format = LOG_TEXT, .fd = STDERR_FILENO};
    snprintf(log->process, sizeof log->process, "%s", process);
    /* The first gmtime_r of a process reads the time zone's file, which a sandboxed process may no longer open. */
    gmtime_r(&(time_t){0}, &utc);
}

void log_fields(struct log *log, enum log_level level, const char *message, const struct log_field *fields,
                size_t count)
{
    struct line line;

    if (level > log->level)
        return;
    line.used = 0;
    line.cut = false;
    if (log->format == LOG_JSON)
        line_begin_json(&line, log, level, message);
    else
        line_begin_text(&line, log, level, message);
    for (size_t i = 0; i < count; i++)
        line_field(&line, fields[i].name, fields[i].text, log->format);
    line_end(&line, log);
    if (line_send(&line, log->fd))
        log->dropped = 0;
    else
        log->dropped++;
}

void log_write(struct log *log, enum log_level level, const char *format, ...)
{
    char message[LINE_SIZE];
    va_list arguments;

    if (level > log->level)
        return;
    va_start(arguments, format);
    if (vsnprintf(message, sizeof message, format, arguments) < 0)
        message[0] = '\0';
    va_end(arguments);
    log_fields(log, level, message, NULL, 0);
}

void log_failure(struct log *log, enum log_level level, const struct error *error)
{
    char line[sizeof error->what + sizeof error->next + 3];

    log_fields(log, level, error_line(error, line, sizeof line), NULL, 0);
}
