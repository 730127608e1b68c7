/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <time.h>
#include <unistd.h>

uint64_t clock_now_ms(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_BOOTTIME, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t clock_monotonic_us(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int clock_boot_id(uint8_t id[16])
{
    uint8_t read_id[16];
    char text[64];
    ssize_t size;
    size_t octets = 0;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    size = read(fd, text, sizeof text);
    if (size < 0) {
        int code = -errno;
        close(fd);
        return code;
    }
    close(fd);
    if (sodium_hex2bin(read_id, sizeof read_id, text, (size_t)size, "-\n", &octets, NULL) != 0 ||
        octets != sizeof read_id)
        return -EPROTO;
    for (size_t i = 0; i < sizeof read_id; i++)
        id[i] = read_id[i];
    return 0;
}
