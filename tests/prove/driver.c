/* SPDX-License-Identifier: Apache-2.0 */
/* homeport-prove ROLE [--NAME VALUE]...: traffic for tests/prove/run. roles.h says what the options mean. */
#include "arguments.h"
#include "roles.h"

#include <err.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

volatile sig_atomic_t role_ended;

static const struct {
    const char *name;
    int (*run)(const struct role_options *options);
} roles[] = {{"load", role_load}, {"flood", role_flood}, {"sink", role_sink}, {"bare", role_bare}};

static const struct {
    const char *name;
    size_t at;
    double first, last;
} numbers[] = {
    {"first", offsetof(struct role_options, first), 0, 1 << 20},
    {"clients", offsetof(struct role_options, clients), 1, 1 << 20},
    {"servers", offsetof(struct role_options, servers), 1, 16},
    {"lanes", offsetof(struct role_options, lanes), 1, 256},
    {"tries", offsetof(struct role_options, tries), 0, 100},
    {"patience", offsetof(struct role_options, patience), 1, 60000},
    {"salt", offsetof(struct role_options, salt), 1, UINT32_MAX},
};

/* "500,4500" */
static void ports_of(uint16_t ports[2], const char *name, const char *text)
{
    char first[8] = "";
    const char *comma = strchr(text, ',');

    if (comma == NULL || (size_t)(comma - text) >= sizeof first)
        errx(2, "--%s takes two ports, not '%s'", name, text);
    memcpy(first, text, (size_t)(comma - text));
    ports[0] = (uint16_t)argument_number(name, first, 1, 65535);
    ports[1] = (uint16_t)argument_number(name, comma + 1, 1, 65535);
}

static void set_option(void *arg, const char *name, const char *text)
{
    struct role_options *options = arg;

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            uint32_t value = (uint32_t)argument_number(name, text, numbers[i].first, numbers[i].last);
            memcpy((char *)options + numbers[i].at, &value, sizeof value);
            return;
        }
    }
    if (strcmp(name, "board") == 0)
        options->board = text;
    else if (strcmp(name, "to") == 0)
        options->to = argument_address(text);
    else if (strcmp(name, "from") == 0)
        options->from = argument_address(text);
    else if (strcmp(name, "ports") == 0)
        ports_of(options->ports, name, text);
    else if (strcmp(name, "own-ports") == 0)
        ports_of(options->own_ports, name, text);
    else if (strcmp(name, "rate") == 0)
        options->rate = argument_number(name, text, 1, 1e7);
    else if (strcmp(name, "seconds") == 0)
        options->seconds = argument_number(name, text, 1, 86400);
    else
        errx(2, "what is --%s?", name);
}

static void end(int number)
{
    (void)number;
    role_ended = 1;
}

int main(int argc, char **argv)
{
    struct role_options options = {.clients = 1,
                                   .servers = 1,
                                   .lanes = 8,
                                   .patience = 1000,
                                   .ports = {500, 4500},
                                   .own_ports = {30500, 34500},
                                   .salt = 1,
                                   .rate = 1000,
                                   .seconds = 60};

    arguments_read(argc, argv, "homeport-prove load|flood|sink|bare [--NAME VALUE]...", set_option, &options);
    if (options.board == NULL && strcmp(argv[1], "bare") != 0)
        errx(2, "--board is missing");
    signal(SIGTERM, end);
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(argv[1], roles[i].name) == 0)
            return roles[i].run(&options);
    }
    errx(2, "no role '%s': load, flood, sink or bare", argv[1]);
}
