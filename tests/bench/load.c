/* SPDX-License-Identifier: Apache-2.0 */
/* homeport-load ROLE [--NAME VALUE]...: traffic for tests/bench/run, made and counted. */
#include "roles.h"

#include <arpa/inet.h>
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
} roles[] = {{"sink", role_sink}, {"drive", role_drive}, {"newflows", role_newflows}, {"hold", role_hold}};

static uint32_t address_of(const char *text)
{
    struct in_addr address;

    if (inet_pton(AF_INET, text, &address) != 1)
        errx(2, "'%s' is no address", text);
    return ntohl(address.s_addr);
}

static void hardware_of(uint8_t hardware[6], const char *text)
{
    if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &hardware[0], &hardware[1], &hardware[2], &hardware[3],
               &hardware[4], &hardware[5]) != 6)
        errx(2, "'%s' is no hardware address", text);
}

static volatile uint64_t *count_map(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *map = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, 8) == 0)
        map = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        err(1, "%s", path);
    close(fd);
    return map;
}

static double bounded(const char *name, const char *text, double first, double last)
{
    char *rest;
    double value = strtod(text, &rest);

    if (*text == '\0' || *rest != '\0' || value < first || value > last)
        errx(2, "--%s takes a number from %g to %g, not '%s'", name, first, last, text);
    return value;
}

static enum message_step step_of(const char *text)
{
    if (strcmp(text, "ike") == 0)
        return MESSAGE_INIT;
    if (strcmp(text, "esp") == 0)
        return MESSAGE_ESP;
    errx(2, "--begin takes ike or esp, not '%s'", text);
}

static void set_option(struct role_options *options, const char *name, const char *text)
{
    if (strcmp(name, "to") == 0)
        options->to = address_of(text);
    else if (strcmp(name, "from") == 0)
        options->from = address_of(text);
    else if (strcmp(name, "device") == 0)
        options->device = text;
    else if (strcmp(name, "hardware") == 0)
        hardware_of(options->hardware, text);
    else if (strcmp(name, "port") == 0)
        options->port = (uint16_t)bounded(name, text, 1, 65535);
    else if (strcmp(name, "flows") == 0)
        options->flows = (uint32_t)bounded(name, text, 1, 60000);
    else if (strcmp(name, "window") == 0)
        options->window = (uint32_t)bounded(name, text, 1, 1000);
    else if (strcmp(name, "size") == 0)
        options->size = (uint32_t)bounded(name, text, MESSAGE_HEAD, 1472);
    else if (strcmp(name, "seconds") == 0)
        options->seconds = bounded(name, text, 0.1, 3600);
    else if (strcmp(name, "warmup") == 0)
        options->warmup = bounded(name, text, 0, 60);
    else if (strcmp(name, "keepalive") == 0)
        options->keepalive = bounded(name, text, 1, 3600);
    else if (strcmp(name, "begin") == 0)
        options->begin = step_of(text);
    else if (strcmp(name, "count") == 0)
        options->count = count_map(text);
    else
        errx(2, "what is --%s?", name);
}

int main(int argc, char **argv)
{
    uint64_t nowhere = 0;
    struct role_options options = {.device = "lb",
                                   .count = &nowhere,
                                   .begin = MESSAGE_ESP,
                                   .port = 4500,
                                   .flows = 200,
                                   .window = 1,
                                   .size = 100,
                                   .seconds = 5,
                                   .warmup = 1,
                                   .keepalive = 20};

    if (argc < 2 || argc % 2 != 0)
        errx(2, "usage: homeport-load sink|drive|newflows|hold [--NAME VALUE]...");
    for (int i = 2; i < argc; i += 2) {
        if (strncmp(argv[i], "--", 2) != 0)
            errx(2, "what is '%s'?", argv[i]);
        set_option(&options, argv[i] + 2, argv[i + 1]);
    }
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(argv[1], roles[i].name) == 0)
            return roles[i].run(&options);
    }
    errx(2, "no role '%s': sink, drive, newflows or hold", argv[1]);
}
