/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SETTINGS_LIMIT (4u << 20)

static int read_text(struct settings *out, const char *path, struct error *error)
{
    FILE *file = fopen(path, "re");

    if (file == NULL) {
        error_set(error, -errno, "cannot open the configuration %s: %s", path, strerror(errno));
        return error_next(error, "name another with -c FILE");
    }
    out->text = malloc(SETTINGS_LIMIT + 1);
    if (out->text != NULL)
        out->size = fread(out->text, 1, SETTINGS_LIMIT + 1, file);
    if (out->text == NULL || ferror(file) || out->size > SETTINGS_LIMIT) {
        free(out->text);
        out->text = NULL;
        error_set(error, -EIO, "cannot read the configuration %s", path);
    } else {
        out->text[out->size] = '\0';
    }
    fclose(file);
    return out->text == NULL ? -EIO : 0;
}

int settings_read(struct settings *out, const char *path, struct error *error)
{
    struct diagnostics *findings;
    int status;

    memset(out, 0, sizeof *out);
    out->root = geteuid() == 0;
    status = read_text(out, path, error);
    if (status < 0)
        return status;
    if (diagnostics_open(&findings, path, out->text, out->size) < 0) {
        settings_free(out);
        return error_set(error, -ENOMEM, "no memory for the configuration");
    }
    if (config_read(&out->config, path, out->text, out->size, findings) < 0)
        out->config = NULL;
    diagnostics_close(findings);
    return 0;
}

void settings_free(struct settings *settings)
{
    config_free(settings->config);
    free(settings->text);
    memset(settings, 0, sizeof *settings);
}

/* The top-level `state:` of a file that has errors elsewhere. */
static void scan_state(const char *text, char *folder, size_t size)
{
    const char *line = text;
    char value[256];

    while (line != NULL) {
        if (sscanf(line, "state: %255[^ \t\r\n#]", value) == 1) {
            size_t quoted = value[0] == '"' || value[0] == '\'' ? 1 : 0;

            snprintf(folder, size, "%s", value + quoted);
            if (quoted != 0)
                folder[strcspn(folder, "\"'")] = '\0';
            return;
        }
        line = strchr(line, '\n');
        if (line != NULL)
            line++;
    }
}

int settings_state(const struct arguments *arguments, char *folder, size_t size, struct error *error)
{
    struct settings settings;
    struct error unread = {0};
    int status;

    snprintf(folder, size, "%s", arguments->state != NULL ? arguments->state : SETTINGS_STATE);
    if (arguments->state != NULL)
        return 0;
    status = settings_read(&settings, arguments->config, &unread);
    if (status < 0) {
        if (!arguments->config_written)
            return 0;
        *error = unread; /* another daemon than the one that is meant might answer */
        return status;
    }
    if (settings.config != NULL)
        snprintf(folder, size, "%s", settings.config->state);
    else
        scan_state(settings.text, folder, size);
    settings_free(&settings);
    return 0;
}
