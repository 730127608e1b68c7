/* SPDX-License-Identifier: Apache-2.0 */
#include "plugin/option.h"

#include "config/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hp_value option_absent(const struct hp_option *option)
{
    struct hp_value value = {.kind = option->kind};

    if (option->kind == HP_OPTION_STRING)
        value.as.text = "";
    return value;
}

static bool parse_integer(int64_t *out, const char *text, const char **why)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    *why = "is not a whole number";
    if (end == text || *end != '\0')
        return false;
    *why = "is too large";
    return errno == 0;
}

static bool parse_duration(int64_t *out, const char *text, bool never, const char **why)
{
    uint64_t duration;

    if (!config_duration(&duration, text, never, why))
        return false;
    *out = duration < INT64_MAX ? (int64_t)duration : INT64_MAX; /* never */
    return true;
}

static bool parse_number(int64_t *out, const struct hp_option *option, bool never, const char *text, const char **why)
{
    return option->kind == HP_OPTION_DURATION ? parse_duration(out, text, never, why) : parse_integer(out, text, why);
}

/* One end of "1s..24h"; an empty one is open. */
static bool bound(int64_t *out, const struct hp_option *option, const char *text, size_t length, int64_t open)
{
    char copy[32];
    const char *why;

    *out = open;
    if (length == 0)
        return true;
    if (length >= sizeof copy)
        return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return parse_number(out, option, false, copy, &why);
}

static bool check_range(const struct hp_option *option, int64_t value, char why[OPTION_WHY])
{
    const char *dots = option->range != NULL ? strstr(option->range, "..") : NULL;
    int64_t lowest, highest;

    if (option->range == NULL)
        return true;
    if (dots == NULL || !bound(&lowest, option, option->range, (size_t)(dots - option->range), INT64_MIN) ||
        !bound(&highest, option, dots + 2, strlen(dots + 2), INT64_MAX)) {
        snprintf(why, OPTION_WHY, "cannot be checked: the plugin's own range \"%s\" is damaged", option->range);
        return false;
    }
    if (value >= lowest && value <= highest)
        return true;
    snprintf(why, OPTION_WHY, "is not in %s", option->range);
    return false;
}

static bool parse_choice(int64_t *out, const struct hp_option *option, const char *text, char why[OPTION_WHY])
{
    size_t length = strlen(text);

    *out = 0;
    for (const char *choice = option->range;; choice++, (*out)++) {
        size_t size = strcspn(choice, "|");

        if (size == length && memcmp(choice, text, size) == 0)
            return true;
        choice += size;
        if (*choice == '\0')
            break;
    }
    snprintf(why, OPTION_WHY, "is none of %s", option->range);
    return false;
}

bool option_parse(struct hp_value *out, const struct hp_option *option, bool never, const char *text,
                  char why[OPTION_WHY])
{
    struct hp_value value = {.kind = option->kind};
    const char *reason = "is of a kind that is not parsed here";
    bool yes = false, fine = false;

    switch (option->kind) {
    case HP_OPTION_BOOL:
        reason = "is neither true nor false";
        fine = config_bool(&yes, text);
        value.as.integer = yes;
        break;
    case HP_OPTION_INTEGER:
    case HP_OPTION_DURATION:
        fine = parse_number(&value.as.integer, option, never, text, &reason);
        if (fine && !(never && value.as.integer == INT64_MAX) && !check_range(option, value.as.integer, why))
            return false;
        break;
    case HP_OPTION_CHOICE:
        if (!parse_choice(&value.as.integer, option, text, why))
            return false;
        fine = true;
        break;
    case HP_OPTION_STRING:
        value.as.text = text;
        fine = true;
        break;
    case HP_OPTION_MASK4:
        fine = config_mask4(value.as.mask, text, &reason);
        break;
    case HP_OPTION_MASK6:
        fine = config_mask6(value.as.mask, text, &reason);
        break;
    default:
        break;
    }
    if (!fine) {
        snprintf(why, OPTION_WHY, "%s", reason);
        return false;
    }
    value.given = out->given;
    *out = value;
    return true;
}
