/* SPDX-License-Identifier: Apache-2.0 */
/* Calls what nobody has. */
int nobody_has_this(void);
__attribute__((visibility("default"))) int call(void);
int call(void)
{
    return nobody_has_this();
}
