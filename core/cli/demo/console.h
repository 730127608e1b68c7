/* SPDX-License-Identifier: Apache-2.0 */
/* Standard output: lines that stay, and on a terminal one line below them that is written over. */
#ifndef CLI_DEMO_CONSOLE_H
#define CLI_DEMO_CONSOLE_H

#include <stdbool.h>

struct console {
    bool terminal;
    char progress[160]; /* what stands below; "" nothing */
};

void console_open(struct console *console);
void console_line(struct console *console, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Nothing when standard output is no terminal. An empty text takes the line away. */
void console_progress(struct console *console, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
