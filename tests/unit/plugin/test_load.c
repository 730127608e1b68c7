/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/negotiate.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const modules[] = {MODULES};

static int load(struct plugin **plugin, const char *name, struct error *error)
{
    return plugin_load(plugin, name, modules, 1, geteuid() == 0, error);
}

struct refusal {
    const char *file, *what, *next;
};

static const struct refusal refusals[] = {
    {"other_major", "was built for plugin ABI 3, this homeport speaks 1", "for ABI 1, or a homeport that speaks 3"},
    {"no_plugin", "is not a homeport plugin (no hp_plugin_v1)", "homeport/plugin.h"},
    {"short_symbol", "damaged descriptor: size", "rebuild"},
    {"undefined", "undefined symbol: nobody_has_this", "-Wl,-z,defs"},
    {"bad_major", "damaged descriptor: abi_major", "rebuild"},
    {"bad_size", "damaged descriptor: size", "rebuild"},
    {"bad_size_odd", "damaged descriptor: size", "rebuild"},
    {"bad_size_long", "damaged descriptor: size", "rebuild"},
    {"bad_name", "damaged descriptor: name", "rebuild"},
    {"bad_needs", "variant needs plugin ABI 1.4, this homeport has 1.0", "update homeport"},
    {"bad_option_name", "damaged descriptor: options[0].name", "rebuild"},
    {"bad_kind", "option timeout is of kind 9, which this homeport (plugin ABI 1.0) does not know", "update homeport"},
    {"bad_kind_0", "option timeout is of kind 0", "update homeport"},
    {"bad_flags", "option timeout has flags 0x8, which this homeport", "update homeport"},
    {"bad_choice", "damaged descriptor: options[0].range", "rebuild"},
    {"bad_options", "damaged descriptor: options", "rebuild"},
    {"bad_option_size", "damaged descriptor: option_size", "rebuild"},
    {"bad_option_step", "damaged descriptor: option_size", "rebuild"},
    {"bad_counters", "damaged descriptor: counters", "rebuild"},
    {"bad_tables", "damaged descriptor: tables", "rebuild"},
    {"bad_observes", "observes 0x100, which this homeport", "update homeport"},
    {"bad_ttl", "damaged descriptor: ttl_option", "rebuild"},
    {"bad_ttl_kind", "damaged descriptor: ttl_option", "rebuild"},
    {"bad_ttl_none", "damaged descriptor: ttl_option", "rebuild"},
    {"bad_tick", "damaged descriptor: tick_ms", "rebuild"},
    {"bad_decides", "damaged descriptor: neither derive_key nor select", "rebuild"},
    {"missing", "there is no plugin missing in " MODULES, "install missing/missing.so"},
    {"/nowhere/x.so", "there is no plugin file /nowhere/x.so", "correct the path"},
};

Test(load, each_bad_plugin_is_refused_by_cause_and_next_step)
{
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct plugin *plugin = NULL;
        struct error error = {0};

        cr_expect_lt(load(&plugin, refusals[i].file, &error), 0, "%s", refusals[i].file);
        cr_expect_null(plugin);
        cr_expect_not_null(strstr(error.what, refusals[i].what), "%s: %s", refusals[i].file, error.what);
        cr_expect_not_null(strstr(error.next, refusals[i].next), "%s: %s", refusals[i].file, error.next);
        cr_expect_null(strchr(error.what, '\n'));
    }
}

Test(load, a_right_plugin_loads_with_its_own_copy_of_the_descriptor)
{
    struct plugin *plugin;
    struct error error = {0};

    cr_assert_eq(load(&plugin, "variant", &error), 0, "%s", error.what);
    cr_assert_str_eq(plugin->descriptor.name, "variant");
    cr_assert_str_eq(plugin->descriptor.author, "", "what is absent is empty");
    cr_assert_null(plugin->descriptor.select);
    cr_assert_str_empty(plugin->needs_note);
    plugin_free(plugin);
}

Test(load, unknown_bits_that_are_ancillary_do_not_matter)
{
    struct plugin *plugin;
    struct error error = {0};

    cr_assert_eq(load(&plugin, "good_flags", &error), 0, "%s", error.what);
    plugin_free(plugin);
}

Test(load, a_newer_minor_loads_and_is_said_once)
{
    struct plugin *plugin;
    struct error error = {0};

    cr_assert_eq(load(&plugin, "newer", &error), 0, "%s", error.what);
    cr_assert_str_eq(plugin->needs_note,
                     "plugin newer was built for plugin ABI 1.3, this homeport has 1.0: what is newer is not used");
    cr_assert_str_eq(plugin_option(&plugin->descriptor, 1)->name, "second");
    plugin_free(plugin);
}

static char folder[64];

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "%.40s/load-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    cr_assert_not_null(mkdtemp(folder));
}

static void write_file(char path[96], const char *name, const char *text)
{
    FILE *file;

    snprintf(path, 96, "%s/%s", folder, name);
    file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static void remove_folder(const char *path)
{
    if (path != NULL)
        unlink(path);
    rmdir(folder);
}

Test(load, a_file_that_is_no_shared_object_is_one_clear_line)
{
    struct plugin *plugin;
    struct error error = {0};
    char path[96];

    make_folder();
    write_file(path, "text.so",
               "#!/bin/sh\necho this is not a plugin, however long it may be, and it is long enough\n");
    cr_assert_lt(load(&plugin, path, &error), 0);
    cr_assert_not_null(strstr(error.what, "cannot load plugin "), "%s", error.what);
    cr_assert_not_null(strstr(error.what, ".so: invalid ELF header"), "%s", error.what);
    cr_assert_not_null(strstr(error.next, "for this machine"), "%s", error.next);
    remove_folder(path);
}

/* The header of an aarch64 object: what someone who copied a file from another machine has. */
Test(load, a_file_of_another_machine_is_refused)
{
    static const char header[64] = {0x7f, 'E', 'L', 'F', 2, 1, 1, [16] = 3, [18] = (char)0xf7, [20] = 1, [52] = 64};
    struct plugin *plugin;
    struct error error = {0};
    char path[96];
    FILE *file;

#if !defined(__x86_64__)
    cr_skip_test("says what an x86-64 machine says");
#endif
    make_folder();
    snprintf(path, sizeof path, "%s/arm.so", folder);
    file = fopen(path, "w");
    cr_assert_eq(fwrite(header, sizeof header, 1, file), 1);
    fwrite(header, sizeof header, 1, file);
    fclose(file);
    cr_assert_lt(load(&plugin, path, &error), 0);
    cr_assert_not_null(strstr(error.what, "cannot load plugin"), "%s", error.what);
    cr_assert_not_null(strstr(error.next, "for this machine"), "%s", error.next);
    remove_folder(path);
}

Test(load, root_runs_nothing_that_others_can_write)
{
    struct plugin *plugin;
    struct error error = {0};
    char path[96];

    if (geteuid() != 0)
        cr_skip_test("only root is so careful");
    make_folder();
    write_file(path, "open.so", "x");
    chmod(path, 0666);
    cr_assert_lt(load(&plugin, path, &error), 0);
    cr_assert_not_null(strstr(error.what, "open.so can be written by others"), "%s", error.what);
    chmod(path, 0644);
    chmod(folder, 0777);
    cr_assert_lt(load(&plugin, path, &error), 0);
    cr_assert_not_null(strstr(error.what, "can be written by others"), "%s", error.what);
    cr_assert_null(strstr(error.what, "open.so"), "the folder: %s", error.what);
    remove_folder(path);
}

Test(load, folders_are_searched_in_order_by_folder_then_by_file)
{
    const char *const path[] = {"/nowhere", folder, MODULES};
    struct plugin *plugin;
    struct error error = {0};
    char inner[96], from[256], to[160];

    make_folder();
    snprintf(inner, sizeof inner, "%s/variant", folder);
    mkdir(inner, 0755);
    snprintf(from, sizeof from, "%s/variant.so", MODULES);
    snprintf(to, sizeof to, "%s/variant.so", inner);
    cr_assert_eq(symlink(from, to), 0);
    cr_assert_eq(plugin_load(&plugin, "variant", path, 3, geteuid() == 0, &error), 0, "%s", error.what);
    cr_assert_str_eq(plugin->path, to);
    plugin_free(plugin);
    unlink(to);
    rmdir(inner);
    cr_assert_eq(plugin_load(&plugin, "variant", path, 3, geteuid() == 0, &error), 0, "%s", error.what);
    cr_assert_str_eq(plugin->path, from);
    plugin_free(plugin);
    remove_folder(NULL);
}

Test(load, root_does_not_listen_to_its_environment)
{
    struct plugin *plugin;
    struct error error = {0};

    setenv("HOMEPORT_PLUGIN_PATH", "/nowhere:" MODULES, 1);
    if (geteuid() == 0) {
        cr_assert_lt(plugin_load(&plugin, "variant", NULL, 0, geteuid() == 0, &error), 0);
        cr_assert_not_null(strstr(error.what, "an empty plugin_path"), "%s", error.what);
    } else {
        cr_assert_eq(plugin_load(&plugin, "variant", NULL, 0, geteuid() == 0, &error), 0, "%s", error.what);
        plugin_free(plugin);
    }
}

Test(load, every_operation_has_a_name_and_so_has_nonsense)
{
    cr_assert_str_eq(plugin_operation_name(PLUGIN_DERIVE_KEY), "derive_key");
    cr_assert_str_eq(plugin_operation_name(PLUGIN_TICK), "tick");
    cr_assert_str_eq(plugin_operation_name(4711), "unknown");
}
