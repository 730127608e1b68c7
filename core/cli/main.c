/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/verbs.h"
#include "config/config.h"
#include "process/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct verb {
    const char *name;
    int (*function)(int argc, char **argv);
    const char *help;
} verbs[] = {
    {"run", cli_run, "run the daemon in the foreground"},
    {"check", cli_check, "check a configuration, plugins and their options included"},
    {"plugins", cli_plugins, "list the persistence plugins with their options"},
    {"status", cli_status, "is everything there that should be, and what has it done"},
    {"servers", cli_servers, "servers with state, health and load"},
    {"sessions", cli_sessions, "live flows and the servers they go to"},
    {"affinity", cli_affinity, "persistence records, or why a client goes where it goes"},
    {"trace", cli_trace, "follow one client, live: where it goes, and what is refused"},
    {"drop", cli_drop, "end a client's sessions and forget its records"},
    {"reload", cli_reload, "read the configuration again, without losing a datagram"},
    {"stop", cli_stop, "end the daemon in order; the next start goes on where it was"},
#ifdef HOMEPORT_DEMO
    {"demo", cli_demo, "three servers and sixty clients on this machine, through each plugin"},
#endif
    {"version", cli_version, "version of homeport and of its plugin ABI"},
};

static void print_usage(FILE *stream)
{
    fputs("usage: homeport VERB [options]\n\n", stream);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        fprintf(stream, "  %-10s %s\n", verbs[i].name, verbs[i].help);
    fputs("\nhomeport VERB --help says more; the manual is homeport(8).\n", stream);
}

static int unknown_verb(const char *name)
{
    const char *names[sizeof verbs / sizeof verbs[0]], *closest;

    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        names[i] = verbs[i].name;
    closest = config_closest(name, names, sizeof names / sizeof names[0]);
    if (closest != NULL)
        fprintf(stderr, "homeport: there is no verb %s; did you mean %s?\n", name, closest);
    else
        fprintf(stderr, "homeport: there is no verb %s; homeport --help lists them\n", name);
    return 2;
}

/* Standard input, output and error are there, if need be as /dev/null: else the first files that are opened would be
 * taken for them. */
static void open_standard_files(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    int status;

    open_standard_files();
    status = process_role_main(argc, argv);
    if (status >= 0)
        return status;
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verbs[i].name, argv[1]) == 0)
            return verbs[i].function(argc - 1, argv + 1);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0)
        return cli_version(1, argv + 1);
    return unknown_verb(argv[1]);
}
