/* SPDX-License-Identifier: Apache-2.0 */
/* The plugins that belong to this binary. Started as root, the daemon loads them as another user, who may not be able
 * to enter the folder that they were built in: so they are copied to where everybody can read. */
#ifndef CLI_DEMO_PLUGINS_H
#define CLI_DEMO_PLUGINS_H

#include "base/error.h"
#include <limits.h>

/* In the build tree, or where they were installed. binary: its path. folder: "" when they are in neither place. */
void plugins_find(char folder[PATH_MAX], const char *binary);
/* Copies every FROM/NAME/NAME.so to TO/NAME/NAME.so; TO is made. */
int plugins_copy(const char *from, const char *to, struct error *error);

#endif
