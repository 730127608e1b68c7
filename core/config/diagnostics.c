/* SPDX-License-Identifier: Apache-2.0 */
/* All memory is taken at the begin: a message is never lost for want of memory, and a file of a million mistakes costs
 * no more than one of fifty. Of each severity the first ones by position are kept, the others counted. */
#include "config/diagnostics.h"

#include "config/text.h"
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES_KEPT 50u /* of each severity */
#define MESSAGE_TEXT 768u
#define EXCERPT 120u       /* characters of a line that are shown */
#define EXCERPT_BEFORE 60u /* of them before the caret, when the line is long */

struct message {
    struct position at;
    char text[MESSAGE_TEXT];
};
struct messages {
    struct message *kept[MESSAGES_KEPT + 1]; /* by position; the last is the next one's place */
    uint32_t count;                          /* of all, kept or not */
};

struct diagnostics {
    const char *path, *text;
    size_t size;
    struct messages messages[2]; /* by severity */
    struct message storage[2 * (MESSAGES_KEPT + 1)];
};

int diagnostics_open(struct diagnostics **out, const char *path, const char *text, size_t size)
{
    struct diagnostics *self = calloc(1, sizeof *self);

    if (self == NULL)
        return -ENOMEM;
    self->path = path;
    self->text = text;
    self->size = size;
    for (uint32_t i = 0; i < 2 * (MESSAGES_KEPT + 1); i++)
        self->messages[i % 2].kept[i / 2] = &self->storage[i];
    *out = self;
    return 0;
}

void diagnostics_close(struct diagnostics *diagnostics)
{
    free(diagnostics);
}

/* Messages quote the file and may be cut off anywhere: what is no printable character becomes a question mark. */
static void make_printable(char *text)
{
    size_t size = strlen(text);

    for (size_t i = 0, length; i < size; i += length) {
        length = text_character(text + i, size - i);
        if (length > 0 && !text_is_control(text + i, length))
            continue;
        length = length > 0 ? length : 1;
        memset(text + i, '?', length);
    }
}

static bool is_before(struct position a, struct position b)
{
    return a.line != b.line ? a.line < b.line : a.column < b.column;
}

void diagnostics_add(struct diagnostics *diagnostics, enum severity severity, struct position at, const char *format,
                     ...)
{
    struct messages *messages = &diagnostics->messages[severity];
    uint32_t place = messages->count < MESSAGES_KEPT ? messages->count : MESSAGES_KEPT;
    struct message *message = messages->kept[place];
    va_list arguments;

    message->at = at;
    va_start(arguments, format);
    vsnprintf(message->text, sizeof message->text, format, arguments);
    va_end(arguments);
    make_printable(message->text);
    for (; place > 0 && is_before(at, messages->kept[place - 1]->at); place--)
        messages->kept[place] = messages->kept[place - 1];
    messages->kept[place] = message;
    messages->count++;
}

uint32_t diagnostics_errors(const struct diagnostics *diagnostics)
{
    return diagnostics->messages[SEVERITY_ERROR].count;
}

uint32_t diagnostics_warnings(const struct diagnostics *diagnostics)
{
    return diagnostics->messages[SEVERITY_WARNING].count;
}

/* The begin of line number (line), and its size without the line break; NULL: the text is shorter. */
static const char *find_line(const struct diagnostics *self, uint32_t line, size_t *size)
{
    size_t begin = text_byte_order_mark(self->text, self->size), end;

    for (uint32_t number = 1; begin < self->size; number++) {
        for (end = begin; end < self->size && text_line_break(self->text + end, self->size - end) == 0; end++)
            ;
        if (number == line) {
            *size = end - begin;
            return self->text + begin;
        }
        begin = end + text_line_break(self->text + end, self->size - end);
    }
    return NULL;
}

/* A character each, whatever the octets are, so that the caret stays below the one that is meant. */
static void print_excerpt(FILE *stream, const char *line, size_t size, uint32_t first)
{
    uint32_t column = 1;

    fputs("    ", stream);
    for (size_t i = 0, length; i < size && column < first + EXCERPT; i += length, column++) {
        length = text_character(line + i, size - i);
        if (column < first)
            ;
        else if (length == 0 || text_is_control(line + i, length))
            fputc(length == 1 && line[i] == '\t' ? ' ' : '?', stream);
        else
            fwrite(line + i, 1, length, stream);
        length = length > 0 ? length : 1;
    }
    fputc('\n', stream);
}

static void print_message(const struct diagnostics *self, FILE *stream, const struct message *message,
                          enum severity severity)
{
    const char *word = severity == SEVERITY_ERROR ? "error" : "warning", *line;
    uint32_t first = message->at.column > EXCERPT ? message->at.column - EXCERPT_BEFORE : 1;
    size_t size;

    if (message->at.line == 0) {
        fprintf(stream, "%s: %s: %s\n", self->path, word, message->text);
        return;
    }
    fprintf(stream, "%s:%u:%u: %s: %s\n", self->path, message->at.line, message->at.column, word, message->text);
    line = find_line(self, message->at.line, &size);
    if (line == NULL)
        return;
    print_excerpt(stream, line, size, first);
    fprintf(stream, "    %*s\n", (int)(message->at.column - first + 1), "^");
}

static uint32_t kept_count(const struct messages *messages)
{
    return messages->count < MESSAGES_KEPT ? messages->count : MESSAGES_KEPT;
}

void diagnostics_print(const struct diagnostics *diagnostics, FILE *stream)
{
    const struct messages *errors = &diagnostics->messages[SEVERITY_ERROR];
    const struct messages *warnings = &diagnostics->messages[SEVERITY_WARNING];
    uint32_t error = 0, warning = 0, error_count = kept_count(errors), warning_count = kept_count(warnings);

    while (error < error_count || warning < warning_count) {
        bool is_warning = error == error_count ||
                          (warning < warning_count && is_before(warnings->kept[warning]->at, errors->kept[error]->at));
        if (is_warning)
            print_message(diagnostics, stream, warnings->kept[warning++], SEVERITY_WARNING);
        else
            print_message(diagnostics, stream, errors->kept[error++], SEVERITY_ERROR);
    }
    if (errors->count > error_count)
        fprintf(stream, "%s: and %u more errors\n", diagnostics->path, errors->count - error_count);
    if (warnings->count > warning_count)
        fprintf(stream, "%s: and %u more warnings\n", diagnostics->path, warnings->count - warning_count);
}
