/* SPDX-License-Identifier: Apache-2.0 */
#include "reading.h"

#include <criterion/criterion.h>
#include <string.h>

const char *const sample_names[] = {"ike_spi.yaml",           "match_across_services.yaml",
                                    "persistency_group.yaml", "port_following.yaml",
                                    "quickstart.yaml",        "rras.yaml",
                                    "source_address.yaml",    NULL};

void reading_print(struct reading *reading)
{
    FILE *stream = fmemopen(reading->said, sizeof reading->said, "w");

    diagnostics_print(reading->diagnostics, stream);
    fclose(stream);
}

void reading_open(struct reading *reading, const char *text, size_t size)
{
    memset(reading, 0, sizeof *reading);
    reading->status = diagnostics_open(&reading->diagnostics, "f", text, size);
    if (reading->status == 0)
        reading->status = config_read(&reading->config, "f", text, size, reading->diagnostics);
    if (reading->diagnostics != NULL)
        reading_print(reading);
}

void reading_close(struct reading *reading)
{
    config_free(reading->config);
    diagnostics_close(reading->diagnostics);
}

const char *reading_message(struct reading *reading, unsigned n, char *line, size_t size)
{
    const char *at = reading->said;

    for (line[0] = '\0'; at != NULL && *at != '\0'; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, "f:", 2) == 0 && n-- == 0) {
            snprintf(line, size, "%.*s", (int)strcspn(at + 2, "\n"), at + 2);
            break;
        }
    }
    return line;
}

size_t sample_read(char text[SAMPLE_MAX], const char *name)
{
    char path[512];
    FILE *file;
    size_t size;

    snprintf(path, sizeof path, SAMPLES "/%s", name);
    file = fopen(path, "re");
    cr_assert_not_null(file, "cannot read %s", path);
    size = fread(text, 1, SAMPLE_MAX, file);
    fclose(file);
    cr_assert_lt(size, SAMPLE_MAX);
    return size;
}
