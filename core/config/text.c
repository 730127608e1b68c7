/* SPDX-License-Identifier: Apache-2.0 */
#include "config/text.h"

#include <stdint.h>
#include <string.h>

size_t text_character(const char *text, size_t size)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* a shorter form exists below */
    uint8_t first = size > 0 ? (uint8_t)text[0] : 0xff;
    size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
    uint32_t code;

    if (length <= 1 || length > size)
        return length > size ? 0 : length;
    code = first & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if (((uint8_t)text[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | ((uint8_t)text[i] & 0x3f);
    }
    return code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : length;
}

bool text_is_control(const char *text, size_t length)
{
    uint8_t first = (uint8_t)text[0];

    if (length == 2)
        return first == 0xc2 && (uint8_t)text[1] < 0xa0;
    return length == 1 && (first < 0x20 || first == 0x7f);
}

size_t text_line_break(const char *text, size_t size)
{
    if (size >= 2 && text[0] == '\r' && text[1] == '\n')
        return 2;
    return size >= 1 && (text[0] == '\n' || text[0] == '\r') ? 1 : 0;
}

size_t text_byte_order_mark(const char *text, size_t size)
{
    return size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}
