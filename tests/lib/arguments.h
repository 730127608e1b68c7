/* SPDX-License-Identifier: Apache-2.0 */
/* ROLE [--NAME VALUE]...: how the load generators are called. Whatever is wrong ends the program with status 2. */
#ifndef TESTS_ARGUMENTS_H
#define TESTS_ARGUMENTS_H

#include <stdint.h>

/* Calls set for each pair behind the role, in order. */
void arguments_read(int argc, char **argv, const char *usage,
                    void (*set)(void *options, const char *name, const char *text), void *options);
double argument_number(const char *name, const char *text, double first, double last);
uint32_t argument_address(const char *text); /* IPv4, in host order */

#endif
