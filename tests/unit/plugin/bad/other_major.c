/* SPDX-License-Identifier: Apache-2.0 */
/* Built for an ABI that is not ours. */
extern __attribute__((visibility("default"))) const int hp_plugin_v3[64];
const int hp_plugin_v3[64] = {3};
