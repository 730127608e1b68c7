/* SPDX-License-Identifier: Apache-2.0 */
/* From what the user wrote to what the plugin gets: fallbacks, the profile's options, each service's own. Everything
 * that is wrong is reported, each at its place, before the plugin's own check() is asked; that one only runs on values
 * that are right by the table. */
#include "plugin/values.h"

#include "plugin/host.h"
#include "plugin/negotiate.h"
#include "plugin/option.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct reader { /* of one list of options: the profile's, or a service's */
    struct profile_values *values;
    struct diagnostics *diagnostics;
    const struct config_option *written;
    uint32_t count;
    const struct config_service *service; /* NULL: the profile's list */
    struct hp_value *row;
};

static uint32_t option_count(const struct profile_values *values)
{
    return values->plugin->descriptor.option_count;
}

static const struct hp_option *option_at(const struct profile_values *values, uint32_t position)
{
    return plugin_option(&values->plugin->descriptor, position);
}

static bool is_per_service(const struct hp_option *option)
{
    return (option->flags & HP_OPTION_PER_SERVICE) != 0;
}

static const struct config_option *find_written(const struct config_option *written, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(written[i].name, name) == 0)
            return &written[i];
    return NULL;
}

static uint32_t find_option(const struct profile_values *values, const char *name)
{
    uint32_t i = 0;

    while (i < option_count(values) && strcmp(option_at(values, i)->name, name) != 0)
        i++;
    return i;
}

static void report_unknown(const struct reader *reader, const struct config_option *written)
{
    const struct profile_values *values = reader->values;
    const char **names = calloc(option_count(values) + 1u, sizeof *names);
    const char *closest = NULL;

    if (names != NULL) {
        for (uint32_t i = 0; i < option_count(values); i++)
            names[i] = option_at(values, i)->name;
        closest = config_closest(written->name, names, option_count(values));
    }
    diagnostics_add(reader->diagnostics, SEVERITY_ERROR, written->name_at, "plugin %s has no option `%.64s`%s%s%s",
                    values->plugin->descriptor.name, written->name, closest != NULL ? ": did you mean `" : "",
                    closest != NULL ? closest : "", closest != NULL ? "`?" : "");
    free(names);
}

/* Unknown names, and names at the wrong place. */
static void check_names(const struct reader *reader)
{
    for (uint32_t i = 0; i < reader->count; i++) {
        const struct config_option *written = &reader->written[i];
        uint32_t position = find_option(reader->values, written->name);

        if (position == option_count(reader->values))
            report_unknown(reader, written);
        else if (is_per_service(option_at(reader->values, position)) && reader->service == NULL)
            diagnostics_add(
                reader->diagnostics, SEVERITY_ERROR, written->name_at,
                "`%s` is an option per service: write `persistence: { profile: %s, %s: ... }` at the service",
                written->name, reader->values->profile->name, written->name);
        else if (!is_per_service(option_at(reader->values, position)) && reader->service != NULL)
            diagnostics_add(reader->diagnostics, SEVERITY_ERROR, written->name_at,
                            "`%s` is an option of the whole profile: write it under `options` of %s", written->name,
                            reader->values->profile->name);
    }
}

/* Name of a service of this profile -> its id. */
static bool parse_service(struct hp_value *out, const struct profile_values *values, const char *text)
{
    for (uint32_t id = 0; id < values->view.service_count; id++)
        if (strcmp(values->service_configs[id]->name, text) == 0) {
            out->kind = HP_OPTION_SERVICE;
            out->as.integer = id;
            return true;
        }
    return false;
}

static void report_service(const struct reader *reader, const struct config_option *written)
{
    const struct profile_values *values = reader->values;
    const struct config *config = values->config;
    const char **names = calloc(values->view.service_count + 1u, sizeof *names);
    const char *closest = NULL;
    bool exists = false;

    for (uint32_t i = 0; i < config->service_count; i++)
        exists = exists || strcmp(config->services[i].name, written->text) == 0;
    if (names != NULL) {
        for (uint32_t id = 0; id < values->view.service_count; id++)
            names[id] = values->service_configs[id]->name;
        closest = config_closest(written->text, names, values->view.service_count);
    }
    if (exists)
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, written->text_at,
                        "`%s`: service %s has not the profile %s: give it `persistence: %s`", written->name,
                        written->text, values->profile->name, values->profile->name);
    else
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, written->text_at,
                        "`%s`: there is no service `%.64s`%s%s%s", written->name, written->text,
                        closest != NULL ? ": did you mean `" : "", closest != NULL ? closest : "",
                        closest != NULL ? "`?" : "");
    free(names);
}

static void read_written(const struct reader *reader, uint32_t position, const struct config_option *written)
{
    const struct profile_values *values = reader->values;
    const struct hp_option *option = option_at(values, position);
    struct hp_value *value = &reader->row[position];
    char why[OPTION_WHY];

    if (option->kind == HP_OPTION_SERVICE) {
        if (!parse_service(value, values, written->text)) {
            report_service(reader, written);
            return;
        }
    } else if (!option_parse(value, option, position == plugin_ttl_option(&values->plugin->descriptor), written->text,
                             why)) {
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, written->text_at, "`%s`: `%.64s` %s", written->name,
                        written->text, why);
        return;
    }
    value->given = 2;
}

static void report_missing(const struct reader *reader, const struct hp_option *option)
{
    const struct profile_values *values = reader->values;

    diagnostics_add(reader->diagnostics, SEVERITY_ERROR,
                    reader->service != NULL ? reader->service->persistence_at : values->profile->at,
                    "%s lacks the option `%s`, which plugin %s needs",
                    reader->service != NULL ? reader->service->name : values->profile->name, option->name,
                    values->plugin->descriptor.name);
}

static void read_list(const struct reader *reader)
{
    const struct profile_values *values = reader->values;

    check_names(reader);
    for (uint32_t i = 0; i < option_count(values); i++) {
        const struct hp_option *option = option_at(values, i);
        const struct config_option *written;

        if (is_per_service(option) != (reader->service != NULL))
            continue;
        written = find_written(reader->written, reader->count, option->name);
        if (written != NULL)
            read_written(reader, i, written);
        else if ((option->flags & HP_OPTION_REQUIRED) != 0)
            report_missing(reader, option);
    }
}

/* Fallbacks into the profile's row; each service's row begins as a copy of it. */
static void read_fallbacks(struct profile_values *values, struct diagnostics *diagnostics)
{
    const struct plugin *plugin = values->plugin;
    char why[OPTION_WHY];

    for (uint32_t i = 0; i < option_count(values); i++) {
        const struct hp_option *option = option_at(values, i);

        values->values[i] = option_absent(option);
        if (option->fallback == NULL)
            continue;
        if (option_parse(&values->values[i], option, i == plugin_ttl_option(&plugin->descriptor), option->fallback,
                         why))
            values->values[i].given = 1;
        else
            diagnostics_add(diagnostics, SEVERITY_ERROR, values->profile->plugin_at,
                            "plugin %s: its own default of `%s`: `%.64s` %s", plugin->descriptor.name, option->name,
                            option->fallback, why);
    }
}

static void read_all(struct profile_values *values, struct diagnostics *diagnostics)
{
    struct reader reader = {.values = values,
                            .diagnostics = diagnostics,
                            .written = values->profile->options,
                            .count = values->profile->option_count,
                            .row = values->values};

    read_fallbacks(values, diagnostics);
    read_list(&reader);
    for (uint32_t id = 0; id < values->view.service_count; id++) {
        reader.service = values->service_configs[id];
        reader.written = reader.service->options;
        reader.count = reader.service->option_count;
        reader.row += option_count(values);
        if (option_count(values) > 0)
            memcpy(reader.row, values->values, option_count(values) * sizeof *reader.row);
        read_list(&reader);
    }
}

static bool services_fill(struct profile_values *self, const struct config *config, uint32_t profile)
{
    for (uint32_t i = 0; i < config->service_count; i++) {
        uint32_t id = self->view.service_count;

        self->ids[i] = -1;
        if (config->services[i].profile != (int32_t)profile)
            continue;
        self->ids[i] = (int32_t)id;
        self->service_configs[id] = &config->services[i];
        self->service_pointers[id] = &self->services[id];
        if (!service_view_fill(&self->services[id], config, &config->services[i], id,
                               self->values + (size_t)(id + 1) * option_count(self)))
            return false;
        self->view.service_count++;
    }
    return true;
}

static bool allocate(struct profile_values *self, const struct config *config)
{
    size_t services = config->service_count + 1u;

    self->values = calloc((services + 1) * (option_count(self) + 1u), sizeof *self->values);
    self->services = calloc(services, sizeof *self->services);
    self->service_pointers = calloc(services, sizeof(void *));
    self->service_configs = calloc(services, sizeof(void *));
    self->ids = calloc(services, sizeof *self->ids);
    return self->values != NULL && self->services != NULL && self->service_pointers != NULL &&
           self->service_configs != NULL && self->ids != NULL;
}

/* The plugin's own rules. An answer below 0 without a word is an error as well. */
static void ask_plugin(struct profile_values *values, struct diagnostics *diagnostics)
{
    const struct hp_plugin *descriptor = &values->plugin->descriptor;
    struct instance instance;
    uint32_t before = diagnostics_errors(diagnostics);

    if (descriptor->check == NULL)
        return;
    instance_init(&instance, values, diagnostics);
    if (descriptor->check(&instance.host, &values->view) < 0 && diagnostics_errors(diagnostics) == before)
        diagnostics_add(diagnostics, SEVERITY_ERROR, values->profile->at,
                        "plugin %s does not accept the options of profile %s and does not say why", descriptor->name,
                        values->profile->name);
}

int profile_values_open(struct profile_values **out, const struct plugin *plugin, const struct config *config,
                        uint32_t profile, struct diagnostics *diagnostics)
{
    struct profile_values *self = calloc(1, sizeof *self);
    uint32_t errors = diagnostics_errors(diagnostics);

    if (self == NULL)
        return -ENOMEM;
    self->config = config;
    self->profile = &config->profiles[profile];
    self->plugin = plugin;
    if (!allocate(self, config) || !services_fill(self, config, profile)) {
        profile_values_close(self);
        return -ENOMEM;
    }
    self->view.size = sizeof self->view;
    self->view.name = self->profile->name;
    self->view.values = self->values;
    self->view.services = self->service_pointers;
    read_all(self, diagnostics);
    if (diagnostics_errors(diagnostics) == errors) {
        profile_values_judge(self, diagnostics);
        ask_plugin(self, diagnostics);
    }
    if (diagnostics_errors(diagnostics) != errors) {
        profile_values_close(self);
        return -EINVAL;
    }
    *out = self;
    return 0;
}

void profile_values_close(struct profile_values *values)
{
    if (values == NULL)
        return;
    free(values->values);
    free(values->services);
    free(values->service_pointers);
    free(values->service_configs);
    free(values->ids);
    free(values);
}

const struct hp_profile *profile_values_view(const struct profile_values *values)
{
    return &values->view;
}

int32_t profile_values_service(const struct profile_values *values, uint32_t service)
{
    return service < values->config->service_count ? values->ids[service] : -1;
}

struct position profile_values_position(const struct profile_values *values, uint32_t service, uint32_t option)
{
    const struct config_service *at = service < values->view.service_count ? values->service_configs[service] : NULL;
    const struct config_option *written = NULL;

    if (option < option_count(values)) {
        const char *name = option_at(values, option)->name;

        if (at != NULL)
            written = find_written(at->options, at->option_count, name);
        if (written == NULL)
            written = find_written(values->profile->options, values->profile->option_count, name);
    }
    if (written != NULL)
        return written->text_at;
    return at != NULL ? at->persistence_at : values->profile->at;
}

void profile_values_problem(const struct profile_values *values, struct diagnostics *diagnostics, uint32_t service,
                            uint32_t option, const char *text)
{
    static const char warning[] = "warning: ";
    bool is_warning = strncmp(text, warning, sizeof warning - 1) == 0;

    diagnostics_add(diagnostics, is_warning ? SEVERITY_WARNING : SEVERITY_ERROR,
                    profile_values_position(values, service, option), "%s",
                    is_warning ? text + sizeof warning - 1 : text);
}
