/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/arguments.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const struct argument {
    unsigned bit;
    int letter; /* what getopt_long gives back */
    const char *flag, *shown, *help;
} known[] = {
    {ARGUMENT_CONFIG, 'c', "config", "-c, --config FILE", "the configuration (" CLI_CONFIG ")"},
    {ARGUMENT_STATE, 's', "state", "--state DIR", "the state folder, instead of the one that FILE names"},
    {ARGUMENT_JSON, 'j', "json", "--json", "print what the daemon answers, as JSON"},
    {ARGUMENT_EXPLAIN, 'e', "explain", "--explain", "say which key the client has, and what it would get"},
    {0, 'h', "help", "-h, --help", "this text"},
};
enum { KNOWN = sizeof known / sizeof known[0] };

static bool offered(const struct usage *usage, const struct argument *argument)
{
    return argument->bit == 0 || (usage->options & argument->bit) != 0;
}

static void print_line(FILE *stream, const struct usage *usage)
{
    fprintf(stream, "usage: homeport %s", usage->verb);
    for (int i = 0; i < KNOWN; i++)
        if (known[i].bit != 0 && offered(usage, &known[i]))
            fprintf(stream, " [%s]", known[i].letter == 'c' ? "-c FILE" : known[i].shown);
    fprintf(stream, "%s%s\n", usage->operands[0] != '\0' ? " " : "", usage->operands);
}

static void print_help(const struct usage *usage)
{
    print_line(stdout, usage);
    printf("\n%s\n\noptions:\n", usage->text);
    for (int i = 0; i < KNOWN; i++)
        if (offered(usage, &known[i]))
            printf("  %-18s %s\n", known[i].shown, known[i].help);
    printf("\nexample:\n  %s\n", usage->example);
}

static int wrong(const struct usage *usage, const char *why)
{
    fprintf(stderr, "homeport %s: %s\n", usage->verb, why);
    print_line(stderr, usage);
    return 2;
}

/* getopt leaves the letter of an option that it knows (its value is missing or too much) or of a wrong short one. */
static int wrong_option(const struct usage *usage, const char *written, int letter)
{
    char why[160];

    if (letter == 0 || (written[0] == '-' && written[1] != '-' && strchr("hc", letter) == NULL))
        snprintf(why, sizeof why, "there is no option %.100s", written);
    else
        snprintf(why, sizeof why, "%.100s: its value is missing, or it takes none", written);
    return wrong(usage, why);
}

static void apply(struct arguments *out, int letter, const char *value)
{
    switch (letter) {
    case 'c':
        out->config = value;
        out->config_written = true;
        break;
    case 's':
        out->state = value;
        break;
    case 'j':
        out->json = true;
        break;
    case 'e':
        out->explain = true;
        break;
    }
}

int arguments_read(struct arguments *out, const struct usage *usage, int argc, char **argv)
{
    const char *letters = usage->options & ARGUMENT_CONFIG ? "hc:" : "h";
    struct option options[KNOWN + 1] = {{0}};
    int count = 0, letter;

    for (int i = 0; i < KNOWN; i++)
        if (offered(usage, &known[i]))
            options[count++] =
                (struct option){known[i].flag, strchr("cs", known[i].letter) != NULL ? required_argument : no_argument,
                                NULL, known[i].letter};
    *out = (struct arguments){.verb = usage->verb, .config = CLI_CONFIG};
    opterr = 0;
    optind = 0; /* GNU: begin anew, main's table may be walked more than once in a test */
    while ((letter = getopt_long(argc, argv, letters, options, NULL)) != -1) {
        if (letter == 'h') {
            print_help(usage);
            return 0;
        }
        if (letter == '?')
            return wrong_option(usage, argv[optind - 1], optopt);
        apply(out, letter, optarg);
    }
    out->operands = argv + optind;
    out->operand_count = argc - optind;
    if (out->operand_count < usage->least)
        return wrong(usage, "something is missing");
    if (out->operand_count > usage->most)
        return wrong(usage, "too many arguments");
    return -1;
}

int cli_failed(const char *verb, const struct error *error)
{
    char line[sizeof error->what + sizeof error->next + 4];

    fprintf(stderr, "homeport %s: %s\n", verb, error_line(error, line, sizeof line));
    return 1;
}
