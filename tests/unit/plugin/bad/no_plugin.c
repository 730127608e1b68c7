/* SPDX-License-Identifier: Apache-2.0 */
/* A shared object of another kind. */
__attribute__((visibility("default"))) int frobnicate(void);
int frobnicate(void)
{
    return 1;
}
