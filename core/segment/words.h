/* SPDX-License-Identifier: Apache-2.0 */
/* Copying plain members that another process may be writing. Private to this folder.
 *
 * Word by word, so that compiler and hardware tear nothing smaller, and in order: a reader's loads are acquire, so that
 * the version word that it reads afterwards is really read afterwards; a writer's stores are release, so that the
 * version word that it wrote before is seen by whoever sees one of the new words. On x86 both are plain moves. */
#ifndef SEGMENT_WORDS_H
#define SEGMENT_WORDS_H

#include <stddef.h>
#include <stdint.h>

/* size: a multiple of 8. shared: aligned to 8. */
void words_load(void *copy, const void *shared, size_t size);
void words_store(void *shared, const void *content, size_t size);

#endif
