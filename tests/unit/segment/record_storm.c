/* SPDX-License-Identifier: Apache-2.0 */
/* Eight processes work on few keys as fast as they can, while their parent kills and stops them at random moments.
 *
 * Calm: claims alone. A key's first answer is its answer for ever, whoever asks.
 * Storm: moves, deletes, expiries, proofs and evictions as well, each announced before it is tried. Two looks at a key
 *   that lie between no announcement must give the same server; a proven record that nobody deletes is there at every
 *   look.
 * In both each process holds a lane of session rows, begins and ends sessions there, and reads those of the others:
 *   what is read is whole; who comes in the place of a killed one finds each session that had begun.
 * After each: no key twice, every slot can be used again.
 *
 * record_storm [SECONDS [SEED]]: 2 s unless said otherwise; the seed is printed. */
#include "fixture.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES 8u
#define BUCKETS 4u
#define KEYS 12u /* known keys in each bucket; the first PROVEN of them are never deleted */
#define PROVEN 4u
#define EXPIRING 10u /* the keys from here on have a timeout, */
#define TIMEOUT_S 50u
#define NOW_S 1000u
#define EXPIRED_S 1100u /* that is over then */
#define ROWS 8u         /* of each lane; a process's number is its lane's */
#define STRANGERS 64u   /* other keys in each bucket, which press for room */
#define BREATH 1000u    /* turns between two pauses of a process: else who kills would have to wait for the processor */
#define ENOUGH 10u      /* kills and stops that a storm must have had, */
#define LONGER_S 20.0   /* so that it goes on for as long as this */
#define EVICTION 1000u  /* announced as pending: EVICTION + bucket; a key: 1 + its number */

struct board { /* shared by all, beside the segment */
    _Atomic bool going;
    _Atomic uint64_t operations, wrong, lost, moved, deleted, expired, evicted, full;
    _Atomic uint64_t sessions, rows_read, rows_torn, rows_lost;
    _Atomic uint32_t first[BUCKETS * KEYS];        /* calm: 1 + the first answer */
    _Atomic uint64_t announced[BUCKETS * KEYS];    /* changes of this key that were tried */
    _Atomic uint64_t evictions[BUCKETS];           /* evicting claims that were tried in this bucket */
    _Atomic uint32_t pending[PROCESSES];           /* what this process has announced and not yet done */
    _Atomic uint64_t row_content[PROCESSES][ROWS]; /* of the session that begins there, written before it does */
    _Atomic bool row_begun[PROCESSES][ROWS];       /* it has begun, and its end has not */
};

struct look { /* what a process saw of a key when it last looked */
    uint64_t announced;
    int32_t server; /* -1: not worth a comparison */
};

struct storm {
    struct fixture fixture;
    struct segment *segment;
    struct board *board;
    uint64_t seed;
    pid_t pids[PROCESSES];
    uint32_t slots[PROCESSES];
    bool stopped[PROCESSES];
    unsigned kills, stops;
    double seconds; /* that it took */
};

struct worker {
    struct storm *storm;
    uint32_t number, slot;
    uint64_t random;
    struct look looks[BUCKETS * KEYS];
};

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static enum record_result claim_key(struct storm *storm, uint32_t slot, uint32_t bucket, uint32_t number,
                                    uint32_t server, bool evict, struct record_ref *ref, uint32_t *evicted)
{
    bool expiring = number < BUCKETS * KEYS && number / BUCKETS >= EXPIRING;
    struct record_origin origin = origin_of(expiring ? TIMEOUT_S : UINT32_MAX);
    struct record_key key = key_in_bucket(storm->segment, bucket, number);

    return record_claim(storm->segment, slot, &key, server, &origin, NOW_S, evict, ref, evicted);
}

/* ---- session rows ---- */

/* All that a row says is made of one number. */
static struct session_row row_of(uint64_t content)
{
    struct session_row row = {.client = endpoint_of((uint8_t)content, (uint16_t)(content >> 8)),
                              .service = content,
                              .server = (uint16_t)(content >> 16),
                              .server_port = (uint16_t)(content >> 24),
                              .source_port = (uint16_t)(content >> 32)};

    memcpy(row.local, &content, sizeof content);
    return row;
}

static bool row_is_whole(const struct session_row *row)
{
    const struct session_row like = row_of(row->service);

    return memcmp(&row->client, &like.client, sizeof like.client) == 0 && row->server == like.server &&
           row->server_port == like.server_port && row->source_port == like.source_port &&
           memcmp(row->local, like.local, sizeof like.local) == 0;
}

static void row_turn(struct worker *worker)
{
    struct board *board = worker->storm->board;
    uint32_t lane = (uint32_t)(random_next(&worker->random) % PROCESSES);
    uint32_t number = (uint32_t)(random_next(&worker->random) % ROWS), own = worker->number;
    struct session_row *row = session_partition(worker->storm->segment, lane) + number, copy;

    if (session_read(row, &copy)) {
        atomic_fetch_add_explicit(&board->rows_read, 1, memory_order_relaxed);
        if (!row_is_whole(&copy))
            atomic_fetch_add(&board->rows_torn, 1);
    }
    row = session_partition(worker->storm->segment, own) + number;
    if (session_is_live(row)) {
        atomic_store(&board->row_begun[own][number], false);
        session_end(row);
        return;
    }
    uint64_t content = random_next(&worker->random);
    copy = row_of(content);
    atomic_store(&board->row_content[own][number], content);
    session_begin(row, &copy, 1);
    atomic_store(&board->row_begun[own][number], true);
    atomic_fetch_add_explicit(&board->sessions, 1, memory_order_relaxed);
}

/* By who comes in the place of a killed one: what had begun is there, what is there is what was to begin. */
static void rows_adopt(struct storm *storm, uint32_t number)
{
    struct board *board = storm->board;

    for (uint32_t i = 0; i < ROWS; i++) {
        struct session_row copy;
        bool live = session_read(session_partition(storm->segment, number) + i, &copy);

        if (live && (!row_is_whole(&copy) || copy.service != atomic_load(&board->row_content[number][i])))
            atomic_fetch_add(&board->rows_torn, 1);
        if (!live && atomic_load(&board->row_begun[number][i]))
            atomic_fetch_add(&board->rows_lost, 1);
        atomic_store(&board->row_begun[number][i], live);
    }
}

/* ---- records ---- */

static void calm_turn(struct worker *worker)
{
    struct board *board = worker->storm->board;
    uint32_t key = (uint32_t)(random_next(&worker->random) % (BUCKETS * KEYS)), none = 0, evicted, server;
    struct record_ref ref;

    if (claim_key(worker->storm, worker->slot, key % BUCKETS, key, (uint32_t)(random_next(&worker->random) % 1000),
                  false, &ref, &evicted) == RECORD_FULL) {
        atomic_fetch_add(&board->full, 1);
        return;
    }
    server = RECORD_SERVER(ref.value) + 1;
    if (!atomic_compare_exchange_strong(&board->first[key], &none, server) && none != server)
        atomic_fetch_add(&board->wrong, 1);
}

/* Announce first what is pending, then that it is tried: who reads both in the other order misses neither. */
static void announce(struct worker *worker, uint32_t what, _Atomic uint64_t *announced)
{
    atomic_store(&worker->storm->board->pending[worker->number], what);
    atomic_fetch_add(announced, 1);
}

static void change_done(struct worker *worker)
{
    atomic_store(&worker->storm->board->pending[worker->number], 0);
}

static bool somebody_changes(const struct board *board, uint32_t key, bool proven)
{
    for (uint32_t i = 0; i < PROCESSES; i++) {
        uint32_t pending = atomic_load(&board->pending[i]);

        if (pending == key + 1 || (!proven && pending == EVICTION + key % BUCKETS))
            return true;
    }
    return false;
}

static uint64_t changes_of(const struct board *board, uint32_t key, bool proven)
{
    return atomic_load(&board->announced[key]) + (proven ? 0 : atomic_load(&board->evictions[key % BUCKETS]));
}

/* Claims a known key without evicting, and compares with the look before. */
static void look(struct worker *worker, uint32_t key, struct record_ref *ref)
{
    struct board *board = worker->storm->board;
    bool proven = key / BUCKETS < PROVEN, changing;
    struct look *last = &worker->looks[key];
    uint64_t before = changes_of(board, key, proven), after;
    enum record_result result;
    int32_t server = -1;
    uint32_t evicted;

    changing = somebody_changes(board, key, proven);
    result = claim_key(worker->storm, worker->slot, key % BUCKETS, key, (uint32_t)(random_next(&worker->random) % 1000),
                       false, ref, &evicted);
    if (result == RECORD_FULL)
        ref->index = SEGMENT_NO_INDEX;
    else
        server = (int32_t)RECORD_SERVER(ref->value);
    after = changes_of(board, key, proven);
    if (last->server >= 0 && last->announced == after && server != last->server && (server >= 0 || proven))
        atomic_fetch_add(&board->wrong, 1);
    if (proven && result != RECORD_FOUND)
        atomic_fetch_add(&board->lost, 1);
    last->announced = before;
    last->server = changing ? -1 : server;
}

static void press(struct worker *worker)
{
    struct board *board = worker->storm->board;
    uint32_t bucket = (uint32_t)(random_next(&worker->random) % BUCKETS), evicted;
    uint32_t number = 1000 + (uint32_t)(random_next(&worker->random) % STRANGERS);
    struct record_ref ref;

    announce(worker, EVICTION + bucket, &board->evictions[bucket]);
    if (claim_key(worker->storm, worker->slot, bucket, number, 1, true, &ref, &evicted) != RECORD_FULL &&
        random_next(&worker->random) % 8 != 0)
        record_delete(worker->storm->segment, &ref); /* most go again, so that the known ones find room */
    atomic_fetch_add(&board->evicted, evicted);
    change_done(worker);
}

/* As claim.c: one that has expired is deleted and made anew. */
static void expire(struct worker *worker, uint32_t key, struct record_ref *ref)
{
    struct board *board = worker->storm->board;
    uint32_t evicted;

    announce(worker, key + 1, &board->announced[key]);
    if (record_expired(worker->storm->segment, ref, EXPIRED_S) && record_delete(worker->storm->segment, ref)) {
        atomic_fetch_add(&board->expired, 1);
        claim_key(worker->storm, worker->slot, key % BUCKETS, key, (uint32_t)(random_next(&worker->random) % 1000),
                  false, ref, &evicted);
    }
    change_done(worker);
}

static void storm_turn(struct worker *worker)
{
    struct board *board = worker->storm->board;
    uint32_t key = (uint32_t)(random_next(&worker->random) % (BUCKETS * KEYS));
    uint32_t dice = (uint32_t)(random_next(&worker->random) % 64);
    bool proven = key / BUCKETS < PROVEN;
    struct record_ref ref;

    if (dice == 0) {
        press(worker);
        return;
    }
    look(worker, key, &ref);
    if (dice > 8 || ref.index == SEGMENT_NO_INDEX)
        return;
    if (dice == 8 && key / BUCKETS >= EXPIRING) {
        expire(worker, key, &ref);
        return;
    }
    if (dice >= 7) {
        record_prove(worker->storm->segment, &ref);
        return;
    }
    if (dice == 6) {
        record_touch(worker->storm->segment, &ref, NOW_S + 1 + (uint32_t)(random_next(&worker->random) % 10));
        return;
    }
    announce(worker, key + 1, &board->announced[key]);
    if (dice < 3 && !proven)
        atomic_fetch_add(&board->deleted, record_delete(worker->storm->segment, &ref));
    else
        atomic_fetch_add(&board->moved, record_move(worker->storm->segment, &ref,
                                                    (uint32_t)(random_next(&worker->random) % 1000), NOW_S));
    change_done(worker);
}

static void worker_run(struct storm *storm, uint32_t number, void (*turn)(struct worker *worker))
{
    const struct timespec breath = {.tv_nsec = 100000};
    static struct worker worker;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    worker.storm = storm;
    worker.number = number;
    worker.slot = storm->slots[number];
    worker.random = storm->seed ^ ((uint64_t)getpid() << 20 | (number + 1));
    for (uint32_t i = 0; i < BUCKETS * KEYS; i++)
        worker.looks[i].server = -1;
    rows_adopt(storm, number);
    while (atomic_load(&storm->board->going)) {
        turn(&worker);
        if (random_next(&worker.random) % 4 == 0)
            row_turn(&worker);
        if (random_next(&worker.random) % BREATH == 0)
            nanosleep(&breath, NULL);
        atomic_fetch_add_explicit(&storm->board->operations, 1, memory_order_relaxed);
    }
    _exit(0);
}

static void worker_start(struct storm *storm, uint32_t number, void (*turn)(struct worker *worker))
{
    storm->slots[number] = process_begin(storm->segment, PROCESS_WORKER, number);
    storm->pids[number] = fork();
    if (storm->pids[number] == 0)
        worker_run(storm, number, turn);
    if (storm->pids[number] < 0) {
        printf("Bail out! fork: %s\n", strerror(errno));
        exit(1);
    }
}

static void worker_kill(struct storm *storm, uint32_t number)
{
    kill(storm->pids[number], SIGKILL);
    waitpid(storm->pids[number], NULL, 0);
    storm->stopped[number] = false;
    process_end(storm->segment, storm->slots[number]);
    atomic_store(&storm->board->pending[number], 0); /* what it had announced will never be done */
    storm->kills++;
}

static void worker_stop_or_go(struct storm *storm, uint32_t number)
{
    kill(storm->pids[number], storm->stopped[number] ? SIGCONT : SIGSTOP);
    storm->stops += !storm->stopped[number];
    storm->stopped[number] = !storm->stopped[number];
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* What a report must be able to say. A busy machine takes longer for it. */
static bool raged(const struct storm *storm)
{
    return storm->kills > ENOUGH && storm->stops > ENOUGH;
}

static void rage(struct storm *storm, double seconds, void (*turn)(struct worker *worker))
{
    uint64_t random = storm->seed;
    double begun = now_s(), end = begun + seconds;

    atomic_store(&storm->board->going, true);
    for (uint32_t i = 0; i < PROCESSES; i++)
        worker_start(storm, i, turn);
    while (now_s() < end || (!raged(storm) && now_s() < end + LONGER_S)) {
        struct timespec pause = {.tv_nsec = (long)(random_next(&random) % 600000)};
        uint32_t number = (uint32_t)(random_next(&random) % PROCESSES);

        nanosleep(&pause, NULL);
        if (random_next(&random) % 2 == 0) {
            worker_stop_or_go(storm, number);
        } else {
            worker_kill(storm, number);
            worker_start(storm, number, turn);
        }
    }
    storm->seconds = now_s() - begun;
    atomic_store(&storm->board->going, false);
    for (uint32_t i = 0; i < PROCESSES; i++) {
        kill(storm->pids[i], SIGCONT);
        waitpid(storm->pids[i], NULL, 0);
        storm->stopped[i] = false;
        process_end(storm->segment, storm->slots[i]);
    }
}

static uint32_t duplicates(const struct storm *storm)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < BUCKETS; i++)
        count += bucket_duplicates(storm->segment, i);
    return count;
}

/* Deletes all, then fills every slot of every bucket. */
static uint32_t slots_lost(struct storm *storm)
{
    uint32_t slot = process_begin(storm->segment, PROCESS_WORKER, 0), lost = 0, evicted;
    struct record_view view;
    struct record_ref ref;

    for (uint32_t i = 0; i < BUCKETS * RECORD_SLOTS; i++) {
        if (record_read(storm->segment, i, &view))
            record_delete(storm->segment, &view.ref);
    }
    for (uint32_t i = 0; i < BUCKETS * RECORD_SLOTS; i++)
        lost += claim_key(storm, slot, i % BUCKETS, 5000 + i, 1, false, &ref, &evicted) != RECORD_CREATED;
    for (uint32_t i = 0; i < BUCKETS * RECORD_SLOTS; i++) {
        if (record_read(storm->segment, i, &view))
            record_delete(storm->segment, &view.ref);
    }
    process_end(storm->segment, slot);
    return lost;
}

static void proven_make(struct storm *storm)
{
    uint32_t slot = process_begin(storm->segment, PROCESS_WORKER, 0), evicted;

    for (uint32_t key = 0; key < BUCKETS * PROVEN; key++) {
        struct record_ref ref = {0};

        claim_key(storm, slot, key % BUCKETS, key, 7, false, &ref, &evicted);
        record_prove(storm->segment, &ref);
    }
    process_end(storm->segment, slot);
}

static bool verdict(unsigned number, bool fine, const char *claim)
{
    printf("%s %u - %s\n", fine ? "ok" : "not ok", number, claim);
    fflush(stdout);
    return fine;
}

static bool report(struct storm *storm, unsigned number, const char *name, bool busy)
{
    const struct board *board = storm->board;
    uint32_t twice = duplicates(storm), lost = slots_lost(storm);
    bool fine;

    printf("# %s: %llu operations, %u kills, %u stops, %llu moved, %llu deleted, %llu expired, %llu evicted, %llu "
           "times no "
           "room\n",
           name, (unsigned long long)board->operations, storm->kills, storm->stops, (unsigned long long)board->moved,
           (unsigned long long)board->deleted, (unsigned long long)board->expired, (unsigned long long)board->evicted,
           (unsigned long long)board->full);
    printf("# %s: a kill, a stop or a waking every %.1f ms\n", name,
           storm->seconds * 1e3 / (storm->kills + 2 * storm->stops + 1));
    printf("# %s: %llu wrong answers, %llu proven records lost, %u keys twice, %u slots lost\n", name,
           (unsigned long long)board->wrong, (unsigned long long)board->lost, twice, lost);
    printf("# %s: %llu sessions begun, %llu rows read: %llu torn, %llu sessions lost\n", name,
           (unsigned long long)board->sessions, (unsigned long long)board->rows_read,
           (unsigned long long)board->rows_torn, (unsigned long long)board->rows_lost);
    fine = verdict(number, board->wrong == 0, "a key's server changes by a counted move, end or eviction alone");
    fine = verdict(number + 1, board->lost == 0, "a proven record is never lost") && fine;
    fine = verdict(number + 2, twice == 0, "no key is there twice") && fine;
    fine = verdict(number + 3, lost == 0, "every slot can be used again") && fine;
    fine = verdict(number + 4, board->rows_torn == 0, "every session row that was read was whole") && fine;
    fine = verdict(number + 5, board->rows_lost == 0, "no session is lost") && fine;
    return verdict(number + 6, raged(storm) && busy && board->rows_read > 1000, "the test did what it is for") && fine;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 2;
    struct storm storm = {.seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) * 2654435761u};
    bool fine;

    fixture_open(&storm.fixture);
    storm.fixture.shape = (struct segment_shape){.records = 1, .sessions = PROCESSES * ROWS, .lanes = PROCESSES};
    if (fixture_segment(&storm.fixture) < 0) {
        printf("Bail out! %s\n", storm.fixture.error.what);
        return 1;
    }
    storm.segment = storm.fixture.segment;
    storm.board = mmap(NULL, sizeof *storm.board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    printf("1..14\n# seed %llu\n", (unsigned long long)storm.seed);
    fflush(stdout);
    rage(&storm, seconds / 3, calm_turn);
    fine = report(&storm, 1, "calm", storm.board->operations > 1000 && storm.board->full == 0);
    memset((void *)storm.board, 0, sizeof *storm.board);
    memset((void *)storm.segment->rows, 0, PROCESSES * ROWS * sizeof *storm.segment->rows);
    storm.kills = storm.stops = 0;
    proven_make(&storm);
    rage(&storm, seconds * 2 / 3, storm_turn);
    fine = report(&storm, 8, "storm",
                  storm.board->moved > 0 && storm.board->deleted > 0 && storm.board->expired > 0 &&
                      storm.board->evicted > 0) &&
           fine;
    fixture_close(&storm.fixture);
    return fine ? 0 : 1;
}
