/* SPDX-License-Identifier: Apache-2.0 */
#include "segment/words.h"
#include <string.h>

typedef uint64_t __attribute__((may_alias)) word; /* any structure, seen as words */

void words_load(void *copy, const void *shared, size_t size)
{
    const word *from = shared;
    char *to = copy;

    for (size_t i = 0; i < size / sizeof *from; i++) {
        word value = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);

        memcpy(to + i * sizeof value, &value, sizeof value);
    }
}

void words_store(void *shared, const void *content, size_t size)
{
    const char *from = content;
    word *to = shared;

    for (size_t i = 0; i < size / sizeof *to; i++) {
        word value;

        memcpy(&value, from + i * sizeof value, sizeof value);
        __atomic_store_n(&to[i], value, __ATOMIC_RELEASE);
    }
}
