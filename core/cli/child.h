/* SPDX-License-Identifier: Apache-2.0 */
/* Foreign code runs in a child that has given up everything; its crash or hang is reported, never suffered. */
#ifndef CLI_CHILD_H
#define CLI_CHILD_H

#include "base/error.h"

#include <jansson.h>

#define CHILD_LIMIT_S 10u

/* Runs work in a child and gives back the JSON that it makes. doing: a note for the case that it dies, 128 octets that
 * both see. work may return NULL after error_set.
 * Errors: what work said; -EFAULT it crashed; -ETIMEDOUT it hung. */
int child_run(json_t **out, json_t *(*work)(void *arg, char *doing, struct error *error), void *arg,
              struct error *error);

#endif
