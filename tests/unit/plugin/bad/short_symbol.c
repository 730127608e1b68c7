/* SPDX-License-Identifier: Apache-2.0 */
/* Has the symbol, but nothing of the size behind it. */
extern __attribute__((visibility("default"))) const int hp_plugin_v1;
const int hp_plugin_v1 = 1;
