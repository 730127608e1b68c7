/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: look through the folders for files that could be plugins; a child for each loads it and says what it
 * declares; print.
 * Fails: it is no plugin, or of another ABI -> an error line for it, the others are listed, exit status 1
 *        it crashes or hangs                -> the same: it was only its child */
#include "cli/arguments.h"
#include "cli/child.h"
#include "cli/client.h"
#include "cli/settings.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "plugin/plugin.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOLDERS 64u
#define PLUGINS 256u

static const struct usage usage = {
    .verb = "plugins",
    .operands = "[NAME|PATH]",
    .text = "Lists the persistence plugins of plugin_path, or describes one: what it does, its options with\n"
            "kind, default and range, its counters and record tables. Each is loaded by a process of its\n"
            "own: one that crashes is reported and the others are listed all the same.",
    .example = "homeport plugins port_following",
    .options = ARGUMENT_CONFIG | ARGUMENT_JSON,
    .most = 1,
};

struct folders { /* in the order in which plugin_load searches */
    char *paths[FOLDERS];
    uint32_t count;
    bool root;           /* run by root */
    uint32_t configured; /* from here on they are plugin_path's; plugin_load adds those before by itself */
};

static void add_folder(struct folders *folders, const char *path)
{
    if (folders->count < FOLDERS && path[0] != '\0')
        folders->paths[folders->count++] = strdup(path);
}

static void add_environment(struct folders *folders)
{
    const char *value = folders->root ? NULL : getenv("HOMEPORT_PLUGIN_PATH");
    char *copy = value != NULL ? strdup(value) : NULL, *rest = copy;
    const char *folder;

    while (rest != NULL && (folder = strsep(&rest, ":")) != NULL)
        add_folder(folders, folder);
    free(copy);
}

/* Run from the build tree (build/core/homeport), the tree's plugins come first. */
static void add_build_tree(struct folders *folders)
{
    char path[PATH_MAX + 16];
    ssize_t size = readlink("/proc/self/exe", path, PATH_MAX - 1);
    char *slash;

    if (size <= 0)
        return;
    path[size] = '\0';
    slash = strstr(path, "/core/homeport");
    if (slash == NULL || strcmp(slash, "/core/homeport") != 0)
        return;
    strcpy(slash, "/plugins");
    add_folder(folders, path);
}

static int find_folders(struct folders *folders, const struct arguments *arguments, struct error *error)
{
    struct settings settings = {0};
    int status = settings_read(&settings, arguments->config, error);

    if (status < 0 && arguments->config_written)
        return status;
    folders->root = geteuid() == 0;
    add_environment(folders);
    add_build_tree(folders);
    folders->configured = folders->count;
    if (settings.config == NULL)
        add_folder(folders, HOMEPORT_PLUGIN_FOLDER);
    for (uint32_t i = 0; settings.config != NULL && i < settings.config->plugin_path_count; i++)
        add_folder(folders, settings.config->plugin_path[i]);
    settings_free(&settings);
    *error = (struct error){0};
    return 0;
}

struct candidates {
    char *paths[PLUGINS];
    uint32_t count;
};

static bool is_known(const struct candidates *candidates, const char *file)
{
    for (uint32_t i = 0; i < candidates->count; i++)
        if (strcmp(strrchr(candidates->paths[i], '/') + 1, file) == 0)
            return true;
    return false;
}

/* FOLDER/NAME/NAME.so, then FOLDER/NAME.so; the first of a name wins. */
static void consider(struct candidates *candidates, const char *folder, const char *entry)
{
    char path[PATH_MAX], file[NAME_MAX + 4];
    size_t size = strlen(entry);

    if (entry[0] == '.' || candidates->count == PLUGINS)
        return;
    if (size > 3 && strcmp(entry + size - 3, ".so") == 0) {
        snprintf(file, sizeof file, "%s", entry);
        snprintf(path, sizeof path, "%s/%s", folder, entry);
    } else {
        snprintf(file, sizeof file, "%s.so", entry);
        snprintf(path, sizeof path, "%s/%s/%s", folder, entry, file);
    }
    if (access(path, R_OK) == 0 && !is_known(candidates, file))
        candidates->paths[candidates->count++] = strdup(path);
}

static int by_file(const void *a, const void *b)
{
    return strcmp(strrchr(*(char *const *)a, '/'), strrchr(*(char *const *)b, '/'));
}

static void find_candidates(struct candidates *candidates, const struct folders *folders)
{
    for (uint32_t i = 0; i < folders->count; i++) {
        DIR *directory = opendir(folders->paths[i]);
        const struct dirent *entry;

        if (directory == NULL)
            continue;
        while ((entry = readdir(directory)) != NULL)
            consider(candidates, folders->paths[i], entry->d_name);
        closedir(directory);
    }
    qsort(candidates->paths, candidates->count, sizeof candidates->paths[0], by_file);
}

static const char *kind_name(uint32_t kind)
{
    static const char *const names[] = {
        "", "bool", "integer", "duration", "choice", "string", "mask (IPv4)", "prefix length (IPv6)", "service"};

    return kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

static const struct hp_option *option_at(const struct hp_plugin *plugin, uint32_t i)
{
    return (const struct hp_option *)(const void *)((const char *)plugin->options + (size_t)i * plugin->option_size);
}

static json_t *options_array(const struct hp_plugin *plugin)
{
    json_t *array = json_array();

    for (uint32_t i = 0; i < plugin->option_count; i++) {
        const struct hp_option *option = option_at(plugin, i);

        json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:b, s:s?, s:s?, s:s?}", "name", option->name, "kind",
                                               kind_name(option->kind), "where",
                                               option->flags & HP_OPTION_PER_SERVICE ? "service" : "profile",
                                               "required", (option->flags & HP_OPTION_REQUIRED) != 0, "default",
                                               option->fallback, "range", option->range, "help", option->help));
    }
    return array;
}

struct described {
    const char *name;
    const struct folders *folders;
};

/* [child] */
static json_t *describe(void *arg, char *doing, struct error *error)
{
    const struct described *described = arg;
    const struct folders *folders = described->folders;
    struct plugin *plugin;
    const struct hp_plugin *own;
    json_t *counters, *tables;

    snprintf(doing, 128, "plugin %.100s", described->name);
    if (plugin_load(&plugin, described->name, (const char *const *)folders->paths + folders->configured,
                    folders->count - folders->configured, folders->root, error) < 0)
        return NULL;
    own = &plugin->descriptor;
    counters = json_array();
    for (uint32_t i = 0; i < own->counter_count; i++)
        json_array_append_new(counters,
                              json_pack("{s:s, s:s?}", "name", own->counters[i].name, "help", own->counters[i].help));
    tables = json_array();
    for (uint32_t i = 0; i < own->table_count; i++)
        json_array_append_new(tables, json_string(own->tables[i]));
    return json_pack("{s:s, s:s, s:s?, s:s?, s:s?, s:o, s:s, s:s, s:b, s:o, s:o, s:o}", "path", plugin->path, "name",
                     own->name, "version", own->version, "summary", own->summary, "author", own->author, "abi",
                     json_sprintf("%u.%u", own->abi_major, own->abi_minor), "note", plugin->needs_note, "form",
                     own->select != NULL ? "select" : "derive_key", "explains", own->derive_key != NULL, "options",
                     options_array(own), "counters", counters, "tables", tables);
}

static void print_options(const json_t *options)
{
    static const char *const heads[] = {"OPTION", "KIND", "DEFAULT", "RANGE", "WRITTEN AT", "WHAT IT DOES"};
    struct table *table = table_open(heads, 6);
    const json_t *option;
    size_t i;

    json_array_foreach(options, i, option)
    {
        table_cell(table, "%s", answer_text(option, "name"));
        table_cell(table, "%s", answer_text(option, "kind"));
        table_cell(table, "%s",
                   json_is_true(json_object_get(option, "required")) ? "(required)" : answer_text(option, "default"));
        table_cell(table, "%s", answer_text(option, "range"));
        table_cell(table, "%s", answer_text(option, "where"));
        table_cell(table, "%s", answer_text(option, "help"));
    }
    table_print(table);
    table_close(table);
}

static void print_plugin(const json_t *plugin)
{
    const json_t *item;
    size_t i;

    printf("%s %s: %s\n  by %s, ABI %s, %s\n", answer_text(plugin, "name"), answer_text(plugin, "version"),
           answer_text(plugin, "summary"), answer_text(plugin, "author"), answer_text(plugin, "abi"),
           answer_text(plugin, "path"));
    if (answer_text(plugin, "note")[0] != '\0')
        printf("  note: %s\n", answer_text(plugin, "note"));
    json_array_foreach(json_object_get(plugin, "tables"), i, item)
        printf("  record table %s\n", json_string_value(item));
    json_array_foreach(json_object_get(plugin, "counters"), i, item)
        printf("  counter %s: %s\n", answer_text(item, "name"), answer_text(item, "help"));
    print_options(json_object_get(plugin, "options"));
    putchar('\n');
}

/* Exit status. found: the descriptions are added to it. */
static int describe_all(const struct candidates *candidates, const struct folders *folders, json_t *found)
{
    int status = 0;

    for (uint32_t i = 0; i < candidates->count; i++) {
        struct described described = {candidates->paths[i], folders};
        struct error error = {0};
        json_t *plugin;

        if (child_run(&plugin, describe, &described, &error) < 0)
            status = cli_failed("plugins", &error);
        else
            json_array_append_new(found, plugin);
    }
    return status;
}

static void print_all(const struct arguments *arguments, json_t *found)
{
    const json_t *plugin;
    size_t i;

    if (arguments->json) {
        json_t *answer = json_pack("{s:b, s:O}", "ok", 1, "plugins", found);

        json_dumpf(answer, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(answer);
        return;
    }
    json_array_foreach(found, i, plugin) print_plugin(plugin);
}

static void print_searched(const struct folders *folders)
{
    fputs("homeport plugins: no plugin found in", stderr);
    for (uint32_t i = 0; i < folders->count; i++)
        fprintf(stderr, " %s", folders->paths[i]);
    fputs("; name another folder with `plugin_path` in the configuration\n", stderr);
}

int cli_plugins(int argc, char **argv)
{
    struct arguments arguments;
    struct error error = {0};
    struct folders folders = {.count = 0};
    struct candidates candidates = {.count = 0};
    int status = arguments_read(&arguments, &usage, argc, argv);
    json_t *found;

    if (status >= 0)
        return status;
    if (find_folders(&folders, &arguments, &error) < 0)
        return cli_failed("plugins", &error);
    if (arguments.operand_count > 0)
        candidates.paths[candidates.count++] = strdup(arguments.operands[0]);
    else
        find_candidates(&candidates, &folders);
    found = json_array();
    status = describe_all(&candidates, &folders, found);
    if (candidates.count == 0) {
        print_searched(&folders);
        status = 1;
    }
    print_all(&arguments, found);
    json_decref(found);
    while (candidates.count > 0)
        free(candidates.paths[--candidates.count]);
    while (folders.count > 0)
        free(folders.paths[--folders.count]);
    return status;
}
