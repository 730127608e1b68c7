/* SPDX-License-Identifier: Apache-2.0 */
/* Which key a client has at each service: the plugin's derive_key, asked in the command's own check child, with a host
 * that refuses everything. */
#ifndef CLI_EXPLAIN_H
#define CLI_EXPLAIN_H

#include "cli/arguments.h"

#include <jansson.h>

/* *out: an array with an object for each service: service, listen, profile, plugin (null without persistence), key and
 * readable (hexadecimal, text; null: none) and note (why there is no key). client: an address, checked. */
int explain_keys(json_t **out, const struct arguments *arguments, const char *client, struct error *error);

#endif
