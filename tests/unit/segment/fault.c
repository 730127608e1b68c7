/* SPDX-License-Identifier: Apache-2.0 */
/* mmap64 and so on: what the C library makes of mmap with the large files that meson asks for. */
#include "fault.h"
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

int __real_posix_fallocate64(int fd, off_t offset, off_t size);
int __wrap_posix_fallocate64(int fd, off_t offset, off_t size);
int __real_renameat(int from, const char *old, int to, const char *new);
int __wrap_renameat(int from, const char *old, int to, const char *new);
ssize_t __real_pwrite64(int fd, const void *octets, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *octets, size_t size, off_t offset);
void *__real_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

static int countdown = -1;
static bool dies;

void fault_after(int calls)
{
    countdown = calls;
    dies = false;
}

void fault_dies_after(int calls)
{
    countdown = calls;
    dies = true;
}

void fault_none(void)
{
    countdown = -1;
}

static bool fault(void)
{
    if (countdown < 0 || countdown-- > 0)
        return false;
    if (dies)
        _exit(FAULT_DIED);
    errno = ENOMEM;
    return true;
}

int __wrap_posix_fallocate64(int fd, off_t offset, off_t size)
{
    return fault() ? ENOSPC : __real_posix_fallocate64(fd, offset, size);
}

int __wrap_renameat(int from, const char *old, int to, const char *new)
{
    return fault() ? -1 : __real_renameat(from, old, to, new);
}

ssize_t __wrap_pwrite64(int fd, const void *octets, size_t size, off_t offset)
{
    return fault() ? -1 : __real_pwrite64(fd, octets, size, offset);
}

void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fault() ? (void *)-1 : __real_mmap64(at, size, protection, flags, fd, offset);
}

void *__wrap_malloc(size_t size)
{
    return fault() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fault() ? NULL : __real_calloc(count, size);
}
