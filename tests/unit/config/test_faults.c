/* SPDX-License-Identifier: Apache-2.0 */
#include "fault.h"
#include "reading.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FLIPS 2000

/* Every allocation fails once, in turn: each time a clean error and nothing left behind. */
static void sweep(const char *text, size_t size, int expected)
{
    static struct reading reading;
    int failed = 0, before = fault_live();

    for (;; failed++) {
        fault_after(failed);
        reading_open(&reading, text, size);
        fault_after(-1);
        if (reading.status == expected)
            break;
        cr_assert_eq(reading.status, -ENOMEM, "allocation %d: %d", failed, reading.status);
        cr_assert_null(reading.config);
        reading_close(&reading);
        cr_assert_eq(fault_live(), before, "%d allocations left after failure %d", fault_live() - before, failed);
    }
    cr_assert_gt(failed, 5, "the sweep must really have failed something");
    reading_close(&reading);
    cr_assert_eq(fault_live(), before);
}

Test(faults, reading_survives_each_failed_allocation)
{
    char text[SAMPLE_MAX];

    for (const char *const *name = sample_names; *name != NULL; name++)
        sweep(text, sample_read(text, *name), 0);
}

Test(faults, complaining_survives_each_failed_allocation)
{
    static const char text[] = "user: x\nuser: y\nplugin_path: [ a, b ]\nstate: z\n"
                               "servers: { a: { address: b, c: d }, e: *f }\n"
                               "pools: { p: { servers: [ a, a, g ] } }\n"
                               "services: { s: { listen: [ 192.0.2.1:5, h ], persistence: { follow: i } } }\n";

    sweep(text, sizeof text - 1, -EINVAL);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void flip(char *text, size_t size, uint64_t *state)
{
    for (uint64_t flips = 1 + next_random(state) % 4; flips > 0; flips--)
        text[next_random(state) % size] ^= (char)(1 << next_random(state) % 8);
}

/* SEED=… repeats a run. */
Test(faults, flipped_bits_are_errors_or_harmless_but_never_crash)
{
    const char *given = getenv("SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 20 | 1, state = seed;
    static char text[SAMPLE_MAX], flipped[SAMPLE_MAX];
    static struct reading reading;

    for (const char *const *name = sample_names; *name != NULL; name++) {
        size_t size = sample_read(text, *name);

        for (int i = 0; i < FLIPS; i++) {
            memcpy(flipped, text, size);
            flip(flipped, size, &state);
            reading_open(&reading, flipped, size);
            cr_assert(reading.status == 0 || (reading.status == -EINVAL && diagnostics_errors(reading.diagnostics) > 0),
                      "SEED=%" PRIu64 ": %d", seed, reading.status);
            reading_close(&reading);
        }
    }
    cr_log_info("SEED=%" PRIu64, seed);
}
