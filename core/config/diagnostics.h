/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with a file, all of it, in the order of the file: FILE:LINE:COLUMN: error: …, the line, a caret. */
#ifndef CONFIG_DIAGNOSTICS_H
#define CONFIG_DIAGNOSTICS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct position { /* from 1; line 0: about the file as a whole */
    uint32_t line, column;
};
enum severity { SEVERITY_ERROR, SEVERITY_WARNING };
struct diagnostics; /* borrows the text of the file, which must outlive it */

int diagnostics_open(struct diagnostics **out, const char *path, const char *text, size_t size);
void diagnostics_close(struct diagnostics *diagnostics);
void diagnostics_add(struct diagnostics *diagnostics, enum severity severity, struct position at, const char *format,
                     ...) __attribute__((format(printf, 4, 5)));
uint32_t diagnostics_errors(const struct diagnostics *diagnostics);
uint32_t diagnostics_warnings(const struct diagnostics *diagnostics);
/* Sorted by position, bounded to 50 errors with a closing line for the rest. */
void diagnostics_print(const struct diagnostics *diagnostics, FILE *stream);

#endif
