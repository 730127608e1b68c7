/* SPDX-License-Identifier: Apache-2.0 */
/* The child's side of a check. It runs foreign constructors and parses a file that may be hostile, so it has given up
 * everything before it begins; what it finds goes to standard error, what the master needs into the plan. */
#include "process/check.h"

#include "config/config.h"
#include "plugin/plugin.h"
#include "process/sandbox.h"
#include "process/source.h"
#include "process/spawn.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* While the file is parsed and plugins are loaded nobody knows yet whom to become: nobody. */
static int give_up_everything(struct error *error)
{
    signal(SIGPIPE, SIG_IGN);
    return sandbox_enter_nobody(getppid(), error);
}

static void check_profile(struct plan *plan, const struct config *config, uint32_t profile,
                          struct diagnostics *diagnostics, bool root)
{
    const struct config_profile *own = &config->profiles[profile];
    struct error error = {0};
    struct plugin *plugin = NULL;
    struct profile_values *values = NULL;
    char line[768];

    snprintf(plan->doing, sizeof plan->doing, "plugin %.64s of profile %.64s", own->plugin, own->name);
    if (plugin_load(&plugin, own->plugin, (const char *const *)config->plugin_path, config->plugin_path_count, root,
                    &error) < 0) {
        diagnostics_add(diagnostics, SEVERITY_ERROR, own->plugin_at, "%s", error_line(&error, line, sizeof line));
    } else if (profile_values_open(&values, plugin, config, profile, diagnostics) == 0) {
        profile_values_close(values);
    }
    plugin_free(plugin);
    plan->doing[0] = '\0';
}

static void check_model(struct plan *plan, const struct config *config, struct diagnostics *diagnostics, bool root)
{
    struct error error = {0};
    char line[768];

    for (uint32_t i = 0; i < config->profile_count; i++)
        check_profile(plan, config, i, diagnostics, root);
    config_check_machine(config, diagnostics);
    if (plan_fill(plan, config, &error) < 0)
        diagnostics_add(diagnostics, SEVERITY_ERROR, (struct position){0, 0}, "%s",
                        error_line(&error, line, sizeof line));
}

static void check_user(struct plan *plan, const struct config *config, struct diagnostics *diagnostics, bool root)
{
    struct error error = {0};
    char line[768];

    if (!root) { /* the caller, whatever the file says */
        plan->uid = geteuid();
        plan->gid = getegid();
        return;
    }
    if (plan_user(plan, config, &error) < 0)
        diagnostics_add(diagnostics, SEVERITY_ERROR, config->user_at, "%s", error_line(&error, line, sizeof line));
}

static int check_text(struct plan *plan, const char *path, const char *text, size_t size, bool root)
{
    struct diagnostics *diagnostics = NULL;
    struct config *config = NULL;
    uint32_t errors;

    if (diagnostics_open(&diagnostics, path, text, size) < 0)
        return 1;
    if (config_read(&config, path, text, size, diagnostics) == 0) {
        check_model(plan, config, diagnostics, root);
        check_user(plan, config, diagnostics, root);
    }
    diagnostics_print(diagnostics, stderr);
    errors = diagnostics_errors(diagnostics);
    if (errors == 0 && config != NULL)
        plan->magic = PLAN_MAGIC;
    config_free(config);
    diagnostics_close(diagnostics);
    return errors == 0 ? 0 : 1;
}

int check_main(int argc, char **argv)
{
    struct plan *plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, SPAWN_CHANNEL, 0);
    struct error error = {0};
    const char *text;
    size_t size;
    bool root = geteuid() == 0;
    char line[768];
    int status;

    if (argc != 3 || plan == MAP_FAILED)
        return 2;
    if (give_up_everything(&error) < 0 || source_map(SPAWN_CONFIG, &text, &size, &error) < 0) {
        fputs(error_line(&error, line, sizeof line), stderr);
        return CHECK_NOT_BEGUN;
    }
    status = check_text(plan, argv[2], text, size, root);
    if (size > 0)
        munmap((void *)text, size);
    munmap(plan, sizeof *plan);
    return status;
}
