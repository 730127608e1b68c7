/* SPDX-License-Identifier: Apache-2.0 */
/* Octets of a file or a message that may be anything. Any process; nothing here allocates. */
#ifndef CONFIG_TEXT_H
#define CONFIG_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Octets of the character that text begins with; 0: not UTF-8 (too long a form, surrogate, cut off), or size is 0. */
size_t text_character(const char *text, size_t size);
/* A control character (C0, DEL or C1): never let through to a terminal, a log or a name. length: text_character's. */
bool text_is_control(const char *text, size_t length);
/* Octets of the line break that text begins with: CR, LF or both; 0: none. */
size_t text_line_break(const char *text, size_t size);
/* Octets of a byte order mark at the begin, which editors do not show and YAML does not count. */
size_t text_byte_order_mark(const char *text, size_t size);

#endif
