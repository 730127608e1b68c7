/* SPDX-License-Identifier: Apache-2.0 */
/* A text, what was read from it, and what was said about it. */
#ifndef TEST_CONFIG_READING_H
#define TEST_CONFIG_READING_H

#include "config/config.h"

#define SAMPLE_MAX 8192u

struct reading {
    int status;
    struct config *config;           /* NULL unless status is 0 */
    struct diagnostics *diagnostics; /* NULL: no memory for it */
    char said[65536];                /* as diagnostics_print has it, the file's name being "f" */
};

/* text: must outlive the reading. */
void reading_open(struct reading *reading, const char *text, size_t size);
void reading_close(struct reading *reading);
void reading_print(struct reading *reading); /* into said, once more */
/* The n-th line of what was said that begins with "f:", without the "f:"; "" when there are fewer. */
const char *reading_message(struct reading *reading, unsigned n, char *line, size_t size);

/* A file of the folder configs. Returns its size. */
size_t sample_read(char text[SAMPLE_MAX], const char *name);
extern const char *const sample_names[]; /* NULL at the end */

#endif
