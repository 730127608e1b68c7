/* SPDX-License-Identifier: Apache-2.0 */
#include "process/source.h"

#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_file(int fd, const char *path, struct error *error)
{
    struct stat file;

    if (fstat(fd, &file) < 0)
        return error_set(error, -errno, "cannot look at %s: %s", path, strerror(errno));
    if (!S_ISREG(file.st_mode))
        return error_set(error, -EINVAL, "%s is not a regular file", path);
    if (file.st_size > CONFIG_TEXT_MAX)
        return error_set(error, -EFBIG, "%s is larger than %u octets", path, CONFIG_TEXT_MAX);
    if (geteuid() == 0 && (file.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        error_set(error, -EPERM, "%s can be written by others, and homeport runs as root", path);
        return error_next(error, "chmod go-w %s", path);
    }
    return 0;
}

static int copy(int from, int to, const char *path, struct error *error)
{
    char buffer[16384];
    ssize_t size;
    size_t total = 0;

    while ((size = read(from, buffer, sizeof buffer)) > 0) {
        total += (size_t)size;
        if (total > CONFIG_TEXT_MAX)
            return error_set(error, -EFBIG, "%s is larger than %u octets", path, CONFIG_TEXT_MAX);
        if (write(to, buffer, (size_t)size) != size)
            return error_set(error, -ENOMEM, "no memory for a copy of %s", path);
    }
    if (size < 0)
        return error_set(error, -errno, "cannot read %s: %s", path, strerror(errno));
    if (fcntl(to, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return error_set(error, -errno, "cannot seal the copy of %s: %s", path, strerror(errno));
    return 0;
}

int source_read(int *out, const char *path, struct error *error)
{
    int file, copied, status;

    file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (file < 0) {
        error_set(error, -errno, "cannot open the configuration %s: %s", path, strerror(errno));
        if (error->code == -EACCES)
            return error_next(error, "let user %u read it: chmod o+r it, and o+x the folders above it", geteuid());
        return error->code == -ENOENT
                   ? error_next(error, "name another with -c FILE (container: mount its folder there)")
                   : error->code;
    }
    status = check_file(file, path, error);
    if (status < 0)
        goto done_file;
    copied = memfd_create("homeport.yaml", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (copied < 0) {
        status = error_set(error, -errno, "no memory for a copy of %s: %s", path, strerror(errno));
        goto done_file;
    }
    status = copy(file, copied, path, error);
    if (status < 0)
        close(copied);
    else
        *out = copied;
done_file:
    close(file);
    return status;
}

int source_map(int fd, const char **text, size_t *size, struct error *error)
{
    struct stat file;
    void *mapped;

    if (fstat(fd, &file) < 0)
        return error_set(error, -errno, "no configuration was passed on: %s", strerror(errno));
    *text = "";
    *size = (size_t)file.st_size;
    if (file.st_size == 0)
        return 0;
    mapped = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapped == MAP_FAILED)
        return error_set(error, -errno, "cannot map the configuration: %s", strerror(errno));
    *text = mapped;
    return 0;
}
