/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

Test(clock, never_goes_back)
{
    uint64_t before = clock_now_ms();

    for (int i = 0; i < 100000; i++) {
        uint64_t now = clock_now_ms();
        cr_assert_geq(now, before);
        before = now;
    }
}

Test(clock, is_the_time_since_boot)
{
    struct timespec boot;
    uint64_t now = clock_now_ms();

    cr_assert_eq(clock_gettime(CLOCK_BOOTTIME, &boot), 0);
    cr_assert_leq(now, (uint64_t)boot.tv_sec * 1000 + (uint64_t)boot.tv_nsec / 1000000);
    cr_assert_leq((uint64_t)boot.tv_sec * 1000, now + 10000);
}

Test(clock, boot_id_is_the_kernels)
{
    uint8_t id[16];
    char text[33], wanted[64] = "";
    size_t size = 0;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");

    cr_assert_not_null(file);
    for (int c; size < 32 && (c = fgetc(file)) != EOF;)
        if (c != '-')
            wanted[size++] = (char)c;
    fclose(file);

    cr_assert_eq(clock_boot_id(id), 0);
    for (size_t i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", id[i]);
    cr_assert_str_eq(text, wanted);
}
