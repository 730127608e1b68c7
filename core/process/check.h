/* SPDX-License-Identifier: Apache-2.0 */
/* The check child: short-lived, sandboxed, reads the configuration, loads every plugin it names, and hands back a plan.
 * Start, reload and `homeport check` use this one piece of code. */
#ifndef PROCESS_CHECK_H
#define PROCESS_CHECK_H

#include "process/plan.h"
#include <uv.h>

struct check;

/* plan: NULL when the check failed (error has a line that says so; the findings are in the text). text: what the child
 * wrote to standard error, NUL-ended. Both live until check_close. */
typedef void (*check_done)(void *arg, const struct plan *plan, const char *text, const struct error *error);

/* source: the sealed configuration, borrowed until done. done is called once, never from within check_start. */
int check_start(struct check **out, uv_loop_t *loop, int source, const char *path, check_done done, void *arg,
                struct error *error);
/* Kills the child when it still runs (done is then not called). The memory goes when the loop has let go. NULL is fine.
 */
void check_close(struct check *check);
pid_t check_pid(const struct check *check); /* of its child */

/* [check] The child's own main: argv is NAME _check PATH. Status CHECK_NOT_BEGUN: standard error has one line that says
 * why it could not even look at the file. */
#define CHECK_NOT_BEGUN 3
int check_main(int argc, char **argv);

#endif
