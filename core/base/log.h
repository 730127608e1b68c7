/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines to standard error, text or JSON, one write() a line. Any process, one thread.
 *
 * Never blocks: when the reader of standard error is slow (poll says that it cannot take a line), the line is dropped
 * and counted, and the next line that gets through says how many are missing. Bytes from outside are escaped. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG }; /* written in this order in YAML */
enum log_format { LOG_TEXT, LOG_JSON };

struct log {
    enum log_level level;
    enum log_format format;
    int fd;           /* 2, but for tests */
    char process[16]; /* "master", "worker 1", "monitor", "check" */
    uint64_t dropped; /* lines lost since the last one that got through */
};

struct log_field { /* a named value behind the message: text form name=value, JSON form "name":"value" */
    const char *name;
    const char *text;
};

void log_init(struct log *log, const char *process);
void log_write(struct log *log, enum log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));
void log_fields(struct log *log, enum log_level level, const char *message, const struct log_field *fields,
                size_t count);
struct error;
void log_failure(struct log *log, enum log_level level, const struct error *error); /* "WHAT; NEXT" */

#endif
