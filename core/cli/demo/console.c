/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/console.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const char erase[] = "\r\033[K";

void console_open(struct console *console)
{
    *console = (struct console){.terminal = isatty(STDOUT_FILENO) == 1};
}

void console_line(struct console *console, const char *format, ...)
{
    va_list arguments;

    if (console->progress[0] != '\0')
        fputs(erase, stdout);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n%s", console->progress);
    fflush(stdout);
}

void console_progress(struct console *console, const char *format, ...)
{
    va_list arguments;

    if (!console->terminal)
        return;
    va_start(arguments, format);
    vsnprintf(console->progress, sizeof console->progress, format, arguments);
    va_end(arguments);
    printf("%s%s", erase, console->progress);
    fflush(stdout);
}
