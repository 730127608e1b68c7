/* SPDX-License-Identifier: Apache-2.0 */
/* Every instruction of every change to a record, of the object code that is shipped. A victim is single-stepped; at
 * each instruction copies of it are made (stepping.h), and a copy is
 * - killed, its generation raised, or
 * - stopped; others go on, and it wakes up later, or
 * - stopped; others delete and make the record again meanwhile, and it wakes up later, or
 * - stopped; a neighbour goes and the record comes in its place, so that the same slots are occupied as before.
 *
 * Then: a record is absent or whole, one server per key, no key twice, nobody waited, every slot can be used again. The
 * bucket is put back as it was, and the victim goes on to its next instruction. What is stepped through is an operation
 * as core/plugin/claim.c and core/relay/path.c do it: the look at the record, and the change.
 *
 * record_steps: as many points as a build of this kind can try within seconds, every k-th instruction if need be.
 * record_steps full: every instruction. */
#include "fixture.h"
#include "stepping.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY = 500,
    NEIGHBOUR = 5,
    SERVER_OLD = 5,
    SERVER_VICTIM = 11,
    SERVER_OTHER = 22,
    SERVER_LATER = 33,
    SERVER_LAST = 44,
    SERVER_STRANGER = 77,
    TIMEOUT_S = 180,
    TIMEOUT_NEW_S = 300,
    MADE_S = 1000, /* when the records that are there before were made */
    VICTIM_S = 1100,
    OTHERS_S = 1150,
    EXPIRED_S = 1300, /* the time of all when the record has expired */
    ENOUGH = 100      /* an operation of no more instructions would prove little */
};
#ifdef __SANITIZE_ADDRESS__
#define POINTS_PER_CASE 200u
#else
#define POINTS_PER_CASE 500u
#endif

enum fate { KILLED, WOKEN, WOKEN_LATE, WOKEN_TWIN, FATES };
static const char *const fate_names[] = {"killed", "stopped and woken", "stopped while the record was made anew",
                                         "stopped while the record took a neighbour's place"};

struct operation;
struct bench {
    struct fixture fixture;
    struct segment *segment;
    const struct operation *operation;
    struct record_key key; /* KEY's; made beforehand, as is the origin: what is stepped through is the product's code */
    struct record_origin origin;
    uint32_t self, other; /* process slots of the victim and of the stepper */
    bool full;
    unsigned failures;
    double slowest_ms;
};

/* In stepping->words: */
enum {
    ANSWER, /* the server that the victim was told; NOBODY: none yet */
    SEEN    /* mark() of the record that it tried to change; 0: none yet */
};
#define NOBODY UINT64_MAX

struct operation {
    const char *name;
    bool known, full; /* the key is there before; the bucket is full of unproven ones and four proven ones */
    bool claims;      /* its end is an answer */
    bool expired;     /* the record is too old for everybody */
    void (*run)(struct bench *bench);
    uint64_t before, after; /* servers of the key that may be found when the victim was killed */
};

static struct record_key key_of(const struct bench *bench, uint32_t number)
{
    return key_in_bucket(bench->segment, 0, number);
}

/* Slot, generation and server in a word. */
static uint64_t mark(const struct record_ref *ref)
{
    return RECORD_DECISION(ref->value) << 4 | ref->index % RECORD_SLOTS;
}

static enum record_result claim_as(struct bench *bench, uint32_t self, const struct record_key *key, uint32_t server,
                                   uint32_t now_s, struct record_ref *ref)
{
    uint32_t evicted;

    return record_claim(bench->segment, self, key, server, &bench->origin, now_s, true, ref, &evicted);
}

/* By another than the victim. */
static void claim_other(struct bench *bench, uint32_t number, uint32_t server, uint32_t now_s, struct record_ref *ref)
{
    struct record_key key = key_of(bench, number);

    claim_as(bench, bench->other, &key, server, now_s, ref);
}

/* As claim.c: one that has expired is deleted and made anew. */
static enum record_result claim_anew(struct bench *bench, uint32_t self, uint32_t server, uint32_t now_s,
                                     struct record_ref *ref)
{
    while (record_find(bench->segment, &bench->key, ref) && record_expired(bench->segment, ref, now_s))
        record_delete(bench->segment, ref);
    return claim_as(bench, self, &bench->key, server, now_s, ref);
}

/* ---- what the victim does ---- */

static void run_claim(struct bench *bench)
{
    struct record_ref ref;

    if (claim_as(bench, bench->self, &bench->key, SERVER_VICTIM, VICTIM_S, &ref) != RECORD_FULL)
        atomic_store(&stepping->words[ANSWER], RECORD_SERVER(ref.value));
}

static void run_expire(struct bench *bench)
{
    struct record_ref ref;

    if (claim_anew(bench, bench->self, SERVER_VICTIM, EXPIRED_S, &ref) != RECORD_FULL)
        atomic_store(&stepping->words[ANSWER], RECORD_SERVER(ref.value));
}

static bool look(struct bench *bench, struct record_ref *ref)
{
    if (!record_find(bench->segment, &bench->key, ref) || record_expired(bench->segment, ref, VICTIM_S))
        return false;
    atomic_store(&stepping->words[SEEN], mark(ref));
    return true;
}

static void run_move(struct bench *bench)
{
    struct record_ref ref;

    if (look(bench, &ref) && record_move(bench->segment, &ref, SERVER_VICTIM, VICTIM_S))
        record_set_timeout(bench->segment, &ref, TIMEOUT_S);
}

static void run_touch(struct bench *bench)
{
    struct record_ref ref;

    if (look(bench, &ref) && record_touch(bench->segment, &ref, VICTIM_S))
        record_set_timeout(bench->segment, &ref, TIMEOUT_S);
}

static void run_set_timeout(struct bench *bench)
{
    struct record_ref ref;

    if (look(bench, &ref))
        record_set_timeout(bench->segment, &ref, TIMEOUT_NEW_S);
}

static void run_prove(struct bench *bench)
{
    struct record_view view;
    struct record_ref ref;

    if (look(bench, &ref) && record_read(bench->segment, ref.index, &view))
        record_prove(bench->segment, &ref);
}

static void run_delete(struct bench *bench)
{
    struct record_ref ref;

    if (look(bench, &ref))
        record_delete(bench->segment, &ref);
}

static const struct operation operations[] = {
    {"claim of a new key", false, false, true, false, run_claim, SERVER_OTHER, SERVER_VICTIM},
    {"claim of a known key", true, false, true, false, run_claim, SERVER_OLD, SERVER_OLD},
    {"move", true, false, false, false, run_move, SERVER_OLD, SERVER_VICTIM},
    {"touch", true, false, false, false, run_touch, SERVER_OLD, SERVER_OLD},
    {"another timeout", true, false, false, false, run_set_timeout, SERVER_OLD, SERVER_OLD},
    {"prove", true, false, false, false, run_prove, SERVER_OLD, SERVER_OLD},
    {"delete", true, false, false, false, run_delete, SERVER_OLD, SERVER_OTHER},
    {"expire", true, false, true, true, run_expire, SERVER_OTHER, SERVER_VICTIM},
    {"claim that evicts", false, true, true, false, run_claim, SERVER_OTHER, SERVER_VICTIM},
};

static void victim(void *arg)
{
    struct bench *bench = arg;
    struct record_ref ref;

    record_find(bench->segment, &bench->key, &ref); /* what the linker binds late is bound */
    stepping_here();
    bench->operation->run(bench);
    stepping_end();
}

/* ---- what becomes of it ---- */

static void expect(struct bench *bench, bool fine, enum fate fate, unsigned point, const char *claim)
{
    if (fine)
        return;
    if (bench->failures++ < 20)
        printf("# %s, %s at instruction %u: not %s\n", bench->operation->name, fate_names[fate], point, claim);
}

/* The bucket as it is before the operation. */
static void prepare(struct bench *bench)
{
    const struct operation *operation = bench->operation;
    struct record_ref ref;

    memset((void *)&bench->segment->buckets[0], 0, sizeof bench->segment->buckets[0]);
    if (!operation->full)
        claim_other(bench, NEIGHBOUR, SERVER_OLD, MADE_S, &ref);
    if (operation->known)
        claim_other(bench, KEY, SERVER_OLD, MADE_S, &ref);
    for (uint32_t i = 1; operation->full && i <= RECORD_SLOTS; i++) {
        claim_other(bench, i, SERVER_OLD, MADE_S + i, &ref);
        if (i <= 4)
            record_prove(bench->segment, &ref);
    }
    atomic_store(&stepping->words[ANSWER], NOBODY);
    atomic_store(&stepping->words[SEEN], 0);
}

static uint32_t others_s(const struct bench *bench)
{
    return bench->operation->expired ? EXPIRED_S : OTHERS_S;
}

struct told { /* what another process is told for the key */
    uint64_t server, mark;
};

static struct told ask(struct bench *bench, uint32_t server)
{
    struct record_ref ref;
    double start = stepping_ms(), taken;
    enum record_result result = claim_anew(bench, bench->other, server, others_s(bench), &ref);

    taken = stepping_ms() - start;
    if (taken > bench->slowest_ms)
        bench->slowest_ms = taken;
    if (result == RECORD_FULL)
        return (struct told){.server = NOBODY};
    return (struct told){.server = RECORD_SERVER(ref.value), .mark = mark(&ref)};
}

static bool is_whole(const struct bench *bench, const struct record_view *view)
{
    const struct hp_endpoint client = endpoint_of(7, 0);
    uint32_t latest = others_s(bench), used = RECORD_LAST_USE(view->ref.value);

    /* a stopped one may give its timeout to the slot's next record: record_change.c */
    return (view->timeout_s == TIMEOUT_S ||
            (view->timeout_s == TIMEOUT_NEW_S && bench->operation->run == run_set_timeout)) &&
           view->profile == 0x55667788 && memcmp(&view->client, &client, sizeof client) == 0 &&
           view->created_s >= MADE_S && view->created_s <= latest && used >= MADE_S && used <= latest &&
           RECORD_GENERATION(view->ref.value) != 0;
}

static bool all_whole(const struct bench *bench)
{
    for (uint32_t i = 0; i < RECORD_SLOTS; i++) {
        struct record_view view;

        if (record_read(bench->segment, i, &view) && !is_whole(bench, &view))
            return false;
    }
    return bucket_duplicates(bench->segment, 0) == 0;
}

/* Of the sixteen that were there: the proven ones are, and no more than two have made way. */
static bool neighbours_are_there(const struct bench *bench, unsigned may_be_gone)
{
    unsigned gone = 0;

    for (uint32_t i = 1; i <= RECORD_SLOTS; i++) {
        struct record_key key = key_of(bench, i);
        struct record_ref ref;

        if (record_find(bench->segment, &key, &ref))
            continue;
        if (i <= 4)
            return false;
        gone++;
    }
    return gone >= 1 && gone <= may_be_gone;
}

/* All gone, then sixteen others: none may find its place lost. */
static bool every_slot_is_usable(struct bench *bench)
{
    for (uint32_t i = 0; i < RECORD_SLOTS; i++) {
        struct record_view view;

        if (record_read(bench->segment, i, &view) && !record_delete(bench->segment, &view.ref))
            return false;
    }
    for (uint32_t i = 0; i < RECORD_SLOTS; i++) {
        struct record_key key = key_of(bench, 1000 + i);
        struct record_ref ref;
        uint32_t evicted;

        if (record_claim(bench->segment, bench->other, &key, 1, &bench->origin, OTHERS_S, false, &ref, &evicted) !=
            RECORD_CREATED)
            return false;
    }
    return true;
}

/* Others, while the victim lies there: the same key, in the same place, as another record. */
static struct told make_anew(struct bench *bench)
{
    struct record_ref ref;

    for (uint32_t i = 0; i < 3; i++) {
        if (record_find(bench->segment, &bench->key, &ref))
            record_delete(bench->segment, &ref);
        claim_other(bench, 600 + i, SERVER_STRANGER, others_s(bench), &ref);
    }
    return ask(bench, SERVER_LATER);
}

/* What the woken one may still do: move or delete the very record that it saw. Nothing to any other. */
static bool right_after_waking(const struct bench *bench, const struct told *told, uint64_t later)
{
    if (later == told->server)
        return true;
    if (atomic_load(&stepping->words[SEEN]) != told->mark)
        return false;
    return (bench->operation->run == run_move && later == SERVER_VICTIM) ||
           (bench->operation->run == run_delete && later == SERVER_LAST);
}

static void neighbour_delete(struct bench *bench)
{
    struct record_key key = key_of(bench, NEIGHBOUR);
    struct record_ref ref;

    if (record_find(bench->segment, &key, &ref))
        record_delete(bench->segment, &ref);
}

static void wake(struct bench *bench, pid_t copy, enum fate fate, unsigned point)
{
    struct told told;
    uint64_t answer;

    if (fate == WOKEN_TWIN)
        neighbour_delete(bench);
    told = ask(bench, SERVER_OTHER);
    if (fate == WOKEN_LATE)
        told = make_anew(bench);
    expect(bench, ask(bench, SERVER_LATER).server == told.server, fate, point, "one server while it was stopped");
    require(copy_run_to_end(copy), "the woken one did not come to its end");
    answer = atomic_load(&stepping->words[ANSWER]);
    expect(bench, right_after_waking(bench, &told, ask(bench, SERVER_LAST).server), fate, point,
           "the same server after it woke");
    expect(bench, answer != SERVER_STRANGER, fate, point, "told a server of this key");
    expect(bench, !bench->operation->claims || answer != NOBODY, fate, point, "told a server at all");
    if (bench->operation->claims && fate != WOKEN_LATE)
        expect(bench, answer == told.server, fate, point, "one server for the victim and the others");
    process_end(bench->segment, bench->self);
}

static void murder(struct bench *bench, pid_t copy, unsigned point)
{
    uint64_t told, had = atomic_load(&stepping->words[ANSWER]);

    victim_kill(copy);
    process_end(bench->segment, bench->self);
    told = ask(bench, SERVER_OTHER).server;
    expect(bench, told == bench->operation->before || told == bench->operation->after, KILLED, point,
           "a server that somebody chose");
    expect(bench, ask(bench, SERVER_LATER).server == told, KILLED, point, "one server per key");
    expect(bench, had == NOBODY || had == told, KILLED, point, "the server that the victim had");
}

/* What happens to one copy; then all is as it was before. */
static void try_point(struct bench *bench, pid_t pid, enum fate fate, unsigned point)
{
    static struct record_bucket bucket;
    static struct process_slot process;
    uint64_t answer = atomic_load(&stepping->words[ANSWER]), seen = atomic_load(&stepping->words[SEEN]);
    pid_t copy = victim_copy(pid);

    memcpy((void *)&bucket, (void *)&bench->segment->buckets[0], sizeof bucket);
    memcpy((void *)&process, (void *)&bench->segment->processes[bench->self], sizeof process);
    if (fate == KILLED)
        murder(bench, copy, point);
    else
        wake(bench, copy, fate, point);
    expect(bench, all_whole(bench), fate, point, "whole and once");
    if (bench->operation->full)
        expect(bench, neighbours_are_there(bench, fate == WOKEN_LATE ? 6 : 3), fate, point,
               "the neighbours in their places");
    expect(bench, every_slot_is_usable(bench), fate, point, "usable again");
    memcpy((void *)&bench->segment->processes[bench->self], (void *)&process, sizeof process);
    memcpy((void *)&bench->segment->buckets[0], (void *)&bucket, sizeof bucket);
    atomic_store(&stepping->words[ANSWER], answer);
    atomic_store(&stepping->words[SEEN], seen);
    atomic_store(&stepping->done, 0);
}

#ifdef __SANITIZE_ADDRESS__ /* its checks take one way or another with the addresses of the day */
#define PER_CENT_OFF 1u
#else
#define PER_CENT_OFF 0u
#endif

static bool as_many(unsigned points, unsigned without_copies)
{
    unsigned off = points > without_copies ? points - without_copies : without_copies - points;

    return off <= without_copies * PER_CENT_OFF / 100;
}

/* The number of points that were tried. */
static unsigned run_case(struct bench *bench, enum fate fate, unsigned number, unsigned instructions)
{
    unsigned stride = bench->full ? 1 : 1 + instructions / POINTS_PER_CASE, point = 0, tried = 0;
    pid_t pid;

    bench->failures = 0;
    bench->slowest_ms = 0;
    prepare(bench);
    pid = victim_start(victim, bench);
    do {
        if (point % stride == 0) {
            try_point(bench, pid, fate, point);
            tried++;
        }
        point++;
    } while (victim_step(pid));
    victim_kill(pid);
    expect(bench, as_many(point, instructions + 1), fate, point, "as many instructions as without copies");
    printf("%s %u - %s, %s: %u of %u points, %u failures, slowest next operation %.3f ms\n",
           bench->failures == 0 ? "ok" : "not ok", number, bench->operation->name, fate_names[fate], tried, point,
           bench->failures, bench->slowest_ms);
    return tried;
}

static unsigned run_operation(struct bench *bench, unsigned first, bool *fine)
{
    unsigned instructions, points = 0;

    prepare(bench);
    instructions = victim_count(victim, bench);
    for (unsigned fate = 0; fate < FATES; fate++) {
        points += run_case(bench, (enum fate)fate, first + fate, instructions);
        *fine = *fine && bench->failures == 0;
    }
    *fine = *fine && instructions > ENOUGH;
    printf("%s %u - %s: %u instructions, %u points\n", instructions > ENOUGH ? "ok" : "not ok", first + FATES,
           bench->operation->name, instructions, points);
    return points;
}

int main(int argc, char **argv)
{
    const unsigned count = sizeof operations / sizeof *operations;
    struct bench bench = {.full = argc > 1 && strcmp(argv[1], "full") == 0};
    unsigned points = 0;
    bool fine = true;

    stepping_open();
    fixture_open(&bench.fixture);
    if (fixture_segment(&bench.fixture) < 0) {
        printf("Bail out! %s\n", bench.fixture.error.what);
        return 1;
    }
    bench.segment = bench.fixture.segment;
    bench.key = key_of(&bench, KEY);
    bench.origin = origin_of(TIMEOUT_S);
    bench.other = process_begin(bench.segment, PROCESS_WORKER, 0);
    bench.self = process_begin(bench.segment, PROCESS_WORKER, 1);
    printf("1..%u\n", count * (FATES + 1));
    for (unsigned i = 0; i < count; i++) {
        bench.operation = &operations[i];
        points += run_operation(&bench, i * (FATES + 1) + 1, &fine);
    }
    printf("# %u points in all\n", points);
    fixture_close(&bench.fixture);
    return fine ? 0 : 1;
}
