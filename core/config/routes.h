/* SPDX-License-Identifier: Apache-2.0 */
/* What `source: transparent` needs of this machine's routes. Part of config_check_machine. */
#ifndef CONFIG_ROUTES_H
#define CONFIG_ROUTES_H

#include "config/config.h"

/* Warns, with the commands to give, where answers of a transparent service's servers would not come to us. */
void routes_check(const struct config *config, struct diagnostics *diagnostics);

#endif
