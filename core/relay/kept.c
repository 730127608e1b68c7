/* SPDX-License-Identifier: Apache-2.0 */
/* A client with several names: the records that a session's decisions have claimed beside the one that it watches. A
 * tunnel is known by its IKE SPI and by its ESP SPI; an hour of ESP alone must not let the record of the first expire.
 *
 * Happy path: a decision claims another record than the watched one, for the same server: it comes here. Once a second
 * it is refreshed as the watched one is by traffic, and once the session is proven and the record has lasted, it is
 * proven as well.
 * Fails: more than SESSION_KEPT         -> the one that was claimed longest ago is left to its timeout
 *        it has moved, expired, or gone -> forgotten; the next ESP is asked about once more: it may have been its own
 *        the watched one has gone       -> the new one is watched instead
 *        the watched one is of another profile, which the service had before a reload -> likewise */
#include "relay/private.h"

#define REFRESH_S 8u /* a record that was not used for so long while the session was heard */

static void kept_put(struct session_row *row, uint32_t position, uint32_t record, uint64_t watch)
{
    atomic_store_explicit(&row->kept_watch[position], watch, memory_order_relaxed);
    atomic_store_explicit(&row->kept_record[position], record, memory_order_relaxed);
}

static uint32_t kept_at(const struct session_row *row, uint32_t position)
{
    return atomic_load_explicit(&row->kept_record[position], memory_order_relaxed);
}

/* What is kept there, as it is now. */
static bool kept_find(const struct path *path, uint32_t position, struct record_ref *ref)
{
    uint64_t watch = atomic_load_explicit(&path->row->kept_watch[position], memory_order_relaxed);

    return path_finds(path, kept_at(path->row, position), watch, ref) && RECORD_SERVER(ref->value) != RECORD_DEAD;
}

/* To the head of the list; what stood at `position` makes way. */
static void kept_shift(struct session_row *row, uint32_t position)
{
    for (; position > 0; position--)
        kept_put(row, position, kept_at(row, position - 1),
                 atomic_load_explicit(&row->kept_watch[position - 1], memory_order_relaxed));
}

static bool same_profile(const struct segment *segment, uint32_t one, uint32_t other)
{
    struct record_view a, b;

    return record_read(segment, one, &a) && record_read(segment, other, &b) && a.profile == b.profile;
}

static void kept_remove(struct session_row *row, uint32_t record)
{
    for (uint32_t i = 0; i < SESSION_KEPT; i++)
        if (kept_at(row, i) == record)
            kept_put(row, i, SEGMENT_NO_INDEX, 0);
}

/* The first that is free, else the last. */
static uint32_t kept_place(const struct session_row *row)
{
    uint32_t place = 0;

    while (place < SESSION_KEPT - 1 && kept_at(row, place) != SEGMENT_NO_INDEX)
        place++;
    return place;
}

bool kept_add(struct path *path, const struct decision *decision)
{
    struct session_row *row = path->row;
    struct record_ref watched;
    uint32_t place;

    if (decision->record == SEGMENT_NO_INDEX)
        return false;
    kept_remove(row, decision->record);
    if (!path_watched(path, &watched) || watched.index == decision->record ||
        !same_profile(path->lane->relay->segment, watched.index, decision->record))
        return false;
    place = kept_place(row);
    if (kept_at(row, place) != SEGMENT_NO_INDEX)
        path->esp_spi = 0; /* what makes way may be the ESP in use: asked about again */
    kept_shift(row, place);
    kept_put(row, 0, decision->record, decision->watch);
    return true;
}

void kept_copy(struct session_row *to, const struct session_row *from)
{
    for (uint32_t i = 0; i < SESSION_KEPT; i++)
        kept_put(to, i, kept_at(from, i), atomic_load_explicit(&from->kept_watch[i], memory_order_relaxed));
}

static void refresh_one(struct path *path, struct record_ref *ref)
{
    struct relay *relay = path->lane->relay;
    uint32_t now_s = relay_now_s(relay), age_s = record_age_s(ref->value, now_s);
    bool heard = now_s - (uint32_t)(row_last_ms(path->row) / 1000) < age_s;

    if (row_proven(path->row) && !RECORD_PROVEN(ref->value) && path_has_borne_out(path, ref))
        (void)record_prove(relay->segment, ref);
    if (heard && age_s >= REFRESH_S)
        (void)record_touch(relay->segment, ref, now_s);
    else
        path_keep_record(path, ref);
}

void kept_refresh(struct path *path)
{
    struct record_ref ref;

    if (path->service->decides == 0) /* since a reload: left to their timeouts */
        return;
    for (uint32_t i = 0; i < SESSION_KEPT; i++) {
        if (kept_find(path, i, &ref)) {
            refresh_one(path, &ref);
        } else if (ref.index != SEGMENT_NO_INDEX) {
            kept_put(path->row, i, SEGMENT_NO_INDEX, 0);
            path->esp_spi = 0;
        }
    }
}

void kept_delete(struct path *path)
{
    struct record_ref ref;

    for (uint32_t i = 0; i < SESSION_KEPT; i++)
        if (kept_find(path, i, &ref))
            (void)record_delete(path->lane->relay->segment, &ref);
}
