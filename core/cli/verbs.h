/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of the command. Each gets argv with its own name as argv[0] and returns the exit status: 0 done, 1 it
 * failed, 2 usage. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

int cli_run(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_plugins(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_servers(int argc, char **argv);
int cli_sessions(int argc, char **argv);
int cli_affinity(int argc, char **argv);
int cli_trace(int argc, char **argv);
int cli_drop(int argc, char **argv);
int cli_reload(int argc, char **argv);
int cli_stop(int argc, char **argv);
int cli_demo(int argc, char **argv);
int cli_version(int argc, char **argv);

#endif
