/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of negotiation. The plugin's minor may be older (what it does not have is absent) or newer (what we do not
 * know is ignored, said once), unless it needs more than we are. What it declares is checked in full here, so that
 * nothing later has to ask again. */
#include "plugin/negotiate.h"

#include <errno.h>
#include <stdalign.h>
#include <stdio.h>
#include <string.h>

#define SIZE_1_0 184u       /* of struct hp_plugin in ABI 1.0 */
#define OPTION_SIZE_1_0 40u /* of struct hp_option */
#define CRITICAL 0xffffu    /* unknown bits here are refused; those above are ignored */
#define OPTION_FLAGS (HP_OPTION_PER_SERVICE | HP_OPTION_REQUIRED)
#define OBSERVES (HP_OBSERVE_IKE_CLIENT | HP_OBSERVE_IKE_SERVER)
#define DECIDES (HP_DECIDE_IKE | HP_DECIDE_ESP_SPI)
#define TICK_MIN_MS 1000u

static int damaged(const struct plugin *plugin, struct error *error, const char *field)
{
    error_set(error, -ENOEXEC, "plugin %s: damaged descriptor: %s", plugin->path, field);
    return error_next(error, "rebuild it against homeport's sdk/");
}

const struct hp_option *plugin_option(const struct hp_plugin *descriptor, uint32_t position)
{
    return (const struct hp_option *)(const void *)((const char *)descriptor->options +
                                                    (size_t)position * descriptor->option_size);
}

uint32_t plugin_ttl_option(const struct hp_plugin *descriptor)
{
    uint32_t position = descriptor->ttl_option;

    if (descriptor->derive_key != NULL)
        return position;
    return position < descriptor->option_count && plugin_option(descriptor, position)->kind == HP_OPTION_DURATION
               ? position
               : UINT32_MAX;
}

static bool name_is_valid(const char *name)
{
    if (name == NULL || *name < 'a' || *name > 'z')
        return false;
    return name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static int check_option(const struct plugin *plugin, uint32_t position, struct error *error)
{
    const struct hp_option *option = plugin_option(&plugin->descriptor, position);
    char field[64];

    snprintf(field, sizeof field, "options[%u].name", position);
    if (!name_is_valid(option->name))
        return damaged(plugin, error, field);
    if (option->kind < HP_OPTION_BOOL || option->kind > HP_OPTION_SERVICE) {
        error_set(error, -ENOEXEC,
                  "plugin %s: option %s is of kind %u, which this homeport (plugin ABI %u.%u) does not know",
                  plugin->descriptor.name, option->name, option->kind, HP_ABI_MAJOR, HP_ABI_MINOR);
        return error_next(error, "update homeport");
    }
    if ((option->flags & CRITICAL & ~OPTION_FLAGS) != 0) {
        error_set(error, -ENOEXEC,
                  "plugin %s: option %s has flags 0x%x, which this homeport (plugin ABI %u.%u) does not know",
                  plugin->descriptor.name, option->name, option->flags & CRITICAL & ~OPTION_FLAGS, HP_ABI_MAJOR,
                  HP_ABI_MINOR);
        return error_next(error, "update homeport");
    }
    snprintf(field, sizeof field, "options[%u].range", position);
    return option->kind == HP_OPTION_CHOICE && option->range == NULL ? damaged(plugin, error, field) : 0;
}

static int check_options(const struct plugin *plugin, struct error *error)
{
    const struct hp_plugin *descriptor = &plugin->descriptor;
    int status = 0;

    if (descriptor->option_count == 0)
        return 0;
    if (descriptor->options == NULL)
        return damaged(plugin, error, "options");
    if (descriptor->option_size < OPTION_SIZE_1_0 || descriptor->option_size % alignof(struct hp_option) != 0)
        return damaged(plugin, error, "option_size");
    for (uint32_t i = 0; i < descriptor->option_count && status == 0; i++)
        status = check_option(plugin, i, error);
    return status;
}

/* derive_key's records need a lifetime: a duration that always has a value. */
static int check_ttl(const struct plugin *plugin, struct error *error)
{
    uint32_t position = plugin_ttl_option(&plugin->descriptor);
    const struct hp_option *option;

    if (position == UINT32_MAX)
        return 0;
    if (position >= plugin->descriptor.option_count)
        return damaged(plugin, error, "ttl_option");
    option = plugin_option(&plugin->descriptor, position);
    if (option->kind != HP_OPTION_DURATION || (option->fallback == NULL && (option->flags & HP_OPTION_REQUIRED) == 0))
        return damaged(plugin, error, "ttl_option");
    return 0;
}

static int check_declarations(const struct plugin *plugin, struct error *error)
{
    const struct hp_plugin *descriptor = &plugin->descriptor;

    if (descriptor->counter_count > 0 && descriptor->counters == NULL)
        return damaged(plugin, error, "counters");
    for (uint32_t i = 0; i < descriptor->counter_count; i++)
        if (descriptor->counters[i].name == NULL)
            return damaged(plugin, error, "counters");
    if (descriptor->table_count > 0 && descriptor->tables == NULL)
        return damaged(plugin, error, "tables");
    for (uint32_t i = 0; i < descriptor->table_count; i++)
        if (descriptor->tables[i] == NULL)
            return damaged(plugin, error, "tables");
    if (descriptor->derive_key == NULL && descriptor->select == NULL)
        return damaged(plugin, error, "neither derive_key nor select");
    if (descriptor->tick_ms != 0 && descriptor->tick_ms < TICK_MIN_MS)
        return damaged(plugin, error, "tick_ms");
    if (descriptor->decides != 0 && descriptor->select == NULL)
        return damaged(plugin, error, "decides without select");
    return 0;
}

static int check_bits(const struct plugin *plugin, struct error *error, const char *verb, uint32_t bits, uint32_t known)
{
    if ((bits & CRITICAL & ~known) == 0)
        return 0;
    error_set(error, -ENOEXEC, "plugin %s %s 0x%x, which this homeport (plugin ABI %u.%u) does not know",
              plugin->descriptor.name, verb, bits & CRITICAL & ~known, HP_ABI_MAJOR, HP_ABI_MINOR);
    return error_next(error, "update homeport");
}

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

int plugin_negotiate(struct plugin *plugin, const void *exported, size_t size, struct error *error)
{
    struct hp_plugin *descriptor = &plugin->descriptor;
    int status;

    if (size < SIZE_1_0)
        return damaged(plugin, error, "size");
    memcpy(descriptor, exported, SIZE_1_0);
    if (descriptor->abi_major != HP_ABI_MAJOR)
        return damaged(plugin, error, "abi_major");
    if (descriptor->size < SIZE_1_0 || descriptor->size % 8 != 0 || descriptor->size > size)
        return damaged(plugin, error, "size");
    memcpy(descriptor, exported, descriptor->size < sizeof *descriptor ? descriptor->size : sizeof *descriptor);
    if (descriptor->name == NULL || descriptor->name[0] == '\0')
        return damaged(plugin, error, "name");
    if (descriptor->needs_minor > HP_ABI_MINOR) {
        error_set(error, -ENOEXEC, "%s needs plugin ABI %u.%u, this homeport has %u.%u", descriptor->name, HP_ABI_MAJOR,
                  descriptor->needs_minor, HP_ABI_MAJOR, HP_ABI_MINOR);
        return error_next(error, "update homeport");
    }
    if (descriptor->abi_minor > HP_ABI_MINOR)
        snprintf(plugin->needs_note, sizeof plugin->needs_note,
                 "plugin %.32s was built for plugin ABI %u.%u, this homeport has %u.%u: what is newer is not used",
                 descriptor->name, HP_ABI_MAJOR, descriptor->abi_minor, HP_ABI_MAJOR, HP_ABI_MINOR);
    descriptor->version = or_empty(descriptor->version);
    descriptor->summary = or_empty(descriptor->summary);
    descriptor->author = or_empty(descriptor->author);
    status = check_options(plugin, error);
    if (status == 0)
        status = check_ttl(plugin, error);
    if (status == 0)
        status = check_declarations(plugin, error);
    if (status == 0)
        status = check_bits(plugin, error, "observes", descriptor->observes, OBSERVES);
    return status < 0 ? status : check_bits(plugin, error, "decides", descriptor->decides, DECIDES);
}
