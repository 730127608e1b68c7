/* SPDX-License-Identifier: Apache-2.0 */
/* Entry points of the processes that the command starts by fork and exec of itself. */
#ifndef PROCESS_PROCESS_H
#define PROCESS_PROCESS_H

#include "base/error.h"

/* Runs the daemon in the foreground until SIGTERM or SIGINT. Returns the exit status. path: the configuration. */
int master_run(const char *path);

/* Validates the file as the daemon would: the same check child. Messages go to standard error. Returns the exit status
 * (0: fine, warnings may have been printed). */
int check_run(const char *path);

/* The role of a started process: argv[1] is "_worker", "_monitor" or "_check". Not for users. Returns -1 when argv
 * names no role, else the exit status. */
int process_role_main(int argc, char **argv);

#endif
