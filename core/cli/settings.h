/* SPDX-License-Identifier: Apache-2.0 */
/* What the command itself needs of the configuration file. Findings are the business of `homeport check`: nothing is
 * printed here. */
#ifndef CLI_SETTINGS_H
#define CLI_SETTINGS_H

#include "cli/arguments.h"
#include "config/config.h"

#define SETTINGS_STATE "/run/homeport"

struct settings {
    char *text;
    size_t size;
    struct config *config; /* NULL: the file has errors */
    bool root;             /* run by root */
};
/* Errors: the file cannot be read. A file with errors is none: config is NULL. */
int settings_read(struct settings *out, const char *path, struct error *error);
void settings_free(struct settings *settings);
/* Where the daemon of these arguments has its control socket. Works with a file that has errors: who wants to reload it
 * must be told so by the daemon. Errors: a file that the user named (-c) cannot be read; without -c the default holds.
 */
int settings_state(const struct arguments *arguments, char *folder, size_t size, struct error *error);

#endif
