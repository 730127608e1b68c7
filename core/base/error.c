/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>

int error_set(struct error *error, int code, const char *format, ...)
{
    va_list arguments;

    if (error == NULL)
        return code;
    error->code = code;
    error->next[0] = '\0';
    va_start(arguments, format);
    if (vsnprintf(error->what, sizeof error->what, format, arguments) < 0)
        error->what[0] = '\0';
    va_end(arguments);
    return code;
}

int error_next(struct error *error, const char *format, ...)
{
    va_list arguments;

    if (error == NULL)
        return -EINVAL;
    va_start(arguments, format);
    if (vsnprintf(error->next, sizeof error->next, format, arguments) < 0)
        error->next[0] = '\0';
    va_end(arguments);
    return error->code;
}

int error_under(struct error *error, const char *format, ...)
{
    char context[sizeof error->what], chain[2 * sizeof error->what + 2];
    va_list arguments;
    int size;

    if (error == NULL)
        return -EINVAL;
    va_start(arguments, format);
    size = vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);
    if (size < 0)
        return error->code;
    /* A chain that is too long loses its end: what the user named stands in front. */
    snprintf(chain, sizeof chain, "%s: %s", context, error->what);
    snprintf(error->what, sizeof error->what, "%.*s", (int)sizeof error->what - 1, chain);
    return error->code;
}

const char *error_line(const struct error *error, char *text, unsigned long size)
{
    snprintf(text, size, "%s%s%s", error->what, error->next[0] == '\0' ? "" : "; ", error->next);
    return text;
}
