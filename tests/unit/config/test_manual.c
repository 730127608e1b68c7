/* SPDX-License-Identifier: Apache-2.0 */
/* The reader says which keys a place knows; the manual must know each of them as well, and its example must be fine. */
#include "reading.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static char *manual_read(void)
{
    char *text = calloc(1, 65536);
    FILE *file = fopen(MANUAL, "re");

    cr_assert_not_null(file, "cannot read " MANUAL);
    cr_assert_gt(fread(text, 1, 65535, file), 0);
    fclose(file);
    return text;
}

/* As a whole word: `port` is not described by `ports`. */
static bool has_word(const char *text, const char *word)
{
    size_t size = strlen(word);

    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word))
        if (at > text && strchr(" \n", at[-1]) != NULL && strchr(" \n", at[size]) != NULL)
            return true;
    return false;
}

/* "1:1: error: unknown key `?`; here it can be a, b or c" */
static void expect_described(const char *manual, char *message)
{
    char *rest = NULL, *list = strstr(message, "here it can be ");

    cr_assert_not_null(list, "%s", message);
    for (char *key = strtok_r(list + strlen("here it can be "), ", ", &rest); key; key = strtok_r(NULL, ", ", &rest))
        cr_expect(strcmp(key, "or") == 0 || has_word(manual, key), "the manual is silent about `%s`", key);
}

Test(manual, describes_each_key_that_is_read)
{
    static const char *const places[] = {"zzzzzz: 1",
                                         "log: { zzzzzz: 1 }",
                                         "affinity: { zzzzzz: 1 }",
                                         "sessions: { zzzzzz: 1 }",
                                         "servers: { a: { zzzzzz: 1 } }",
                                         "pools: { a: { zzzzzz: 1 } }",
                                         "pools: { a: { health: { zzzzzz: 1 } } }",
                                         "persistence: { a: { zzzzzz: 1 } }",
                                         "services: { a: { zzzzzz: 1 } }",
                                         "services: { a: { health: { zzzzzz: 1 } } }"};
    char *manual = manual_read(), message[1024];
    static struct reading reading;

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        unsigned n = 0;

        reading_open(&reading, places[i], strlen(places[i]));
        while (strstr(reading_message(&reading, n, message, sizeof message), "unknown key") == NULL)
            cr_assert_lt(n++, 20, "%s", reading.said);
        expect_described(manual, message);
        reading_close(&reading);
    }
    free(manual);
}

Test(manual, example_is_fine)
{
    char *manual = manual_read(), *begin = strstr(manual, ".Bd -literal"), *end = strstr(manual, ".Ed");
    static struct reading reading;

    cr_assert(begin != NULL && end != NULL);
    begin = strchr(begin, '\n') + 1;
    reading_open(&reading, begin, (size_t)(end - begin));
    cr_expect_eq(reading.status, 0, "%s", reading.said);
    reading_close(&reading);
    free(manual);
}
