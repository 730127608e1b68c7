/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"
#include "process/source.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char path[64];
    struct error error;
    int out;
};

static void open_fixture(struct fixture *f, const char *text)
{
    int fd;

    memset(f, 0, sizeof *f);
    f->out = -1;
    strcpy(f->path, "/tmp/homeport-source-XXXXXX");
    fd = mkstemp(f->path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void close_fixture(struct fixture *f)
{
    unlink(f->path);
    if (f->out >= 0)
        close(f->out);
}

Test(source, is_a_copy_that_nobody_can_change)
{
    struct fixture f;
    const char *text;
    size_t size;

    open_fixture(&f, "workers: 1\n");
    cr_assert_eq(source_read(&f.out, f.path, &f.error), 0);
    unlink(f.path); /* a file that vanishes takes nothing away */
    cr_assert_lt(write(f.out, "x", 1), 0);
    cr_assert_lt(ftruncate(f.out, 0), 0);
    cr_assert_eq(source_map(f.out, &text, &size, &f.error), 0);
    cr_assert_eq(size, 11);
    cr_assert_eq(memcmp(text, "workers: 1\n", 11), 0);
    munmap((void *)text, size);
    close_fixture(&f);
}

Test(source, an_empty_file_maps_as_nothing)
{
    struct fixture f;
    const char *text;
    size_t size = 1;

    open_fixture(&f, "");
    cr_assert_eq(source_read(&f.out, f.path, &f.error), 0);
    cr_assert_eq(source_map(f.out, &text, &size, &f.error), 0);
    cr_assert_eq(size, 0);
    close_fixture(&f);
}

Test(source, a_missing_file_names_the_next_step)
{
    struct error error = {0};
    int out = -1;

    cr_assert_eq(source_read(&out, "/nonexistent/homeport.yaml", &error), -ENOENT);
    cr_assert_not_null(strstr(error.what, "/nonexistent/homeport.yaml"));
    cr_assert_not_null(strstr(error.next, "-c FILE"));
    cr_assert_eq(out, -1);
}

Test(source, a_folder_or_a_fifo_is_refused_without_waiting, .timeout = 5)
{
    struct fixture f;

    open_fixture(&f, "");
    cr_assert_lt(source_read(&f.out, "/tmp", &f.error), 0);
    unlink(f.path);
    cr_assert_eq(mkfifo(f.path, 0600), 0);
    cr_assert_eq(source_read(&f.out, f.path, &f.error), -EINVAL);
    close_fixture(&f);
}

Test(source, a_huge_file_is_refused)
{
    struct fixture f;

    open_fixture(&f, "");
    cr_assert_eq(truncate(f.path, (off_t)CONFIG_TEXT_MAX + 1), 0);
    cr_assert_eq(source_read(&f.out, f.path, &f.error), -EFBIG);
    close_fixture(&f);
}

Test(source, root_refuses_a_file_that_others_can_write)
{
    struct fixture f;
    int status;

    open_fixture(&f, "workers: 1\n");
    cr_assert_eq(chmod(f.path, 0622), 0);
    status = source_read(&f.out, f.path, &f.error);
    if (geteuid() == 0)
        cr_assert_eq(status, -EPERM);
    else
        cr_assert_eq(status, 0);
    close_fixture(&f);
}
