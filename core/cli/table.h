/* SPDX-License-Identifier: Apache-2.0 */
/* Aligned columns for people, and values as people write them. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define TABLE_COLUMNS 12u
#define TABLE_CELL 256u

struct table;

/* heads: names of the columns, kept. NULL: no memory (so is a table that NULL was given to). */
struct table *table_open(const char *const *heads, uint32_t columns);
void table_close(struct table *table);
/* Fills the next cell of the row at hand; the next row begins by itself. */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* To standard output; nothing at all, head included, when there is no row. */
void table_print(const struct table *table);

/* "250ms", "12s", "3m 4s", "2h 5m", "3d 4h". Returns text. */
const char *duration_text(uint64_t ms, char text[32]);
/* "812", "1.2k", "3.4M". Returns text. */
const char *amount_text(uint64_t amount, char text[32]);

#endif
