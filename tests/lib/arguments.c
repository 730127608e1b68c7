/* SPDX-License-Identifier: Apache-2.0 */
#include "arguments.h"

#include <arpa/inet.h>
#include <err.h>
#include <stdlib.h>
#include <string.h>

void arguments_read(int argc, char **argv, const char *usage,
                    void (*set)(void *options, const char *name, const char *text), void *options)
{
    if (argc < 2 || argc % 2 != 0)
        errx(2, "usage: %s", usage);
    for (int i = 2; i < argc; i += 2) {
        if (strncmp(argv[i], "--", 2) != 0)
            errx(2, "what is '%s'?", argv[i]);
        set(options, argv[i] + 2, argv[i + 1]);
    }
}

double argument_number(const char *name, const char *text, double first, double last)
{
    char *rest;
    double value = strtod(text, &rest);

    if (*text == '\0' || *rest != '\0' || value < first || value > last)
        errx(2, "--%s takes a number from %g to %g, not '%s'", name, first, last, text);
    return value;
}

uint32_t argument_address(const char *text)
{
    struct in_addr address;

    if (inet_pton(AF_INET, text, &address) != 1)
        errx(2, "'%s' is no address", text);
    return ntohl(address.s_addr);
}
