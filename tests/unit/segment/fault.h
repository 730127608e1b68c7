/* SPDX-License-Identifier: Apache-2.0 */
/* System calls of the segment's code that fail, or at which the process dies, one after the other. The linker puts them
 * in place of the real ones (meson.build: --wrap). */
#ifndef FAULT_H
#define FAULT_H

#define FAULT_DIED 77 /* exit status */

void fault_after(int calls); /* the call after so many fails, once */
void fault_dies_after(int calls);
void fault_none(void);

#endif
