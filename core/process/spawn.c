/* SPDX-License-Identifier: Apache-2.0 */
#include "process/spawn.h"

#include <string.h>
#include <unistd.h>

/* The path of our own file. After a replacement in place the link reads "PATH (deleted)": PATH is the new one. */
static int own_path(char path[4096], struct error *error)
{
    static const char gone[] = " (deleted)";
    ssize_t size = readlink("/proc/self/exe", path, 4095);

    if (size < 0)
        return error_set(error, -1, "cannot find my own file: is /proc mounted?");
    path[size] = '\0';
    if (size > (ssize_t)sizeof gone && strcmp(path + size - (sizeof gone - 1), gone) == 0)
        path[size - (ssize_t)(sizeof gone - 1)] = '\0';
    return 0;
}

int spawn_role(uv_loop_t *loop, uv_process_t *process, char **arguments, const int descriptors[SPAWN_DESCRIPTORS],
               uv_exit_cb exited, struct error *error)
{
    uv_stdio_container_t stdio[SPAWN_DESCRIPTORS];
    uv_process_options_t options = {.exit_cb = exited, .args = arguments, .stdio = stdio};
    char path[4096];
    int status = own_path(path, error);

    if (status < 0)
        return status;
    for (int i = 0; i < SPAWN_DESCRIPTORS; i++) {
        stdio[i].flags = descriptors[i] >= 0 ? UV_INHERIT_FD : UV_IGNORE;
        stdio[i].data.fd = descriptors[i];
    }
    options.stdio_count = SPAWN_DESCRIPTORS;
    options.file = path;
    status = uv_spawn(loop, process, &options);
    if (status < 0)
        return error_set(error, status, "cannot start %s: %s", path, uv_strerror(status));
    return 0;
}
