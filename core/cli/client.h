/* SPDX-License-Identifier: Apache-2.0 */
/* The command's side of the control socket (monitor/monitor.h). */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "cli/arguments.h"

#include <jansson.h>
#include <stdint.h>

#define CLIENT_TIMEOUT_MS 5000
#define CLIENT_RELOAD_TIMEOUT_MS 30000

/* Asks the daemon that the arguments mean. request is taken over. 0: *answer is an object with ok true. Errors: nobody
 * answers, in time or at all; nonsense; ok is false, with the daemon's own words. *answer is NULL or what came, and is
 * to be released with json_decref in every case. */
int client_ask(const struct arguments *arguments, json_t *request, int timeout_ms, json_t **answer,
               struct error *error);
/* The steps of that, for an answer that does not end. deadline_ms: of clock.h. The descriptor does not block. */
int client_open(const struct arguments *arguments, json_t *request, uint64_t deadline_ms, int *fd, struct error *error);
/* 0, or an errno value: ETIMEDOUT when the deadline comes first. */
int client_wait(int fd, short events, uint64_t deadline_ms);
int client_judge(const json_t *answer, size_t size, struct error *error);               /* size: of its text */
int client_no_answer(struct error *error, int code, const struct arguments *arguments); /* code: an errno value */
/* For the reading verbs: asks, prints errors, prints JSON when it is wanted. NULL: nothing more to do, *status is the
 * exit status. */
json_t *client_read(const struct arguments *arguments, json_t *request, int *status);

/* A member of an answer. Not there, or of another kind: "-" and 0. */
const char *answer_text(const json_t *object, const char *name);
json_int_t answer_number(const json_t *object, const char *name);

#endif
