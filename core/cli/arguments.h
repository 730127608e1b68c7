/* SPDX-License-Identifier: Apache-2.0 */
/* Options and help of the verbs, the same everywhere. */
#ifndef CLI_ARGUMENTS_H
#define CLI_ARGUMENTS_H

#include "base/error.h"

#include <stdbool.h>

#define CLI_CONFIG "/etc/homeport/homeport.yaml"

enum { ARGUMENT_CONFIG = 1, ARGUMENT_STATE = 2, ARGUMENT_JSON = 4, ARGUMENT_EXPLAIN = 8 };

struct usage {
    const char *verb, *operands; /* "[CLIENT]" or "" */
    const char *text;            /* what it does, a paragraph */
    const char *example;
    unsigned options; /* ARGUMENT_ bits */
    int least, most;  /* operands */
};
struct arguments {
    const char *verb;
    const char *config, *state; /* config: the default when not written; state: NULL when not written */
    bool config_written, json, explain;
    char **operands;
    int operand_count;
};

/* -1: go on with *out. Else the exit status: 0 help was printed, 2 usage. */
int arguments_read(struct arguments *out, const struct usage *usage, int argc, char **argv);
/* "homeport VERB: WHAT; NEXT" to standard error. Returns 1. */
int cli_failed(const char *verb, const struct error *error);

#endif
