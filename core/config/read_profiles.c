/* SPDX-License-Identifier: Apache-2.0 */
/* Persistence profiles and plugin options. What an option means only its plugin knows: here it is kept as written. */
#include "config/reader.h"

#include <stdlib.h>
#include <string.h>

uint32_t read_options(struct reader *reader, const struct node *mapping, const char *except, struct config_option **out)
{
    struct config_option *options;
    uint32_t count = 0;

    if (mapping->count == 0 || (options = reader_array(reader, mapping->count, sizeof *options)) == NULL)
        return 0;
    *out = options;
    for (const struct node *entry = mapping->first; entry != NULL; entry = entry->next) {
        struct config_option *option = &options[count];

        if ((except != NULL && strcmp(entry->key, except) == 0) ||
            !reader_wants(reader, entry, NODE_TEXT, "a single value"))
            continue;
        *option = (struct config_option){.name_at = entry->key_at, .text_at = entry->at};
        option->name = reader_copy(reader, entry->key);
        option->text = reader_copy(reader, entry->text);
        count++;
    }
    return count;
}

static void read_plugin(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct config_profile *profile = member;

    profile->plugin_at = node->at;
    read_text(reader, key, node, &profile->plugin);
}

static void read_profile_options(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    struct config_profile *profile = member;

    (void)key;
    if (reader_wants(reader, node, NODE_MAPPING, "a mapping of the plugin's options"))
        profile->option_count = read_options(reader, node, NULL, &profile->options);
}

void read_profiles(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    static const char *const on_failure[] = {"scheduler", "refuse", NULL};
    static const struct key keys[] = {
        {"plugin", read_plugin, .required = true},
        {"on_failure", read_choice, offsetof(struct config_profile, on_failure), .choices = on_failure},
        {"options", .read = read_profile_options},
        {.name = NULL},
    };
    struct config *config = reader->config;
    uint32_t count = reader_names(reader, node, "persistence profiles", SEGMENT_PROFILES);

    (void)key;
    (void)member;
    if (count == 0 || (config->profiles = reader_array(reader, count, sizeof *config->profiles)) == NULL)
        return;
    for (const struct node *entry = node->first; config->profile_count < count; entry = entry->next) {
        struct config_profile *profile = &config->profiles[config->profile_count];

        profile->name = reader_name(reader, entry);
        if (profile->name == NULL)
            return;
        config->profile_count++;
        profile->at = entry->key_at;
        reader_mapping(reader, entry, keys, profile);
    }
}
