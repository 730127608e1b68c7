/* SPDX-License-Identifier: Apache-2.0 */
#include "reading.h"

#include <criterion/criterion.h>
#include <string.h>

static void open_empty(struct reading *reading, const char *text)
{
    memset(reading, 0, sizeof *reading);
    cr_assert_eq(diagnostics_open(&reading->diagnostics, "f", text, strlen(text)), 0);
}

static void expect_said(const char *text, struct position at, const char *said)
{
    struct reading reading;

    open_empty(&reading, text);
    diagnostics_add(reading.diagnostics, SEVERITY_ERROR, at, "no");
    reading_print(&reading);
    cr_expect_str_eq(reading.said, said);
    reading_close(&reading);
}

Test(diagnostics, caret_stands_below_what_is_meant)
{
    expect_said("ab\ncd: e\n", (struct position){2, 5}, "f:2:5: error: no\n    cd: e\n        ^\n");
}

Test(diagnostics, caret_counts_characters_not_octets)
{
    expect_said("\xc3\xa4\xe2\x82\xac: x", (struct position){1, 5},
                "f:1:5: error: no\n    \xc3\xa4\xe2\x82\xac: x\n        ^\n");
}

Test(diagnostics, lines_end_as_editors_think)
{
    expect_said("a\r\nb\rc\n", (struct position){2, 1}, "f:2:1: error: no\n    b\n    ^\n");
    expect_said("a\r\nb\rc\n", (struct position){3, 1}, "f:3:1: error: no\n    c\n    ^\n");
}

Test(diagnostics, byte_order_mark_is_not_shown)
{
    expect_said("\xef\xbb\xbf"
                "ab",
                (struct position){1, 2}, "f:1:2: error: no\n    ab\n     ^\n");
}

Test(diagnostics, line_without_text_is_not_shown)
{
    expect_said("a\n", (struct position){9, 1}, "f:9:1: error: no\n");
    expect_said("a\n", (struct position){0, 0}, "f: error: no\n");
}

Test(diagnostics, terminal_gets_no_control_characters)
{
    expect_said("a\x1b[2J\tb\xc2\x9b\xff", (struct position){1, 1}, "f:1:1: error: no\n    a?[2J b??\n    ^\n");
}

Test(diagnostics, long_line_is_cut_around_the_caret)
{
    char text[2001], *excerpt, *caret_line;
    struct reading reading;

    memset(text, 'x', 2000);
    text[1499] = 'Y';
    text[2000] = '\0';
    open_empty(&reading, text);
    diagnostics_add(reading.diagnostics, SEVERITY_ERROR, (struct position){1, 1500}, "no");
    reading_print(&reading);
    cr_expect_lt(strlen(reading.said), 300);
    excerpt = strchr(reading.said, '\n') + 1;
    caret_line = strchr(excerpt, '\n') + 1;
    cr_expect_eq(strchr(excerpt, 'Y') - excerpt, strchr(caret_line, '^') - caret_line);
    reading_close(&reading);
}

Test(diagnostics, message_with_stray_octets_is_made_printable)
{
    struct reading reading;

    open_empty(&reading, "");
    diagnostics_add(reading.diagnostics, SEVERITY_WARNING, (struct position){0, 0}, "%.2s\x1b", "a\xc3\xa4");
    reading_print(&reading);
    cr_expect_str_eq(reading.said, "f: warning: a??\n");
    reading_close(&reading);
}

Test(diagnostics, order_is_the_files_and_equal_places_keep_theirs)
{
    struct reading reading;

    open_empty(&reading, "");
    diagnostics_add(reading.diagnostics, SEVERITY_ERROR, (struct position){3, 1}, "d");
    diagnostics_add(reading.diagnostics, SEVERITY_WARNING, (struct position){2, 9}, "c");
    diagnostics_add(reading.diagnostics, SEVERITY_ERROR, (struct position){2, 1}, "a");
    diagnostics_add(reading.diagnostics, SEVERITY_ERROR, (struct position){2, 1}, "b");
    reading_print(&reading);
    cr_expect_str_eq(reading.said, "f:2:1: error: a\nf:2:1: error: b\nf:2:9: warning: c\nf:3:1: error: d\n");
    reading_close(&reading);
}

Test(diagnostics, first_fifty_errors_are_shown_whatever_order_they_come_in)
{
    struct reading reading;

    open_empty(&reading, "");
    for (uint32_t line = 200; line > 0; line--)
        diagnostics_add(reading.diagnostics, SEVERITY_ERROR, (struct position){line, 1}, "no");
    reading_print(&reading);
    cr_expect_eq(diagnostics_errors(reading.diagnostics), 200);
    cr_expect_eq(strncmp(reading.said, "f:1:1: error: no\nf:2:1:", 23), 0);
    cr_expect_not_null(strstr(reading.said, "f:50:1: error: no\nf: and 150 more errors\n"));
    cr_expect_null(strstr(reading.said, "f:51:1"));
    reading_close(&reading);
}
