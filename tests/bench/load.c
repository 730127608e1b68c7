/* SPDX-License-Identifier: Apache-2.0 */
/* homeport-load ROLE [--NAME VALUE]...: traffic for tests/bench/run, made and counted. */
#include "arguments.h"
#include "roles.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*run)(const struct role_options *options);
} roles[] = {
    {"sink", role_sink}, {"drive", role_drive},       {"ask", role_ask},         {"bulk", role_bulk},
    {"runs", role_runs}, {"newflows", role_newflows}, {"hold", role_hold},       {"serve", role_serve},
    {"push", role_push}, {"pull", role_pull},         {"connect", role_connect},
};

static void hardware_of(uint8_t hardware[6], const char *text)
{
    if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &hardware[0], &hardware[1], &hardware[2], &hardware[3],
               &hardware[4], &hardware[5]) != 6)
        errx(2, "'%s' is no hardware address", text);
}

#define COUNTS_SIZE (2 * sizeof(uint64_t))

static volatile uint64_t *count_map(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *map = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, COUNTS_SIZE) == 0)
        map = mmap(NULL, COUNTS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        err(1, "%s", path);
    close(fd);
    return map;
}

static enum message_step step_of(const char *text)
{
    if (strcmp(text, "ike") == 0)
        return MESSAGE_INIT;
    if (strcmp(text, "esp") == 0)
        return MESSAGE_ESP;
    errx(2, "--begin takes ike or esp, not '%s'", text);
}

static void set_option(void *arg, const char *name, const char *text)
{
    struct role_options *options = arg;

    if (strcmp(name, "to") == 0)
        options->to = argument_address(text);
    else if (strcmp(name, "from") == 0)
        options->from = argument_address(text);
    else if (strcmp(name, "device") == 0)
        options->device = text;
    else if (strcmp(name, "hardware") == 0)
        hardware_of(options->hardware, text);
    else if (strcmp(name, "port") == 0)
        options->port = (uint16_t)argument_number(name, text, 1, 65535);
    else if (strcmp(name, "flows") == 0)
        options->flows = (uint32_t)argument_number(name, text, 1, 60000);
    else if (strcmp(name, "window") == 0)
        options->window = (uint32_t)argument_number(name, text, 1, 10000);
    else if (strcmp(name, "size") == 0)
        options->size = (uint32_t)argument_number(name, text, MESSAGE_HEAD, 1472);
    else if (strcmp(name, "seconds") == 0)
        options->seconds = argument_number(name, text, 0.1, 3600);
    else if (strcmp(name, "warmup") == 0)
        options->warmup = argument_number(name, text, 0, 60);
    else if (strcmp(name, "rate") == 0)
        options->rate = argument_number(name, text, 0, 1e7);
    else if (strcmp(name, "keepalive") == 0)
        options->keepalive = argument_number(name, text, 1, 3600);
    else if (strcmp(name, "begin") == 0)
        options->begin = step_of(text);
    else if (strcmp(name, "count") == 0)
        options->count = count_map(text);
    else
        errx(2, "what is --%s?", name);
}

int main(int argc, char **argv)
{
    uint64_t nowhere[2] = {0};
    struct role_options options = {.device = "lb",
                                   .count = nowhere,
                                   .begin = MESSAGE_ESP,
                                   .port = 4500,
                                   .flows = 200,
                                   .window = 1,
                                   .size = 100,
                                   .seconds = 5,
                                   .warmup = 1,
                                   .keepalive = 20};

    arguments_read(argc, argv, "homeport-load ROLE [--NAME VALUE]... (roles.h has them)", set_option, &options);
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(argv[1], roles[i].name) == 0)
            return roles[i].run(&options);
    }
    errx(2, "no role '%s'", argv[1]);
}
