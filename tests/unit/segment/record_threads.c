/* SPDX-License-Identifier: Apache-2.0 */
/* Threads in the place of processes, so that a thread sanitizer can watch: claims, moves, touches, proofs, deletes and
 * evictions on few keys, and a session row that one thread writes and another reads. */
#include "fixture.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define THREADS 4u
#define KEYS 6u
#define STRANGERS 14u /* with the keys more than a bucket holds */
#if defined(__SANITIZE_THREAD__)
#define TURNS 60000u
#else
#define TURNS 300000u
#endif

struct worker {
    struct segment *segment;
    uint32_t slot;
    uint64_t random;
    uint32_t wrong;
};

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void change(struct worker *worker, struct record_ref *ref, uint64_t dice)
{
    uint64_t before = ref->value;
    struct record_view view;

    if (dice < 4)
        record_move(worker->segment, ref, (uint32_t)(random_next(&worker->random) % 1000), 1000);
    else if (dice < 7)
        record_touch(worker->segment, ref, 1000 + (uint32_t)dice);
    else if (dice == 7)
        record_prove(worker->segment, ref);
    else if (dice < 12)
        record_delete(worker->segment, ref);
    else if (record_read(worker->segment, ref->index, &view))
        worker->wrong += view.timeout_s != 180 || view.profile != 0x55667788 || RECORD_SERVER(view.ref.value) >= 1000;
    worker->wrong += RECORD_SERVER(before) == RECORD_DEAD;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct record_origin origin = origin_of(180);

    for (uint32_t i = 0; i < TURNS; i++) {
        uint64_t dice = random_next(&worker->random) % 64;
        struct record_key key = key_in_bucket(
            worker->segment, 0, (uint32_t)(random_next(&worker->random) % (dice == 0 ? STRANGERS : KEYS)));
        struct record_ref ref;
        uint32_t evicted;

        if (record_claim(worker->segment, worker->slot, &key, (uint32_t)(random_next(&worker->random) % 1000), &origin,
                         1000, true, &ref, &evicted) == RECORD_FULL)
            continue;
        worker->wrong += ref.index >= RECORD_SLOTS;
        change(worker, &ref, dice);
    }
    return NULL;
}

static void *session_write(void *argument)
{
    struct session_row *row = session_partition(((struct worker *)argument)->segment, 1);

    for (uint32_t i = 1; i < TURNS; i++) {
        struct session_row content = {.service = i, .server = (uint16_t)i};

        session_begin(row, &content, i);
        atomic_store_explicit(&row->client_ms, i, memory_order_relaxed);
        session_end(row);
    }
    return NULL;
}

static void *session_look(void *argument)
{
    struct worker *worker = argument;
    const struct session_row *row = session_partition(worker->segment, 1);

    for (uint32_t i = 1; i < TURNS; i++) {
        struct session_row copy;

        if (session_read(row, &copy))
            worker->wrong += copy.server != (uint16_t)copy.service || atomic_load(&copy.begun_ms) != copy.service;
    }
    return NULL;
}

static uint32_t slots_usable(struct segment *segment, uint32_t slot)
{
    struct record_origin origin = origin_of(180);
    struct record_view view;
    uint32_t usable = 0;

    for (uint32_t i = 0; i < RECORD_SLOTS; i++) {
        if (record_read(segment, i, &view))
            record_delete(segment, &view.ref);
    }
    for (uint32_t i = 0; i < RECORD_SLOTS; i++) {
        struct record_key key = key_in_bucket(segment, 0, 1000 + i);
        struct record_ref ref;
        uint32_t evicted;

        usable += record_claim(segment, slot, &key, 1, &origin, 1000, false, &ref, &evicted) == RECORD_CREATED;
    }
    return usable;
}

int main(void)
{
    static void *(*const bodies[THREADS + 2])(void *) = {work, work, work, work, session_write, session_look};
    struct worker workers[THREADS + 2];
    pthread_t threads[THREADS + 2];
    uint64_t seed = (uint64_t)time(NULL) * 2654435761u;
    uint32_t wrong = 0, twice, usable;
    struct fixture fixture;

    fixture_open(&fixture);
    if (fixture_segment(&fixture) < 0) {
        printf("Bail out! %s\n", fixture.error.what);
        return 1;
    }
    printf("1..3\n# seed %llu\n", (unsigned long long)seed);
    for (uint32_t i = 0; i < THREADS + 2; i++) {
        workers[i] = (struct worker){.segment = fixture.segment,
                                     .slot = process_begin(fixture.segment, PROCESS_WORKER, i),
                                     .random = seed + i + 1};
        if (pthread_create(&threads[i], NULL, bodies[i], &workers[i]) != 0)
            abort();
    }
    for (uint32_t i = 0; i < THREADS + 2; i++) {
        pthread_join(threads[i], NULL);
        wrong += workers[i].wrong;
    }
    twice = bucket_duplicates(fixture.segment, 0);
    usable = slots_usable(fixture.segment, workers[0].slot);
    printf("%s 1 - everything that was read was whole (%u were not)\n", wrong == 0 ? "ok" : "not ok", wrong);
    printf("%s 2 - no key is there twice\n", twice == 0 ? "ok" : "not ok");
    printf("%s 3 - every slot can be used again (%u)\n", usable == RECORD_SLOTS ? "ok" : "not ok", usable);
    fixture_close(&fixture);
    return wrong == 0 && twice == 0 && usable == RECORD_SLOTS ? 0 : 1;
}
