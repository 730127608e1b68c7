/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct table {
    const char *const *heads;
    uint32_t columns;
    char **cells;
    size_t count, room;
};

struct table *table_open(const char *const *heads, uint32_t columns)
{
    struct table *self = calloc(1, sizeof *self);

    if (self != NULL) {
        self->heads = heads;
        self->columns = columns;
    }
    return self;
}

void table_close(struct table *table)
{
    if (table == NULL)
        return;
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}

void table_cell(struct table *table, const char *format, ...)
{
    char text[TABLE_CELL];
    va_list arguments;

    if (table == NULL)
        return;
    if (table->count == table->room) {
        size_t room = table->room * 2 + 64;
        char **larger = realloc(table->cells, room * sizeof *larger);

        if (larger == NULL)
            return;
        table->cells = larger;
        table->room = room;
    }
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *octet = text; *octet != '\0'; octet++)
        if ((unsigned char)*octet < 0x20 || *octet == 0x7f)
            *octet = '?'; /* nothing that comes from elsewhere may move the cursor */
    table->cells[table->count++] = strdup(text);
}

static size_t width_of(const char *text)
{
    size_t width = 0;

    for (; text != NULL && *text != '\0'; text++)
        width += ((unsigned char)*text & 0xc0u) != 0x80u; /* code points, not octets */
    return width;
}

static size_t column_width(const struct table *table, uint32_t column)
{
    size_t width = width_of(table->heads[column]);

    for (size_t i = column; i < table->count; i += table->columns)
        if (width_of(table->cells[i]) > width)
            width = width_of(table->cells[i]);
    return width;
}

static void print_cell(const char *text, size_t width, bool last)
{
    fputs(text != NULL ? text : "", stdout);
    for (size_t i = width_of(text); !last && i < width + 2; i++)
        putchar(' ');
}

void table_print(const struct table *table)
{
    size_t widths[TABLE_COLUMNS] = {0};

    if (table == NULL || table->count == 0)
        return;
    for (uint32_t i = 0; i < table->columns; i++)
        widths[i] = column_width(table, i);
    for (uint32_t i = 0; i < table->columns; i++)
        print_cell(table->heads[i], widths[i], i + 1 == table->columns);
    putchar('\n');
    for (size_t i = 0; i < table->count; i++) {
        uint32_t column = (uint32_t)(i % table->columns);

        print_cell(table->cells[i], widths[column], column + 1 == table->columns);
        if (column + 1 == table->columns)
            putchar('\n');
    }
}

const char *duration_text(uint64_t ms, char text[32])
{
    uint64_t s = ms / 1000;

    if (ms == 0)
        snprintf(text, 32, "0s");
    else if (s == 0)
        snprintf(text, 32, "%" PRIu64 "ms", ms);
    else if (s < 60)
        snprintf(text, 32, "%" PRIu64 "s", s);
    else if (s < 3600)
        snprintf(text, 32, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(text, 32, "%" PRIu64 "h %" PRIu64 "m", s / 3600, s / 60 % 60);
    else
        snprintf(text, 32, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
    return text;
}

const char *amount_text(uint64_t amount, char text[32])
{
    static const char units[] = {'k', 'M', 'G', 'T', 'P', 'E'};
    double value = (double)amount;
    size_t unit = 0;

    if (amount < 1000) {
        snprintf(text, 32, "%" PRIu64, amount);
        return text;
    }
    for (value /= 1000; value >= 999.95 && unit + 1 < sizeof units; unit++)
        value /= 1000;
    snprintf(text, 32, "%.1f%c", value, units[unit]);
    return text;
}
