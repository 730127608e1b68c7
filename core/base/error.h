/* SPDX-License-Identifier: Apache-2.0 */
/* An error is a code, a cause and the user's next step: filled once where it is known, prefixed on the way up, printed
 * once at the top. Any process. Nothing here allocates. Data-path functions return codes and count instead. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>

struct error {
    int code;       /* negative errno value; 0: no error */
    char what[384]; /* "cannot bind 0.0.0.0:500: Address already in use" */
    char next[256]; /* "see who has it: ss -lunp 'sport = :500'"; "" when there is no good advice */
};

/* Fills the error (next is cleared) and returns code, so that a failing line is one line. error may be NULL. */
int error_set(struct error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Adds the user's next step; returns error->code. */
int error_next(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prefixes what with "CONTEXT: "; returns error->code. */
int error_under(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* One line into text: "WHAT; NEXT". Returns text. */
const char *error_line(const struct error *error, char *text, unsigned long size);

#endif
