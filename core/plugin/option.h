/* SPDX-License-Identifier: Apache-2.0 */
/* One plugin option: from the user's text to a value, by the plugin's own table. The same notation and the same parser
 * for YAML, fallbacks and ranges. Private to core/plugin. */
#ifndef PLUGIN_OPTION_H
#define PLUGIN_OPTION_H

#include <homeport/plugin.h>
#include <stdbool.h>

#define OPTION_WHY 160

/* Parses text by kind and range. never: a duration may be `never` (INT64_MAX), whatever its range. SERVICE is not
 * parsed here: it needs the profile. text must live as long as the value. false: why is a phrase that
 * follows the text in the message. */
bool option_parse(struct hp_value *out, const struct hp_option *option, bool never, const char *text,
                  char why[OPTION_WHY]);
/* What an option holds that nobody wrote and that has no fallback. */
struct hp_value option_absent(const struct hp_option *option);

#endif
