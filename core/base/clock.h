/* SPDX-License-Identifier: Apache-2.0 */
/* The one seam for time. CLOCK_BOOTTIME: the same clock in every process of this boot, counts on while suspended, and
 * wall clock changes do not touch it. The segment holds no other time; its boot id says which boot they are of. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_now_ms(void);
/* CLOCK_MONOTONIC: systemd's time, and for what is told to systemd alone. */
uint64_t clock_monotonic_us(void);
static inline uint64_t clock_now_s(void)
{
    return clock_now_ms() / 1000;
}
/* /proc/sys/kernel/random/boot_id as 16 octets. 0 or a negative errno value. */
int clock_boot_id(uint8_t id[16]);

#endif
