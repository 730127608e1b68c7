/* SPDX-License-Identifier: Apache-2.0 */
/* Judging a descriptor before anything of the plugin is called. Private to core/plugin. */
#ifndef PLUGIN_NEGOTIATE_H
#define PLUGIN_NEGOTIATE_H

#include "plugin/plugin.h"

#include <stdbool.h>

/* Copies what both sides know of the exported descriptor (size: of the symbol) into plugin->descriptor and checks it.
 * Errors: -ENOEXEC, naming both sides or the damaged field, and the remedy. */
int plugin_negotiate(struct plugin *plugin, const void *exported, size_t size, struct error *error);

/* The option at a position; steps by the plugin's own size of an entry. */
const struct hp_option *plugin_option(const struct hp_plugin *descriptor, uint32_t position);
/* Position of the duration that records live for; UINT32_MAX: none (a plugin with select alone may have none). */
uint32_t plugin_ttl_option(const struct hp_plugin *descriptor);

#endif
