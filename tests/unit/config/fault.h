/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that runs out when a test says so. Linked with -Wl,--wrap: it meets our own code, not the libraries'. */
#ifndef TEST_CONFIG_FAULT_H
#define TEST_CONFIG_FAULT_H

/* The allocation after (count) more fails, once. Negative: none. */
void fault_after(int count);
/* Allocations that are not freed yet. */
int fault_live(void);

#endif
