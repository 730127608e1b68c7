/* SPDX-License-Identifier: Apache-2.0 */
/* Which own address the client of a record comes from. It stands beside the bucket's head, with a mark of the decision
 * that it was chosen for: a record that is made, moved or put back has none until its first session is begun. Chosen by
 * one CAS: of two workers that begin the client's first two flows at once one loses, and takes what the other has
 * chosen.
 *
 * The word is read before the record's value: the word of a later decision is stored after that decision was made, so
 * who has seen it sees the later value as well, and is told false. Who has not, and comes late, has a CAS that fails.
 */
#include "segment/record_bucket.h"
#include "segment/source.h"

bool record_source(const struct segment *segment, uint32_t record, uint64_t watch, struct record_source *seen)
{
    const struct record_bucket *bucket = record_bucket_at(segment, record);
    uint16_t word = atomic_load_explicit(&bucket->sources[record % RECORD_SLOTS], memory_order_acquire);

    seen->word = word;
    seen->source = word % SEGMENT_SOURCES;
    seen->chosen = word == record_source_word(watch, seen->source);
    return RECORD_DECISION(record_value(segment, record)) == watch;
}

bool record_source_choose(struct segment *segment, uint32_t record, uint64_t watch, const struct record_source *seen,
                          uint32_t source)
{
    struct record_bucket *bucket = record_bucket_at(segment, record);
    uint16_t word = seen->word;

    return atomic_compare_exchange_strong_explicit(&bucket->sources[record % RECORD_SLOTS], &word,
                                                   record_source_word(watch, source % SEGMENT_SOURCES),
                                                   memory_order_acq_rel, memory_order_relaxed);
}

void record_source_offer(struct segment *segment, uint32_t record, uint64_t watch, uint32_t source)
{
    struct record_source seen;

    if (record_source(segment, record, watch, &seen) && !seen.chosen)
        (void)record_source_choose(segment, record, watch, &seen, source);
}
