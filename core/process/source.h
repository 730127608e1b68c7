/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration's bytes: read once, sealed, so that all processes of a generation read what was checked. */
#ifndef PROCESS_SOURCE_H
#define PROCESS_SOURCE_H

#include "base/error.h"
#include <stddef.h>

/* [master, any verb] Reads the file into a sealed memfd. As root, a file that others can write is refused.
 * Errors: errno values of open, -EFBIG, -EPERM. */
int source_read(int *out, const char *path, struct error *error);
/* [any] Maps the bytes for reading; text is not ended by a NUL. Unmap with munmap(text, size) when size > 0. */
int source_map(int fd, const char **text, size_t *size, struct error *error);

#endif
