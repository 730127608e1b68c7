/* SPDX-License-Identifier: Apache-2.0 */
/* Every instruction of every change to a record, of the object code that is shipped. A victim is single-stepped; at
 * each instruction copies of it are made (a signal handler clones it there), and a copy is
 * - killed, its generation raised, or
 * - stopped; others go on, and it wakes up later, or
 * - stopped; others delete and make the record again meanwhile, and it wakes up later, or
 * - stopped; a neighbour goes and the record comes in its place, so that the same slots are occupied as before.
 *
 * Then: a record is absent or whole, one server per key, no key twice, nobody waited, every slot can be used again. The
 * bucket is put back as it was, and the victim goes on to its next instruction.
 *
 * Stepper and victim share one core. In a build so slow that all points would take too long, every k-th is taken. */
#include "fixture.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    KEY = 500,
    NEIGHBOUR = 5,
    SERVER_OLD = 5,
    SERVER_VICTIM = 11,
    SERVER_OTHER = 22,
    SERVER_LATER = 33,
    SERVER_LAST = 44,
    SERVER_STRANGER = 77
};
#ifdef __SANITIZE_ADDRESS__
#define POINTS_PER_CASE 800u
#else
#define POINTS_PER_CASE 1600u
#endif

enum fate { KILLED, WOKEN, WOKEN_LATE, WOKEN_TWIN, FATES };
static const char *const fate_names[] = {"killed", "stopped and woken", "stopped while the record was made anew",
                                         "stopped while the record took a neighbour's place"};

struct bench {
    struct fixture fixture;
    struct segment *segment;
    uint32_t self, other; /* process slots of the victim and of the stepper */
    unsigned failures;
    double slowest_ms;
};

static struct shared {      /* with the victim and its copies; static because a signal handler needs it */
    _Atomic int32_t answer; /* the server that the victim was told */
    _Atomic int32_t copy;   /* pid of the newest copy */
    _Atomic int32_t done;   /* the operation has ended */
} * shared;

struct operation {
    const char *name;
    bool known, full; /* the key is there before; the bucket is full of unproven ones and four proven ones */
    void (*run)(struct bench *bench, struct record_ref *ref);
    int32_t before, after; /* servers of the key that may be found when the victim was killed */
};

static struct record_key key_of(const struct bench *bench, uint32_t number)
{
    return key_in_bucket(bench->segment, 0, number);
}

static enum record_result claim_as(struct bench *bench, uint32_t self, uint32_t number, uint32_t server, uint32_t now_s,
                                   struct record_ref *ref)
{
    struct record_origin origin = origin_of(180);
    struct record_key key = key_of(bench, number);
    uint32_t evicted;

    return record_claim(bench->segment, self, &key, server, &origin, now_s, true, ref, &evicted);
}

static void run_claim(struct bench *bench, struct record_ref *ref)
{
    if (claim_as(bench, bench->self, KEY, SERVER_VICTIM, 1100, ref) != RECORD_FULL)
        atomic_store(&shared->answer, (int32_t)RECORD_SERVER(ref->value));
}

static void run_move(struct bench *bench, struct record_ref *ref)
{
    record_move(bench->segment, ref, SERVER_VICTIM, 1100);
}

static void run_touch(struct bench *bench, struct record_ref *ref)
{
    record_touch(bench->segment, ref, 1100);
}

static void run_prove(struct bench *bench, struct record_ref *ref)
{
    record_prove(bench->segment, ref);
}

static void run_delete(struct bench *bench, struct record_ref *ref)
{
    record_delete(bench->segment, ref);
}

static const struct operation operations[] = {
    {"claim of a new key", false, false, run_claim, SERVER_OTHER, SERVER_VICTIM},
    {"claim of a known key", true, false, run_claim, SERVER_OLD, SERVER_OLD},
    {"move", true, false, run_move, SERVER_OLD, SERVER_VICTIM},
    {"touch", true, false, run_touch, SERVER_OLD, SERVER_OLD},
    {"prove", true, false, run_prove, SERVER_OLD, SERVER_OLD},
    {"delete", true, false, run_delete, SERVER_OLD, SERVER_OTHER},
    {"claim that evicts", false, true, run_claim, SERVER_OTHER, SERVER_VICTIM},
};

static void expect(struct bench *bench, bool fine, const struct operation *operation, enum fate fate, unsigned point,
                   const char *claim)
{
    if (fine)
        return;
    if (bench->failures++ < 20)
        printf("# %s, %s at instruction %u: not %s\n", operation->name, fate_names[fate], point, claim);
}

/* The bucket as it is before the operation. */
static void prepare(struct bench *bench, const struct operation *operation)
{
    struct record_ref ref;

    memset((void *)&bench->segment->buckets[0], 0, sizeof bench->segment->buckets[0]);
    if (!operation->full)
        claim_as(bench, bench->other, NEIGHBOUR, SERVER_OLD, 1000, &ref);
    if (operation->known)
        claim_as(bench, bench->other, KEY, SERVER_OLD, 1000, &ref);
    for (uint32_t i = 1; operation->full && i <= RECORD_SLOTS; i++) {
        claim_as(bench, bench->other, i, SERVER_OLD, 1000 + i, &ref);
        if (i <= 4)
            record_prove(bench->segment, &ref);
    }
    atomic_store(&shared->answer, -1);
    atomic_store(&shared->done, 0);
}

/* Delivered to the victim between two of its instructions: a copy of it, the stepper's child, lies stopped here. When
 * it is woken, it returns to the very next instruction and runs on to the end. */
static void copy_here(int signal)
{
    long copy = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0L, 0L, 0L, 0L);

    (void)signal;
    if (copy != 0)
        atomic_store(&shared->copy, (int32_t)copy);
    else
        syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
    syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
}

static void victim(struct bench *bench, const struct operation *operation)
{
    struct sigaction action = {.sa_handler = copy_here};
    struct record_key key = key_of(bench, KEY);
    struct record_ref ref = {0};

    sigaction(SIGUSR2, &action, NULL);
    record_find(bench->segment, &key, &ref);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
    operation->run(bench, &ref);
    atomic_store(&shared->done, 1);
    _exit(0);
}

/* Lets the victim run on as asked (with a signal) until it stops; the signal that stopped it, -1: it has ended. */
static int proceed(pid_t pid, enum __ptrace_request request, int signal)
{
    int status;

    if (ptrace(request, pid, NULL, (void *)(intptr_t)signal) < 0 || waitpid(pid, &status, 0) != pid ||
        !WIFSTOPPED(status))
        return -1;
    return WSTOPSIG(status);
}

/* One instruction. false: the operation is at its end. */
static bool step(pid_t pid)
{
    return proceed(pid, PTRACE_SINGLESTEP, 0) == SIGTRAP && atomic_load(&shared->done) == 0;
}

static void require(bool fine, const char *what)
{
    if (fine)
        return;
    printf("Bail out! %s: %s\n", what, strerror(errno));
    exit(1);
}

/* A stopped copy of the victim as it is now. The victim itself comes back from its handler (two stops: into the system
 * call sigreturn and out of it) to where it was.  */
static pid_t copy_make(pid_t pid)
{
    pid_t copy;
    int status;

    require(proceed(pid, PTRACE_CONT, SIGUSR2) == SIGSTOP, "the victim did not stop in its handler");
    copy = atomic_load(&shared->copy);
    require(waitpid(copy, &status, WUNTRACED) == copy && WIFSTOPPED(status), "no copy of the victim");
    require(proceed(pid, PTRACE_SYSCALL, 0) == SIGTRAP && proceed(pid, PTRACE_SYSCALL, 0) == SIGTRAP,
            "the victim did not come back from its handler");
    return copy;
}

static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* The server that another process is told for the key; -1: no room. */
static int32_t ask(struct bench *bench, uint32_t server)
{
    struct record_ref ref;
    double start = now_ms(), taken;
    enum record_result result = claim_as(bench, bench->other, KEY, server, 1150, &ref);

    taken = now_ms() - start;
    if (taken > bench->slowest_ms)
        bench->slowest_ms = taken;
    return result == RECORD_FULL ? -1 : (int32_t)RECORD_SERVER(ref.value);
}

static bool all_whole(const struct bench *bench)
{
    for (uint32_t i = 0; i < RECORD_SLOTS; i++) {
        const struct hp_endpoint client = endpoint_of(7, 0);
        struct record_view view;

        if (!record_read(bench->segment, i, &view))
            continue;
        if (view.timeout_s != 180 || view.profile != 0x55667788 || memcmp(&view.client, &client, sizeof client) != 0 ||
            view.created_s < 1000 || view.created_s > 1150 || RECORD_LAST_USE(view.ref.value) < 1000 ||
            RECORD_LAST_USE(view.ref.value) > 1150 || RECORD_GENERATION(view.ref.value) == 0)
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
        struct record_origin origin = origin_of(180);
        struct record_key key = key_of(bench, 1000 + i);
        struct record_ref ref;
        uint32_t evicted;

        if (record_claim(bench->segment, bench->other, &key, 1, &origin, 1150, false, &ref, &evicted) != RECORD_CREATED)
            return false;
    }
    return true;
}

/* Others, while the victim lies there: the same key, in the same place, as another record. */
static int32_t make_anew(struct bench *bench)
{
    struct record_key key = key_of(bench, KEY);
    struct record_ref ref;

    for (uint32_t i = 0; i < 3; i++) {
        if (record_find(bench->segment, &key, &ref))
            record_delete(bench->segment, &ref);
        claim_as(bench, bench->other, 600 + i, SERVER_STRANGER, 1150, &ref);
    }
    return ask(bench, SERVER_LATER);
}

/* What the woken one may still do: move or delete the very record that it saw. Nothing to any other. */
static bool right_after_waking(const struct operation *operation, int32_t told, int32_t later)
{
    if (later == told)
        return true;
    if (told != SERVER_OLD)
        return false;
    return (operation->run == run_move && later == SERVER_VICTIM) ||
           (operation->run == run_delete && later == SERVER_LAST);
}

static void neighbour_delete(struct bench *bench)
{
    struct record_key key = key_of(bench, NEIGHBOUR);
    struct record_ref ref;

    if (record_find(bench->segment, &key, &ref))
        record_delete(bench->segment, &ref);
}

static void wake(struct bench *bench, pid_t copy, const struct operation *operation, enum fate fate, unsigned point)
{
    int32_t told;
    int status;

    if (fate == WOKEN_TWIN)
        neighbour_delete(bench);
    told = ask(bench, SERVER_OTHER);
    if (fate == WOKEN_LATE)
        told = make_anew(bench);
    expect(bench, ask(bench, SERVER_LATER) == told, operation, fate, point, "one server while it was stopped");
    kill(copy, SIGCONT);
    require(waitpid(copy, &status, 0) == copy && WIFEXITED(status) && WEXITSTATUS(status) == 0,
            "the woken one did not come to its end");
    expect(bench, right_after_waking(operation, told, ask(bench, SERVER_LAST)), operation, fate, point,
           "the same server after it woke");
    expect(bench, atomic_load(&shared->answer) != SERVER_STRANGER, operation, fate, point, "told a server of this key");
    if (operation->run == run_claim && fate != WOKEN_LATE)
        expect(bench, atomic_load(&shared->answer) == told, operation, fate, point,
               "one server for the victim and the others");
    process_end(bench->segment, bench->self);
}

static void murder(struct bench *bench, pid_t copy, const struct operation *operation, unsigned point)
{
    int32_t told, had = atomic_load(&shared->answer);
    int status;

    kill(copy, SIGKILL);
    require(waitpid(copy, &status, 0) == copy && WIFSIGNALED(status), "the copy lives on");
    process_end(bench->segment, bench->self);
    told = ask(bench, SERVER_OTHER);
    expect(bench, told == operation->before || told == operation->after, operation, KILLED, point,
           "a server that somebody chose");
    expect(bench, ask(bench, SERVER_LATER) == told, operation, KILLED, point, "one server per key");
    expect(bench, had < 0 || had == told, operation, KILLED, point, "the server that the victim had");
}

/* What happens to one copy; then all is as it was before. */
static void try_point(struct bench *bench, pid_t pid, const struct operation *operation, enum fate fate, unsigned point)
{
    static struct record_bucket bucket;
    static struct process_slot process;
    int32_t answer = atomic_load(&shared->answer);
    pid_t copy = copy_make(pid);

    memcpy((void *)&bucket, (void *)&bench->segment->buckets[0], sizeof bucket);
    memcpy((void *)&process, (void *)&bench->segment->processes[bench->self], sizeof process);
    if (fate == KILLED)
        murder(bench, copy, operation, point);
    else
        wake(bench, copy, operation, fate, point);
    expect(bench, all_whole(bench), operation, fate, point, "whole and once");
    if (operation->full)
        expect(bench, neighbours_are_there(bench, fate == WOKEN_LATE ? 6 : 3), operation, fate, point,
               "the neighbours in their places");
    expect(bench, every_slot_is_usable(bench), operation, fate, point, "usable again");
    memcpy((void *)&bench->segment->processes[bench->self], (void *)&process, sizeof process);
    memcpy((void *)&bench->segment->buckets[0], (void *)&bucket, sizeof bucket);
    atomic_store(&shared->answer, answer);
    atomic_store(&shared->done, 0);
}

static pid_t victim_start(struct bench *bench, const struct operation *operation)
{
    int status;
    pid_t pid;

    prepare(bench, operation);
    pid = fork();
    if (pid == 0)
        victim(bench, operation);
    require(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "cannot trace a victim");
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_EXITKILL);
    return pid;
}

static void victim_finish(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static unsigned count_points(struct bench *bench, const struct operation *operation)
{
    pid_t pid = victim_start(bench, operation);
    unsigned points = 0;

    while (step(pid))
        points++;
    victim_finish(pid);
    return points;
}

static bool run_case(struct bench *bench, const struct operation *operation, enum fate fate, unsigned number)
{
    unsigned points = count_points(bench, operation), stride = 1 + points / POINTS_PER_CASE, point = 0, tried = 0;
    pid_t pid = victim_start(bench, operation);

    bench->failures = 0;
    bench->slowest_ms = 0;
    do {
        if (point % stride == 0) {
            try_point(bench, pid, operation, fate, point);
            tried++;
        }
        point++;
    } while (step(pid));
    victim_finish(pid);
    expect(bench, point == points + 1, operation, fate, point, "as many instructions as without copies");
    printf("%s %u - %s, %s: %u of %u points, %u failures, slowest next operation %.3f ms\n",
           bench->failures == 0 ? "ok" : "not ok", number, operation->name, fate_names[fate], tried, point,
           bench->failures, bench->slowest_ms);
    fflush(stdout);
    return bench->failures == 0;
}

static void pin_to_one_core(void)
{
    cpu_set_t all, one;

    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all, &all) < 0)
        return;
    for (unsigned i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &all))
            continue;
        CPU_SET(i, &one);
        sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

int main(void)
{
    const unsigned count = sizeof operations / sizeof *operations;
    struct bench bench = {.failures = 0};
    bool fine = true;

    pin_to_one_core();
    fixture_open(&bench.fixture);
    if (fixture_segment(&bench.fixture) < 0) {
        printf("Bail out! %s\n", bench.fixture.error.what);
        return 1;
    }
    bench.segment = bench.fixture.segment;
    bench.other = process_begin(bench.segment, PROCESS_WORKER, 0);
    bench.self = process_begin(bench.segment, PROCESS_WORKER, 1);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(shared != MAP_FAILED, "mmap");
    printf("1..%u\n", count * FATES);
    fflush(stdout);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned fate = 0; fate < FATES; fate++)
            fine = run_case(&bench, &operations[i], (enum fate)fate, i * FATES + fate + 1) && fine;
    }
    fixture_close(&bench.fixture);
    return fine ? 0 : 1;
}
