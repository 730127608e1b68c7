/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/plugins.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

void plugins_find(char folder[PATH_MAX], const char *binary)
{
    const char *end = strrchr(binary, '/');
    int length = end == NULL ? 0 : (int)(end - binary);

    /* BUILD/core/homeport */
    if (snprintf(folder, PATH_MAX, "%.*s/../plugins", length, binary) < PATH_MAX && access(folder, R_OK | X_OK) == 0)
        return;
    snprintf(folder, PATH_MAX, "%s", HOMEPORT_PLUGIN_FOLDER);
    if (access(folder, R_OK | X_OK) < 0)
        folder[0] = '\0';
}

/* Whatever the umask: root's daemon refuses what others can write, and the user that loads it must read it. */
static int make_folder(const char *path, struct error *error)
{
    if ((mkdir(path, 0755) < 0 && errno != EEXIST) || chmod(path, 0755) < 0)
        return error_set(error, -errno, "cannot make %s: %s", path, strerror(errno));
    return 0;
}

static int copy(int from, int to)
{
    ssize_t size;

    while ((size = sendfile(to, from, NULL, 1 << 20)) > 0)
        ;
    return size < 0 || fchmod(to, 0755) < 0 ? -errno : 0;
}

static int copy_file(const char *from, const char *path, struct error *error)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out, status;

    if (in < 0)
        return error_set(error, -errno, "cannot read %s: %s", from, strerror(errno));
    out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    status = out < 0 ? -errno : copy(in, out);
    if (out >= 0)
        close(out);
    close(in);
    return status < 0 ? error_set(error, status, "cannot copy %s to %s: %s", from, path, strerror(-status)) : 0;
}

static int copy_plugin(const char *from, const char *to, const char *name, struct error *error)
{
    char source[PATH_MAX], folder[PATH_MAX], target[PATH_MAX];
    int status;

    if (snprintf(source, sizeof source, "%s/%s/%s.so", from, name, name) >= (int)sizeof source ||
        snprintf(folder, sizeof folder, "%s/%s", to, name) >= (int)sizeof folder ||
        snprintf(target, sizeof target, "%s/%s/%s.so", to, name, name) >= (int)sizeof target)
        return error_set(error, -ENAMETOOLONG, "the path of plugin %.64s is too long", name);
    if (access(source, F_OK) < 0)
        return 0; /* something else that lies there */
    status = make_folder(folder, error);
    return status < 0 ? status : copy_file(source, target, error);
}

int plugins_copy(const char *from, const char *to, struct error *error)
{
    DIR *folder = opendir(from);
    struct dirent *entry;
    int status;

    if (folder == NULL)
        return error_set(error, -errno, "cannot read %s: %s", from, strerror(errno));
    status = make_folder(to, error);
    while (status == 0 && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] != '.')
            status = copy_plugin(from, to, entry->d_name, error);
    }
    closedir(folder);
    return status;
}
