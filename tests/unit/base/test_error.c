/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(error, returns_its_code_and_reads_as_cause_then_next_step)
{
    struct error error = {0};
    char line[700];

    cr_assert_eq(error_set(&error, -EADDRINUSE, "cannot bind %s", "0.0.0.0:500"), -EADDRINUSE);
    cr_assert_eq(error_next(&error, "see who has it: %s", "ss -lunp"), -EADDRINUSE);
    cr_assert_eq(error_under(&error, "service %s", "ike"), -EADDRINUSE);
    cr_assert_str_eq(error_line(&error, line, sizeof line),
                     "service ike: cannot bind 0.0.0.0:500; see who has it: ss -lunp");
}

Test(error, without_advice_has_no_semicolon)
{
    struct error error = {0};
    char line[700];

    error_next(&error, "advice for an older error");
    error_set(&error, -ENOENT, "no such file");
    cr_assert_str_eq(error_line(&error, line, sizeof line), "no such file");
}

Test(error, takes_null_and_keeps_the_code)
{
    cr_assert_eq(error_set(NULL, -EINVAL, "nobody reads %d", 1), -EINVAL);
    cr_assert_lt(error_next(NULL, "nobody reads this"), 0);
    cr_assert_lt(error_under(NULL, "nobody reads this"), 0);
}

Test(error, longer_than_its_room_is_cut_and_terminated)
{
    struct error error = {0};
    char text[1000], line[10];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    error_set(&error, -EIO, "%s", text);
    error_next(&error, "%s", text);
    for (int i = 0; i < 3; i++)
        error_under(&error, "%s", text);
    cr_assert_eq(strlen(error.what), sizeof error.what - 1);
    cr_assert_eq(strlen(error.next), sizeof error.next - 1);
    cr_assert_eq(strlen(error_line(&error, line, sizeof line)), sizeof line - 1);
    cr_assert_eq(error.code, -EIO);
}

Test(error, chain_keeps_the_order_of_its_layers)
{
    struct error error = {0};

    error_set(&error, -EIO, "disk on fire");
    error_under(&error, "while %s", "reading");
    error_under(&error, "profile %s", "a");
    cr_assert_str_eq(error.what, "profile a: while reading: disk on fire");
}
