/* SPDX-License-Identifier: Apache-2.0 */
/* The host side of the plugin ABI: find the file, negotiate, check options. Loads foreign code: check child and workers
 * only, never the master. Nothing is ever unloaded. */
#ifndef PLUGIN_PLUGIN_H
#define PLUGIN_PLUGIN_H

#include "base/error.h"
#include "config/config.h"
#include <homeport/plugin.h>

/* Breadcrumbs; names in plugin_operation_name. */
enum plugin_operation {
    PLUGIN_NONE,
    PLUGIN_LOAD,
    PLUGIN_CHECK,
    PLUGIN_CREATE,
    PLUGIN_DESTROY,
    PLUGIN_DERIVE_KEY,
    PLUGIN_SELECT,
    PLUGIN_OBSERVE,
    PLUGIN_SESSION_END,
    PLUGIN_TICK
};
const char *plugin_operation_name(uint32_t operation); /* any number is fine: it comes from the segment */

struct plugin { /* a loaded file */
    char path[512];
    uint64_t file;               /* which file it is, and in which state: another number after a replacement */
    struct hp_plugin descriptor; /* our own copy, absent members zero (abi.md section 4) */
    char needs_note[128];        /* "" or what to say once at info level (its minor is newer) */
};

/* Finds NAME on plugin_path (NAME/NAME.so, then NAME.so, in each folder in turn; $HOMEPORT_PLUGIN_PATH first for a user
 * who is not root; from the build tree the tree's plugins come first), or takes a path as it is. root: homeport was
 * started as root, whoever it is by now; then a file or folder that others can write is refused. dlopen with RTLD_NOW |
 * RTLD_LOCAL, negotiation as in abi.md section 4. Errors name both sides and the remedy. */
int plugin_load(struct plugin **out, const char *name, const char *const *path, uint32_t path_count, bool root,
                struct error *error);
void plugin_free(struct plugin *plugin); /* the host's part; the code stays mapped */

/* Values of one profile, by its plugin's option table: defaults, what the user wrote, and one row per service. Reports
 * unknown options (with did you mean), wrong types, ranges, missing required ones, options at the wrong place; then the
 * plugin's own check(). */
struct profile_values;
int profile_values_open(struct profile_values **out, const struct plugin *plugin, const struct config *config,
                        uint32_t profile, struct diagnostics *diagnostics);
void profile_values_close(struct profile_values *values);
const struct hp_profile *profile_values_view(const struct profile_values *values); /* what the plugin gets */
/* Position of the service in the profile's view, -1: not of this profile. service: position in config.services. */
int32_t profile_values_service(const struct profile_values *values, uint32_t service);

#endif
