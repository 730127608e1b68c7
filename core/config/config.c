/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"

#include "config/machine.h"
#include "config/reader.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_STATE "/run/homeport"
#define DEFAULT_CAPACITY 65536u

/* The file: its sections in the order in which they build on each other. */
static const struct key sections[] = {
    {"workers", read_workers, offsetof(struct config, workers), .low = 1, .high = CONFIG_WORKERS_MAX},
    {"user", .read = read_user, .offset = offsetof(struct config, user)},
    {"state", .read = read_state, .offset = offsetof(struct config, state)},
    {"plugin_path", .read = read_plugin_path},
    {"log", .read = read_log},
    {"affinity", .read = read_affinity},
    {"sessions", .read = read_sessions},
    {.name = "metrics"},
    {"servers", read_servers, .required = true},
    {"pools", read_pools, .required = true},
    {"persistence", .read = read_profiles},
    {"services", read_services, .required = true},
    {.name = NULL},
};

static void set_defaults(struct reader *reader, const char *path)
{
    struct config *config = reader->config;

    config->path = reader_copy(reader, path);
    config->state = reader_copy(reader, DEFAULT_STATE);
    config->plugin_path = reader_array(reader, 1, sizeof *config->plugin_path);
    if (config->plugin_path != NULL) {
        config->plugin_path[0] = reader_copy(reader, HOMEPORT_PLUGIN_FOLDER);
        config->plugin_path_count = 1;
    }
    config->log_level = LOG_INFO;
    config->log_format = LOG_TEXT;
    config->affinity_capacity = config->sessions_capacity = DEFAULT_CAPACITY;
    config->idle_ms = 120 * 1000;
    config->idle_unproven_ms = 10 * 1000;
    config->port_first = 10240;
    config->port_last = 29999;
}

static void read_model(struct reader *reader)
{
    if (reader->root->kind == NODE_NOTHING) {
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, (struct position){0, 0},
                        "the file is empty: servers, pools and services are needed");
        return;
    }
    reader_mapping(reader, reader->root, sections, reader->config);
    if (reader->config->workers == 0)
        reader->config->workers = machine_cpus() < CONFIG_WORKERS_MAX ? machine_cpus() : CONFIG_WORKERS_MAX;
    if (!reader->out_of_memory)
        check_config(reader);
}

static int read_tree(struct config **out, const char *path, const struct node *root, struct diagnostics *diagnostics)
{
    struct reader reader = {.diagnostics = diagnostics, .root = root, .config = calloc(1, sizeof *reader.config)};
    int status = -ENOMEM;

    if (reader.config == NULL)
        return -ENOMEM;
    set_defaults(&reader, path);
    if (!reader.out_of_memory)
        read_model(&reader);
    if (!reader.out_of_memory)
        status = diagnostics_errors(diagnostics) > 0 ? -EINVAL : 0;
    if (status == 0)
        *out = reader.config;
    else
        config_free(reader.config);
    return status;
}

int config_read(struct config **out, const char *path, const char *text, size_t size, struct diagnostics *diagnostics)
{
    struct node *root = NULL;
    int status;

    if (size > CONFIG_TEXT_MAX) {
        diagnostics_add(diagnostics, SEVERITY_ERROR, (struct position){0, 0},
                        "the file has %zu octets: more than %u is no configuration", size, CONFIG_TEXT_MAX);
        return -EINVAL;
    }
    status = tree_read(&root, text, size, diagnostics);
    if (status < 0)
        return status;
    status = read_tree(out, path, root, diagnostics);
    tree_free(root);
    return status;
}

static void free_options(struct config_option *options, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        free(options[i].name);
        free(options[i].text);
    }
    free(options);
}

static void free_source(struct config_source *source)
{
    free(source->addresses);
    free(source->addresses_at);
}

static void free_services(struct config *config)
{
    for (uint32_t i = 0; i < config->service_count; i++) {
        free(config->services[i].name);
        free(config->services[i].listen);
        free(config->services[i].listen_at);
        free_source(&config->services[i].source);
        free_options(config->services[i].options, config->services[i].option_count);
    }
    free(config->services);
}

static void free_profiles(struct config *config)
{
    for (uint32_t i = 0; i < config->profile_count; i++) {
        free(config->profiles[i].name);
        free(config->profiles[i].plugin);
        free_options(config->profiles[i].options, config->profiles[i].option_count);
    }
    free(config->profiles);
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    free_services(config);
    free_profiles(config);
    for (uint32_t i = 0; i < config->pool_count; i++) {
        free(config->pools[i].name);
        free(config->pools[i].servers);
        free_source(&config->pools[i].source);
    }
    for (uint32_t i = 0; i < config->server_count; i++)
        free(config->servers[i].name);
    for (uint32_t i = 0; i < config->plugin_path_count; i++)
        free(config->plugin_path[i]);
    free(config->pools);
    free(config->servers);
    free(config->plugin_path);
    free(config->path);
    free(config->user);
    free(config->state);
    free(config);
}
