/* SPDX-License-Identifier: Apache-2.0 */
/* Values as users write them, for this file and for plugin options alike. */
#include "config/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

/* A record keeps its last use modulo half a year: a longer timeout could not be told from a fresh record. */
#define LONGEST_MS (180ull * 24 * 3600 * 1000)

static const struct {
    const char *name;
    uint64_t ms;
} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}};

bool config_duration(uint64_t *out, const char *text, bool allow_never, const char **why)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t number = 0;

    if (strcmp(text, "never") == 0) {
        *why = "is not possible here: write a duration such as 180s, 6m or 2h";
        *out = allow_never ? CONFIG_NEVER : *out;
        return allow_never;
    }
    *why = "is not a duration: write a whole number and its unit, such as 250ms, 180s, 6m or 2h";
    if (digits == 0)
        return false;
    if (text[digits] == '\0') {
        *why = "is a bare number: seconds or milliseconds? Write the unit: 250ms, 180s, 6m, 2h";
        return false;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text + digits, units[i].name) != 0)
            continue;
        *why = "is longer than 180 days";
        for (size_t at = 0; at < digits; at++) {
            number = number * 10 + (uint64_t)(text[at] - '0');
            if (number > LONGEST_MS / units[i].ms)
                return false;
        }
        *out = number * units[i].ms;
        return true;
    }
    return false;
}

static bool prefix_length(unsigned *out, const char *text, unsigned limit)
{
    size_t digits = strspn(text, "0123456789");
    unsigned number = 0;

    if (digits == 0 || digits > 3 || text[digits] != '\0')
        return false;
    for (size_t i = 0; i < digits; i++)
        number = number * 10 + (unsigned)(text[i] - '0');
    *out = number;
    return number <= limit;
}

static void fill_mask(uint8_t *mask, size_t size, unsigned length)
{
    memset(mask, 0, size);
    memset(mask, 0xff, length / 8);
    if (length % 8 != 0)
        mask[length / 8] = (uint8_t)(0xff << (8 - length % 8));
}

bool config_mask4(uint8_t mask[4], const char *text, const char **why)
{
    unsigned length;
    uint8_t octets[4];
    uint32_t bits;

    *why = "is not a mask: write 255.255.255.0, or its prefix length from 0 to 32";
    if (prefix_length(&length, text, 32)) {
        fill_mask(mask, 4, length);
        return true;
    }
    if (inet_pton(AF_INET, text, octets) != 1)
        return false;
    bits = (uint32_t)octets[0] << 24 | (uint32_t)octets[1] << 16 | (uint32_t)octets[2] << 8 | octets[3];
    *why = "is not a mask: its ones must come before its zeros";
    if ((~bits & (~bits + 1)) != 0)
        return false;
    memcpy(mask, octets, 4);
    return true;
}

bool config_mask6(uint8_t mask[16], const char *text, const char **why)
{
    unsigned length;

    *why = "is not a prefix length from 0 to 128";
    if (!prefix_length(&length, text, 128))
        return false;
    fill_mask(mask, 16, length);
    return true;
}

bool config_bool(bool *out, const char *text)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static unsigned least(unsigned a, unsigned b, unsigned c)
{
    unsigned smaller = a < b ? a : b;

    return smaller < c ? smaller : c;
}

/* Letters changed, left out, put in or exchanged with their neighbour; `-` is as good as `_`, and small as large. */
static unsigned edit_distance(const char *a, const char *b, size_t a_size, size_t b_size)
{
    unsigned rows[3][SEGMENT_NAME], *before = rows[0], *last = rows[1], *row = rows[2], *spare;

    for (size_t j = 0; j <= b_size; j++)
        last[j] = (unsigned)j;
    for (size_t i = 1; i <= a_size; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_size; j++) {
            int left = a[i - 1] == '-' ? '_' : tolower((unsigned char)a[i - 1]);
            int right = b[j - 1] == '-' ? '_' : tolower((unsigned char)b[j - 1]);

            row[j] = least(last[j] + 1, row[j - 1] + 1, last[j - 1] + (left != right));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < row[j])
                row[j] = before[j - 2] + 1;
        }
        spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[b_size];
}

const char *config_closest(const char *name, const char *const *names, size_t count)
{
    size_t size = strlen(name);
    unsigned limit = size < 3 ? 0 : size < 5 ? 1 : size < 12 ? 2 : 3, distance;
    const char *closest = NULL;

    if (size >= SEGMENT_NAME)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t other = strlen(names[i]);

        if (other >= SEGMENT_NAME || other > size + limit || size > other + limit)
            continue;
        distance = edit_distance(name, names[i], size, other);
        if (distance > limit || (closest != NULL && distance == limit))
            continue;
        closest = names[i];
        if (distance == 0)
            break;
        limit = distance; /* from here on only a closer one counts */
    }
    return closest;
}
