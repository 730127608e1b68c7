/* SPDX-License-Identifier: Apache-2.0 */
/* Every instruction of a session row's life, of the object code that is shipped: its begin and its end with socket,
 * cell and index around them (path.c), the adoption of a dead holder's lane (lane.c), and a reader's copy (session.c).
 * A victim is single-stepped (stepping.h), and at each instruction
 * - begin, end, adoption: a copy of it is killed, and a fresh process adopts the lane;
 * - begin, end, adoption: it is stopped, another process reads all rows, it wakes up, and when it is through it dies
 *   and a fresh process adopts the lane;
 * - a read: a copy is stopped, the row ends, or ends and another session begins in it, and the copy reads on.
 *
 * Then: a row is absent or whole, its flow, server and cell are those of the session that began there; no flow and no
 * cell has two live rows; who adopts has the very sessions that were live, at the same cells; every row can be used
 * again; no reader waits, none sees half of one session and half of another.
 *
 * A copy that wakes up shares the victim's socket and epoll instance: what it has bound and watched already is no
 * error for the next one (the wrapped calls at the end); all else is the product's code and the kernel.
 * session_steps: every k-th instruction, within seconds. session_steps full: all of them. */
#include "../segment/stepping.h"
#include "relay/private.h"
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    ROWS = 8,
    OLD = 4,         /* sessions 0..3 are there before, */
    GONE = 1,        /* but this one has ended again */
    TARGET = 2,      /* the one that ends */
    NEW = 5,         /* the one that begins */
    FILLER = 10,     /* and on: those that fill the lane at the end */
    NUMBERS = 20,    /* sessions of a lane that anything is known of */
    REMOVED_ROW = 6, /* a row of a service that is configured no more */
    TWIN_ROW = 7,    /* a second live row of session 0's flow */
    ENOUGH = 100     /* an operation of no more instructions would prove little */
};
#ifdef __SANITIZE_ADDRESS__
#define POINTS_PER_CASE 30u
#else
#define POINTS_PER_CASE 110u
#endif
#define REMOVED_SERVICE 0x1234567u
#define LIMIT_MS 1000.0 /* no reading of eight rows takes so long, on the busiest machine */

enum { SELF, RESULT }; /* in stepping->words: the process slot of the newest child; what a reader has read */
#define TORN UINT64_MAX

enum fate { KILLED, STOPPED, ENDED, RENEWED };
static const char *const fate_names[] = {"killed and succeeded", "stopped, looked at and woken",
                                         "stopped while the row ended", "stopped while another session took the row"};

struct operation;
struct bench {
    struct world world;
    const struct operation *operation;
    bool full;
    uint16_t ports[NUMBERS]; /* the cell that each session was seen with; 0: not yet */
    unsigned failures;
    double slowest_ms;
    enum fate fate;
    unsigned point;
};

struct operation {
    const char *name;
    void (*body)(void *bench);
    void (*prepare)(struct bench *bench); /* NULL: an empty lane */
    enum fate fates[2];
    uint32_t may;   /* sessions (bits) that may be live or not when it was killed, besides those that must be live */
    uint32_t after; /* of these, who is live when it is through */
};
#define MUST (((1u << OLD) - 1) & ~(1u << GONE)) /* live at all times */

static void expect(struct bench *bench, bool fine, const char *claim)
{
    if (fine)
        return;
    if (bench->failures++ < 20)
        printf("# %s, %s at instruction %u: not %s\n", bench->operation->name, fate_names[bench->fate], bench->point,
               claim);
}

/* ---- sessions ---- */

static struct hp_endpoint client_of(const struct bench *bench, uint32_t number)
{
    return world_address(&bench->world, (uint8_t)(100 + number), (uint16_t)(5000 + number));
}

static uint64_t service_identity(const struct bench *bench)
{
    return bench->world.segment->services[0].identity;
}

static struct path *begin(struct bench *bench, struct lane *lane, uint32_t number)
{
    struct hp_endpoint client = client_of(bench, number), local = world_address(&bench->world, 1, bench->world.port);
    const struct flow flow = {.listener = lane->listeners, .client = &client, .local = &local};
    const struct decision decision = {.server = (int32_t)world_server_slot(&bench->world, 0),
                                      .reason = DECISION_NO_RECORD,
                                      .record = SEGMENT_NO_INDEX};

    return path_begin(&flow, &decision, false);
}

/* Whose session it is; NUMBERS: nobody's. All that never changes while a row is live must be that session's. */
static uint32_t number_of(const struct bench *bench, const struct session_row *row)
{
    struct hp_endpoint local = world_address(&bench->world, 1, 0);
    uint32_t number = (uint32_t)(row->client.address[3] - 100);

    if (number >= NUMBERS)
        return NUMBERS;
    struct hp_endpoint client = client_of(bench, number);
    bool whole = memcmp(&row->client, &client, sizeof client) == 0 &&
                 memcmp(row->local, local.address, sizeof row->local) == 0 && row->service == service_identity(bench) &&
                 row->server == world_server_slot(&bench->world, 0) && row->server_port == bench->world.port &&
                 row->source_port >= bench->world.port_first &&
                 row->source_port < bench->world.port_first + bench->world.plan.ports &&
                 atomic_load(&row->begun_ms) != 0;
    return whole ? number : NUMBERS;
}

static bool left_behind(uint32_t position, const struct session_row *row)
{
    return (position == REMOVED_ROW && row->service == REMOVED_SERVICE) || position == TWIN_ROW;
}

/* Reads all rows as a foreign process does; the sessions that are live. leftovers: rows that adoption ends may be there
 * still. */
static uint32_t read_all(struct bench *bench, bool leftovers)
{
    struct session_row row, seen[ROWS];
    double start = stepping_ms(), taken;
    uint32_t live = 0, count = 0;

    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t number;
        if (!session_read(&bench->world.segment->rows[i], &row))
            continue;
        number = number_of(bench, &row);
        if (leftovers && left_behind(i, &row))
            continue;
        expect(bench, number < NUMBERS, "a whole row");
        if (number >= NUMBERS)
            continue;
        expect(bench, (live & 1u << number) == 0, "one live row of a flow");
        expect(bench, bench->ports[number] == 0 || bench->ports[number] == row.source_port, "the cell that it had");
        for (uint32_t j = 0; j < count; j++)
            expect(bench, seen[j].source_port != row.source_port, "a cell of one session alone");
        memcpy((void *)&seen[count++], (void *)&row, sizeof row);
        live |= 1u << number;
    }
    taken = stepping_ms() - start;
    if (taken > bench->slowest_ms)
        bench->slowest_ms = taken;
    expect(bench, taken < LIMIT_MS, "a reader that never waits");
    return live;
}

static void expect_live(struct bench *bench, uint32_t live, uint32_t must, uint32_t may)
{
    expect(bench, (live & must) == must, "every session that had begun");
    expect(bench, (live & ~(must | may)) == 0, "free of sessions that nobody began");
}

static void ports_learn(struct bench *bench)
{
    memset(bench->ports, 0, sizeof bench->ports);
    for (uint32_t i = 0; i < ROWS; i++) {
        const struct session_row *row = &bench->world.segment->rows[i];
        uint32_t number = number_of(bench, row);
        if (session_is_live(row) && number < NUMBERS && i != TWIN_ROW)
            bench->ports[number] = row->source_port;
    }
}

/* ---- processes ---- */

/* In a child: a worker on a loop of its own, whose slot the parent knows. */
static struct worker *worker_make(struct bench *bench, uint32_t number)
{
    struct worker *worker;

    require(uv_loop_init(&bench->world.loop) == 0, "uv_loop_init");
    worker = world_worker(&bench->world, number);
    atomic_store(&stepping->words[SELF], worker->self);
    return worker;
}

static struct lane *holder_make(struct bench *bench)
{
    struct worker *worker = worker_make(bench, 0);
    struct lane *lane;

    worker_take(&bench->world, worker, 0, -1);
    lane = worker->relay->lanes;
    for (uint32_t number = 0; number < OLD; number++)
        require(begin(bench, lane, number) != NULL, "a session does not begin");
    path_end(lane->paths[GONE], "idle");
    return lane;
}

static void process_reap(struct bench *bench)
{
    process_end(bench->world.segment, (uint32_t)atomic_load(&stepping->words[SELF]));
}

/* Runs in a child of its own, which must end well; then it is dead to the segment. */
static void in_child(struct bench *bench, void (*body)(struct bench *bench))
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        bench->failures = 0;
        body(bench);
        _exit(bench->failures > 0);
    }
    require(child > 0 && waitpid(child, &status, 0) == child, "fork");
    expect(bench, WIFEXITED(status) && WEXITSTATUS(status) == 0, "well with the successor");
    process_reap(bench);
}

/* Has the very sessions that were live, and room for as many as there are rows. */
static void successor(struct bench *bench)
{
    uint32_t before = read_all(bench, true), after, number = FILLER, count = 0;
    struct worker *worker = worker_make(bench, 1);
    struct lane *lane;

    worker_take(&bench->world, worker, 0, -1);
    lane = worker->relay->lanes;
    after = read_all(bench, false);
    expect(bench, after == before, "all that was live, and nothing else");
    for (uint32_t i = 0; i < ROWS; i++)
        expect(bench, (lane->paths[i] != NULL) == session_is_live(&lane->rows[i]), "a path for each live row");
    ports_learn(bench);
    while (number < NUMBERS && begin(bench, lane, number) != NULL)
        number++;
    for (after = read_all(bench, false); after != 0; after &= after - 1)
        count++;
    expect(bench, count == ROWS, "every row usable again");
    while (lane_reopen(lane, ROWS))
        ;
    for (uint32_t i = 0; i < ROWS; i++)
        expect(bench, lane->paths[i]->watched.fd >= 0, "a socket for every session");
}

/* ---- the operations ---- */

static void body_begin(void *arg)
{
    struct bench *bench = arg;
    struct lane *lane = holder_make(bench);

    stepping_here();
    begin(bench, lane, NEW);
}

static void body_end(void *arg)
{
    struct bench *bench = arg;
    struct lane *lane = holder_make(bench);

    stepping_here();
    path_end(lane->paths[TARGET], "idle");
}

static void body_adopt(void *arg)
{
    struct bench *bench = arg;
    struct worker *worker = worker_make(bench, 2);

    stepping_here();
    worker_take(&bench->world, worker, 0, -1);
}

static void body_read(void *arg)
{
    struct bench *bench = arg;
    const struct session_row *row = &bench->world.segment->rows[0];
    struct session_row copy;
    bool live;

    (void)session_read(row, &copy); /* what the linker binds late is bound */
    stepping_here();
    live = session_read(row, &copy);
    stepping_over();
    atomic_store(&stepping->words[RESULT], 0);
    if (live && number_of(bench, &copy) >= NUMBERS)
        atomic_store(&stepping->words[RESULT], TORN);
    else if (live)
        atomic_store(&stepping->words[RESULT], copy.source_port == bench->world.port_first + number_of(bench, &copy)
                                                   ? number_of(bench, &copy) + 1
                                                   : TORN);
}

static void dead_holder(struct bench *bench)
{
    (void)holder_make(bench);
}

/* What a dead holder has left, and two rows that no successor may serve. */
static void prepare_adopt(struct bench *bench)
{
    struct session_row *rows = bench->world.segment->rows, content;

    in_child(bench, dead_holder);
    memcpy((void *)&content, (void *)&rows[0], sizeof content);
    content.source_port++;
    content.service = REMOVED_SERVICE;
    session_begin(&rows[REMOVED_ROW], &content, 1);
    content.service = rows[0].service;
    session_begin(&rows[TWIN_ROW], &content, 1);
}

/* Session 0 and its like: each word tells whose it is. */
static void write_row(struct bench *bench, uint32_t number)
{
    struct session_row content = {.client = client_of(bench, number),
                                  .service = service_identity(bench),
                                  .server = (uint16_t)world_server_slot(&bench->world, 0),
                                  .server_port = bench->world.port,
                                  .source_port = (uint16_t)(bench->world.port_first + number)};
    struct hp_endpoint local = world_address(&bench->world, 1, 0);

    memcpy(content.local, local.address, sizeof content.local);
    session_begin(&bench->world.segment->rows[0], &content, 1);
}

static void prepare_read(struct bench *bench)
{
    write_row(bench, 0);
}

static const struct operation operations[] = {
    {"begin", body_begin, NULL, {KILLED, STOPPED}, 1u << NEW, 1u << NEW},
    {"end", body_end, NULL, {KILLED, STOPPED}, 1u << TARGET, 0},
    {"adoption", body_adopt, prepare_adopt, {KILLED, STOPPED}, 0, 0},
    {"read", body_read, prepare_read, {ENDED, RENEWED}, 0, 0},
};

/* ---- what becomes of the victim ---- */

struct snapshot {
    struct session_row rows[ROWS];
    struct lane_slot lane;
    struct process_slot process;
    uint64_t words[4];
};

static void snapshot_take(struct bench *bench, struct snapshot *out)
{
    struct segment *segment = bench->world.segment;

    for (uint32_t i = 0; i < 4; i++)
        out->words[i] = atomic_load(&stepping->words[i]);
    memcpy((void *)out->rows, (void *)segment->rows, sizeof out->rows);
    memcpy((void *)&out->lane, (void *)&segment->lanes[0], sizeof out->lane);
    memcpy((void *)&out->process, (void *)&segment->processes[out->words[SELF]], sizeof out->process);
}

static void snapshot_restore(struct bench *bench, const struct snapshot *from)
{
    struct segment *segment = bench->world.segment;

    for (uint32_t i = 0; i < 4; i++)
        atomic_store(&stepping->words[i], from->words[i]);
    memcpy((void *)segment->rows, (const void *)from->rows, sizeof from->rows);
    memcpy((void *)&segment->lanes[0], (const void *)&from->lane, sizeof from->lane);
    memcpy((void *)&segment->processes[from->words[SELF]], (const void *)&from->process, sizeof from->process);
    atomic_store(&stepping->done, 0);
}

static uint32_t must_live(const struct bench *bench)
{
    return MUST & ~bench->operation->may;
}

static void murder(struct bench *bench, pid_t copy)
{
    victim_kill(copy);
    process_reap(bench);
    expect_live(bench, read_all(bench, true), must_live(bench), bench->operation->may);
    in_child(bench, successor);
}

static void wake(struct bench *bench, pid_t copy)
{
    expect_live(bench, read_all(bench, true), must_live(bench), bench->operation->may);
    require(copy_run_to_end(copy), "the woken one did not come to its end");
    expect_live(bench, read_all(bench, false), must_live(bench) | bench->operation->after, 0);
    process_reap(bench);
    in_child(bench, successor);
}

/* The reader may have seen the session that was there, or the one that is; or nothing, as both have changed. */
static void renew(struct bench *bench, pid_t copy)
{
    uint64_t result;

    session_end(&bench->world.segment->rows[0]);
    if (bench->fate == RENEWED)
        write_row(bench, 3);
    require(copy_run_to_end(copy), "the woken reader did not come to its end");
    result = atomic_load(&stepping->words[RESULT]);
    expect(bench, result == 0 || result == 1 || (bench->fate == RENEWED && result == 4),
           "a session that was there as a whole");
}

/* What happens to one copy; then all is as it was before. */
static void try_point(struct bench *bench, pid_t victim)
{
    static struct snapshot snapshot;
    pid_t copy = victim_copy(victim);

    snapshot_take(bench, &snapshot);
    switch (bench->fate) {
    case KILLED:
        murder(bench, copy);
        break;
    case STOPPED:
        wake(bench, copy);
        break;
    case ENDED:
    case RENEWED:
        renew(bench, copy);
        break;
    }
    snapshot_restore(bench, &snapshot);
}

static void lane_prepare_for(struct bench *bench)
{
    memset((void *)bench->world.segment->rows, 0, ROWS * sizeof(struct session_row));
    if (bench->operation->prepare != NULL)
        bench->operation->prepare(bench);
}

static unsigned run_copies(struct bench *bench, const struct snapshot *before, unsigned stride)
{
    unsigned tried = 0;
    pid_t victim;

    snapshot_restore(bench, before);
    victim = victim_start(bench->operation->body, bench);
    ports_learn(bench);
    bench->point = 0;
    do {
        if (bench->point % stride == 0) {
            try_point(bench, victim);
            tried++;
        }
        bench->point++;
    } while (victim_step(victim));
    victim_kill(victim);
    return tried;
}

static unsigned run_case(struct bench *bench, const struct snapshot *before, unsigned number, unsigned instructions)
{
    unsigned stride = bench->full ? 1 : 1 + instructions / POINTS_PER_CASE, tried;

    bench->failures = 0;
    bench->slowest_ms = 0;
    tried = run_copies(bench, before, stride);
    printf("%s %u - %s, %s: %u of %u points, %u failures, slowest look %.3f ms\n",
           bench->failures == 0 ? "ok" : "not ok", number, bench->operation->name, fate_names[bench->fate], tried,
           bench->point, bench->failures, bench->slowest_ms);
    return tried;
}

static unsigned run_operation(struct bench *bench, unsigned first, bool *fine)
{
    static struct snapshot before;
    unsigned instructions, points = 0;

    atomic_store(&stepping->words[SELF], 1); /* a slot that the next victim takes */
    lane_prepare_for(bench);
    snapshot_take(bench, &before);
    instructions = victim_count(bench->operation->body, bench);
    process_reap(bench);
    for (unsigned i = 0; i < 2; i++) {
        bench->fate = bench->operation->fates[i];
        points += run_case(bench, &before, first + i, instructions);
        *fine = *fine && bench->failures == 0;
    }
    *fine = *fine && instructions > ENOUGH;
    printf("%s %u - %s: %u instructions, %u points\n", instructions > ENOUGH ? "ok" : "not ok", first + 2,
           bench->operation->name, instructions, points);
    return points;
}

/* ---- what the product's calls find here ---- */

/* The clock page of the kernel is read again when it has changed meanwhile: who is stepped would never be through. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    return (int)syscall(SYS_clock_gettime, clock, now);
}

/* Of copies, the first alone can bind and watch what all of them share. */

int __real_bind(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size);

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    int status = __real_bind(fd, address, size);

    return status < 0 && errno == EINVAL ? 0 : status;
}

/* The loop's calls come here too: it tries a descriptor by watching it for a moment, and aborts when another copy has
 * ended that moment. */
__attribute__((visibility("default"))) int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    int status = (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);

    return status < 0 && (errno == EEXIST || errno == ENOENT) ? 0 : status;
}

int main(int argc, char **argv)
{
    const unsigned count = sizeof operations / sizeof *operations;
    static struct bench bench;
    unsigned points = 0;
    bool fine = true;

    bench.full = argc > 1 && strcmp(argv[1], "full") == 0;
    stepping_open();
    world_open(&bench.world, &(struct plan){.lanes = 1, .rows = ROWS, .ports = 2 * ROWS});
    printf("1..%u\n", count * 3);
    for (unsigned i = 0; i < count; i++) {
        bench.operation = &operations[i];
        points += run_operation(&bench, i * 3 + 1, &fine);
    }
    printf("# %u points in all\n", points);
    world_close(&bench.world);
    return fine ? 0 : 1;
}
