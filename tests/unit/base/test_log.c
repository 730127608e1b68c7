/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "base/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct fixture {
    struct log log;
    int reader;
    char line[8192];
};

static void fixture_open(struct fixture *f, enum log_format format)
{
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    log_init(&f->log, "worker 1");
    f->log.fd = ends[1];
    f->log.format = format;
    f->reader = ends[0];
}

static void fixture_close(struct fixture *f)
{
    if (f->reader >= 0)
        close(f->reader);
    close(f->log.fd);
}

/* What lies in the pipe, NUL-terminated; "" when there is nothing. */
static const char *written(struct fixture *f)
{
    ssize_t size = read(f->reader, f->line, sizeof f->line - 1);

    f->line[size < 0 ? 0 : size] = '\0';
    return f->line;
}

static json_t *written_json(struct fixture *f)
{
    json_error_t error;
    json_t *line = json_loads(written(f), 0, &error);

    cr_assert_not_null(line, "%s: %s", error.text, f->line);
    return line;
}

static const char *member(const json_t *line, const char *name)
{
    const char *text = json_string_value(json_object_get(line, name));

    cr_assert_not_null(text, "no %s", name);
    return text;
}

Test(log, text_line_reads_process_level_message_fields)
{
    struct fixture f;

    fixture_open(&f, LOG_TEXT);
    log_fields(&f.log, LOG_WARNING, "server is down",
               (struct log_field[]){{"server", "vpn1"}, {"reason", "no answer"}, {"note", ""}}, 3);
    cr_assert_str_eq(written(&f),
                     "homeport worker 1: warning: server is down server=vpn1 reason=\"no answer\" note=\"\"\n");
    fixture_close(&f);
}

Test(log, starts_as_text_at_info_on_standard_error)
{
    struct log log;

    log_init(&log, "a name of a process that is too long");
    cr_assert_eq(log.level, LOG_INFO);
    cr_assert_eq(log.format, LOG_TEXT);
    cr_assert_eq(log.fd, 2);
    cr_assert_eq(strlen(log.process), sizeof log.process - 1);
}

Test(log, less_important_lines_are_not_written)
{
    struct fixture f;

    fixture_open(&f, LOG_TEXT);
    log_write(&f.log, LOG_DEBUG, "nobody asked");
    cr_assert_str_eq(written(&f), "");
    f.log.level = LOG_ERROR;
    log_write(&f.log, LOG_WARNING, "nobody asked");
    cr_assert_str_eq(written(&f), "");
    log_write(&f.log, LOG_ERROR, "%d clients", 3);
    cr_assert_str_eq(written(&f), "homeport worker 1: error: 3 clients\n");
    cr_assert_eq(f.log.dropped, 0, "an unwanted line is not a lost one");
    fixture_close(&f);
}

Test(log, outside_octets_cannot_fake_a_line)
{
    struct fixture f;

    fixture_open(&f, LOG_TEXT);
    log_fields(&f.log, LOG_INFO, "name\nhomeport master: error: fake",
               (struct log_field[]){{"key", "\x1b[31m\x7f\xff\\"}, {"other", "a=b \"c\""}}, 2);
    cr_assert_str_eq(written(&f), "homeport worker 1: info: name\\x0ahomeport master: error: fake "
                                  "key=\\x1b[31m\\x7f\\xff\\\\ other=\"a=b \\\"c\\\"\"\n");
    fixture_close(&f);
}

Test(log, json_line_is_json_whatever_the_octets)
{
    struct fixture f;
    char all[256];

    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = '\0';
    fixture_open(&f, LOG_JSON);
    log_fields(&f.log, LOG_INFO, "quote \" backslash \\ newline \n", (struct log_field[]){{"octets", all}}, 1);
    json_t *line = written_json(&f);
    cr_assert_str_eq(member(line, "level"), "info");
    cr_assert_str_eq(member(line, "process"), "worker 1");
    cr_assert_str_eq(member(line, "message"), "quote \" backslash \\ newline \n");
    cr_assert_not_null(strstr(member(line, "octets"), "\x01\x02\x03"));
    cr_assert_not_null(strstr(member(line, "octets"), "}~\x7f\\x80\\x81"));
    json_decref(line);
    fixture_close(&f);
}

Test(log, json_time_is_rfc_3339_in_utc)
{
    struct fixture f;
    int year, month, day, hour, minute, second, milli, end = 0;

    fixture_open(&f, LOG_JSON);
    log_write(&f.log, LOG_INFO, "now");
    json_t *line = written_json(&f);
    const char *time = member(line, "time");
    cr_assert_eq(
        sscanf(time, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second, &milli, &end), 7,
        "%s", time);
    cr_assert_eq(end, 24);
    cr_assert_geq(year, 2024);
    json_decref(line);
    fixture_close(&f);
}

/* Whatever is cut, wherever: one write of at most 4,096 octets, and still a line. */
static void long_line_is_one_line(enum log_format format, const char *filler)
{
    static char text[6001];
    struct fixture f;

    for (size_t size = 3900; size < 4100; size++) {
        for (size_t i = 0; i < size; i++)
            text[i] = filler[i % strlen(filler)];
        text[size] = '\0';
        fixture_open(&f, format);
        f.log.dropped = INT64_MAX; /* the longest tail that jansson takes */
        log_fields(&f.log, LOG_INFO, "m", (struct log_field[]){{"long", text}, {"after", "short"}}, 2);
        written(&f);
        cr_assert_leq(strlen(f.line), 4096);
        cr_assert_eq(strchr(f.line, '\n'), f.line + strlen(f.line) - 1);
        json_t *line = json_loads(f.line, 0, NULL);
        cr_assert_eq(line != NULL, format == LOG_JSON, "%s", f.line);
        json_decref(line);
        fixture_close(&f);
    }
}

Test(log, long_text_line_is_cut_and_still_one_line)
{
    long_line_is_one_line(LOG_TEXT, "abc def");
    long_line_is_one_line(LOG_TEXT, "\xff");
}

Test(log, long_json_line_is_cut_and_still_json)
{
    long_line_is_one_line(LOG_JSON, "abc");
    long_line_is_one_line(LOG_JSON, "\"\xff");
}

Test(log, cut_text_says_so)
{
    static char text[6001];
    struct fixture f;

    memset(text, 'x', sizeof text - 1);
    fixture_open(&f, LOG_TEXT);
    log_write(&f.log, LOG_INFO, "%s", text);
    written(&f);
    cr_assert_str_eq(f.line + strlen(f.line) - 5, "x...\n");
    fixture_close(&f);
}

Test(log, slow_reader_loses_lines_never_blocks_and_is_told, .timeout = 10)
{
    struct fixture f;
    unsigned long long lost = 0;
    char *at;

    fixture_open(&f, LOG_TEXT);
    while (f.log.dropped < 5)
        log_write(&f.log, LOG_INFO, "a line");
    while (written(&f)[0] != '\0')
        ;
    log_write(&f.log, LOG_INFO, "the next");
    cr_assert_not_null(at = strstr(written(&f), " lost="));
    cr_assert_eq(sscanf(at, " lost=%llu", &lost), 1);
    cr_assert_eq(lost, 5);
    log_write(&f.log, LOG_INFO, "and on");
    cr_assert_str_eq(written(&f), "homeport worker 1: info: and on\n");
    fixture_close(&f);
}

Test(log, lost_lines_are_a_number_in_json)
{
    struct fixture f;

    fixture_open(&f, LOG_JSON);
    f.log.dropped = 7;
    log_write(&f.log, LOG_INFO, "the next");
    json_t *line = written_json(&f);
    cr_assert_eq(json_integer_value(json_object_get(line, "lost")), 7);
    json_decref(line);
    fixture_close(&f);
}

/* SIGPIPE has its default action here: a write to a pipe without a reader would end the test. */
Test(log, reader_that_went_away_or_no_descriptor_is_a_lost_line)
{
    struct fixture f;

    fixture_open(&f, LOG_TEXT);
    signal(SIGPIPE, SIG_DFL);
    close(f.reader);
    f.reader = -1;
    log_write(&f.log, LOG_INFO, "nobody reads");
    cr_assert_eq(f.log.dropped, 1);
    fixture_close(&f);
    log_write(&f.log, LOG_INFO, "nobody could");
    cr_assert_eq(f.log.dropped, 2);
}

Test(log, failure_is_cause_and_next_step)
{
    struct fixture f;
    struct error error = {0};

    fixture_open(&f, LOG_TEXT);
    error_set(&error, -EACCES, "cannot bind 0.0.0.0:500: Permission denied");
    error_next(&error, "start as root");
    log_failure(&f.log, LOG_ERROR, &error);
    cr_assert_str_eq(written(&f),
                     "homeport worker 1: error: cannot bind 0.0.0.0:500: Permission denied; start as root\n");
    fixture_close(&f);
}
