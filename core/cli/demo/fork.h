/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_DEMO_FORK_H
#define CLI_DEMO_FORK_H

#include <sys/types.h>

/* fork, but the new process begins without the loop's signal handlers, which would take a signal that ends it, and in a
 * process group of its own: a Ctrl-C is for the demo, which ends things in order. -1: errno says why. */
pid_t fork_clean(void);

#endif
