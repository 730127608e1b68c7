/* SPDX-License-Identifier: Apache-2.0 */
/* A lane in this process: what makes holding it possible, and how it is made again from the rows.
 *
 * Happy path: listeners are added, memory is prepared, the lane is held: epoch raised, each live row gets a path, and
 * datagrams are read. A path's socket follows with its client's next datagram, or some a loop turn: the one that came
 * from the last holder, or one that is opened anew.
 * Fails: a row's service or address is configured no more -> the session ends, or, where a wildcard listens behind that
 *                                                           address, when its server has nothing to say any more; what
 *                                                           the client says from here on is a new flow's
 *        the servers' port of its service is another one -> the session ends; a TCP stream stays at the port it has
 *        two live rows of one flow                       -> the later one ends
 *        a socket that is not what its row says          -> closed, opened again
 *        a TCP stream that its last holder has not sent  -> the session ends
 *        no descriptor left while opening again          -> those wait for their clients */
#include "base/endpoint.h"
#include "relay/stream.h"
#include "segment/tuple.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define AHEAD 4u /* rows, that the processor fetches while one is looked at */

struct lane *lane_find(struct relay *relay, uint32_t number)
{
    struct lane *lane = relay->lanes;

    while (lane != NULL && lane->number != number)
        lane = lane->next;
    if (lane != NULL)
        return lane;
    lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return NULL;
    *lane = (struct lane){.epoll = -1,
                          .relay = relay,
                          .number = number,
                          .rows = session_partition(relay->segment, number),
                          .row_count = relay->segment->rows_per_lane,
                          .next = relay->lanes};
    relay->lanes = lane;
    return lane;
}

static void index_key_of(const void *arg, uint32_t position, struct flow_key *key)
{
    const struct lane *lane = arg;
    const struct session_row *row = &lane->rows[position];

    *key = (struct flow_key){.service = row->service, .client = row->client};
    memcpy(key->local, row->local, sizeof key->local);
}

void lane_keep_socket(struct lane *lane, uint32_t position, int fd)
{
    keeper_note(lane->relay->keeper, &lane->rows[position], fd);
    lane->incoming[position] = fd;
}

int lane_take_socket(struct lane *lane, const struct session_row *row)
{
    uint32_t position = (uint32_t)(row - lane->rows);
    int fd = lane->incoming != NULL ? lane->incoming[position] : -1;

    if (fd >= 0)
        lane_keep_socket(lane, position, -1);
    return fd;
}

/* Those of rows that nobody wants; all: none is wanted any more. */
static void incoming_close(struct lane *lane, bool all)
{
    for (uint32_t i = 0; lane->incoming != NULL && i < lane->row_count; i++) {
        int fd = all || lane->paths[i] == NULL ? lane_take_socket(lane, &lane->rows[i]) : -1;
        if (fd >= 0)
            close(fd);
    }
}

static void incoming_free(struct lane *lane)
{
    incoming_close(lane, true);
    free(lane->incoming);
    lane->incoming = NULL;
}

/* What it watches is watched no more, all at once. */
static void epoll_close(struct lane *lane)
{
    if (lane->epoll < 0)
        return;
    relay_look_close(lane);
    keeper_note_epoll(lane->relay->keeper, lane->number, -1);
    close(lane->epoll);
    lane->epoll = -1;
}

static void lane_release(struct lane *lane)
{
    epoll_close(lane);
    incoming_free(lane);
    streams_forget(lane);
    lane->adopted = lane->frozen = lane->looked_at = lane->from_route = lane->from_address = false;
    free(lane->reopen);
    free(lane->free_rows);
    free(lane->paths);
    flow_index_close(&lane->index);
    cell_free_all(lane);
    lane->reopen = NULL;
    lane->free_rows = NULL;
    lane->paths = NULL;
}

int lane_prepare(struct lane *lane, struct error *error)
{
    size_t rows = lane->row_count + 1u; /* never an empty allocation */
    int status;

    lane->paths = calloc(rows, sizeof(struct path *));
    lane->free_rows = calloc(rows, sizeof *lane->free_rows);
    lane->incoming = malloc(rows * sizeof *lane->incoming);
    if (lane->paths == NULL || lane->free_rows == NULL || lane->incoming == NULL ||
        flow_index_open(&lane->index, lane->row_count, lane->relay->secret) < 0) {
        free(lane->incoming);
        lane->incoming = NULL; /* nothing is in it yet */
        lane_release(lane);
        return error_set(error, -ENOMEM, "no memory for lane %u", lane->number);
    }
    for (uint32_t i = 0; i < lane->row_count; i++)
        lane->incoming[i] = -1;
    lane->free_listed = false;
    lane->epoll = epoll_create1(EPOLL_CLOEXEC);
    status = lane->epoll < 0 ? -errno : relay_look_open(lane);
    if (status < 0) {
        lane_release(lane);
        return error_set(error, status, "lane %u: cannot watch sockets: %s", lane->number, strerror(-status));
    }
    keeper_note_epoll(lane->relay->keeper, lane->number, lane->epoll);
    lane->index.key_of = index_key_of;
    lane->index.arg = lane;
    return 0;
}

struct listener *lane_listener(const struct lane *lane, const struct session_row *row)
{
    struct listener *wildcard = NULL;

    for (struct listener *listener = lane->listeners; listener != NULL; listener = listener->next) {
        if (listener->service->topology->identity != row->service || listener->address.family != row->client.family)
            continue;
        if (listener->wildcard)
            wildcard = listener;
        else if (memcmp(listener->address.address, row->local, sizeof row->local) == 0)
            return listener;
    }
    return wildcard;
}

struct listener *lane_listener_behind(const struct lane *lane, const struct session_row *row)
{
    struct listener *listener = lane->listeners;

    while (listener != NULL &&
           (listener->watched.kind == WATCHED_ACCEPTOR || !listener->wildcard ||
            listener->address.family != row->client.family || listener->address.port != row->local_port))
        listener = listener->next;
    return listener;
}

struct row_use {
    uint64_t last_ms;
    uint32_t row;
};

static int row_use_compare(const void *left, const void *right)
{
    const struct row_use *a = left, *b = right;

    if (a->last_ms != b->last_ms)
        return a->last_ms < b->last_ms ? -1 : 1;
    return a->row < b->row ? -1 : 1;
}

/* The rows that are free (or that lack a socket) in the order of their last use; NULL: none, or no memory. */
static struct row_use *rows_sorted(const struct lane *lane, bool live, uint32_t *count)
{
    struct row_use *uses = malloc((lane->row_count + 1u) * sizeof *uses);

    *count = 0;
    if (uses == NULL)
        return NULL;
    for (uint32_t i = 0; i < lane->row_count; i++) {
        const struct path *path = lane->paths[i];
        if (live ? path != NULL && path->watched.fd < 0 && path->stream == NULL : path == NULL)
            uses[(*count)++] = (struct row_use){.last_ms = row_last_ms(&lane->rows[i]), .row = i};
    }
    qsort(uses, *count, sizeof *uses, row_use_compare);
    return uses;
}

/* Not before the first is needed: clients that wait for a new holder come before new ones. */
static void list_free_rows(struct lane *lane)
{
    uint32_t count;
    struct row_use *uses = rows_sorted(lane, false, &count);

    lane->free_listed = true;
    lane->free_first = lane->free_count = 0;
    if (uses != NULL) {
        for (; lane->free_count < count; lane->free_count++)
            lane->free_rows[lane->free_count] = uses[lane->free_count].row;
    } else { /* no memory to sort them: in any order */
        for (uint32_t i = 0; i < lane->row_count; i++)
            if (lane->paths[i] == NULL)
                lane->free_rows[lane->free_count++] = i;
    }
    free(uses);
}

static void list_closed_rows(struct lane *lane)
{
    uint32_t count;
    struct row_use *uses = rows_sorted(lane, true, &count);

    lane->reopen = uses != NULL ? malloc((count + 1u) * sizeof *lane->reopen) : NULL;
    lane->reopen_count = lane->reopen != NULL ? count : lane->row_count; /* no memory: all, as they lie there */
    for (uint32_t i = 0; lane->reopen != NULL && i < count; i++)         /* most recently used first */
        lane->reopen[i] = uses[count - 1 - i].row;
    free(uses);
}

/* The flow of a row that cannot be relayed here begins anew with its client's next datagram. */
static void row_refuse(struct lane *lane, struct session_row *row, const char *reason)
{
    session_end(row);
    struct path unused = {.lane = lane, .row = row};
    report_session(lane->relay, TRACE_SESSION_ENDED, &unused, reason);
}

static bool is_shadowed(const struct lane *lane, const struct session_row *row)
{
    struct segment *segment = lane->relay->segment;
    const struct hp_endpoint server = upstream_server(segment, row);

    return row_transparent(row) && !tuple_holds(segment, row, &server) && !tuple_claim(segment, row, &server);
}

static void row_adopt(struct lane *lane, uint32_t position)
{
    struct session_row *row = &lane->rows[position];
    struct listener *listener = lane_listener(lane, row);
    bool leaving = listener == NULL, tcp = listener != NULL && listener->watched.kind == WATCHED_ACCEPTOR;
    const char *why = "no memory";
    struct path *path;
    struct flow_key key;

    index_key_of(lane, position, &key);
    if (leaving)
        listener = lane_listener_behind(lane, row);
    if (listener == NULL || row->server >= SEGMENT_SERVERS ||
        lane->relay->segment->servers[row->server].identity == 0) {
        row_refuse(lane, row, "service removed");
    } else if (!leaving && !tcp && row->server_port != listener->service->config->server_port) {
        row_refuse(lane, row, "port changed"); /* a stream stays where it is */
    } else if (flow_index_find(&lane->index, &key) != FLOW_NONE) {
        row_refuse(lane, row, "second row of one flow");
    } else if (!tcp && is_shadowed(lane, row)) {
        row_refuse(lane, row, "its client is at that server by another address"); /* killed before it could know */
    } else if (!tcp && lane->coming != NULL && lane->coming[position] != NULL) {
        row_refuse(lane, row, leaving ? "service removed" : "protocol changed");
    } else if ((path = tcp ? stream_adopt(lane, row, listener, &why) : path_adopt(lane, row, listener)) == NULL) {
        if (why != NULL) /* else it has ended already */
            row_refuse(lane, row, why);
    } else {
        path->leaving = leaving;
        relay_count(lane->relay, COUNTER_sessions_adopted, 1);
    }
}

static int listeners_watch(struct lane *lane)
{
    int status = 0;

    for (struct listener *listener = lane->listeners; listener != NULL && status == 0; listener = listener->next)
        status = relay_watch(lane->epoll, &listener->watched);
    relay_look_at(lane);
    return status;
}

void lane_adopt(struct lane *lane)
{
    struct lane_slot *slot = &lane->relay->segment->lanes[lane->number];

    if (lane->adopted)
        return;
    lane->adopted = true;
    atomic_fetch_add_explicit(&slot->epoch, 1, memory_order_acq_rel);
    atomic_store_explicit(&slot->holder, lane->relay->self, memory_order_release);
    for (uint32_t i = 0; i < lane->row_count; i++) {
        const struct session_row *ahead = &lane->rows[i + AHEAD < lane->row_count ? i + AHEAD : i];

        __builtin_prefetch(&ahead->state);
        __builtin_prefetch(&ahead->watch);
        if (session_is_live(&lane->rows[i]))
            row_adopt(lane, i);
    }
}

void lane_hold(struct lane *lane)
{
    struct relay *relay = lane->relay;
    int status;

    lane_adopt(lane);
    incoming_close(lane, false);
    streams_forget(lane);
    lane->free_listed = false;
    lane->no_descriptor = false;
    lane->reopen_next = 0;
    lane->reopen_count = lane->row_count;
    lane->state = LANE_HELD;
    status = listeners_watch(lane);
    if (status < 0)
        log_write(relay->log, LOG_ERROR, "lane %u: a listener cannot be watched: %s", lane->number, strerror(-status));
    lane->rekey_next = 0;
    relay_catch_up(relay);
}

bool lane_rekey(struct lane *lane, uint32_t limit)
{
    while (lane->rekey_next < lane->row_count && limit > 0) {
        struct path *path = lane->paths[lane->rekey_next++];
        if (path == NULL || path_may_wait(path))
            continue;
        path_rekey(path);
        limit--;
    }
    return lane->rekey_next < lane->row_count;
}

/* Those that have come from the last holder need no descriptor more. */
static void say_no_descriptor(struct lane *lane)
{
    if (!lane->no_descriptor)
        log_write(lane->relay->log, LOG_WARNING,
                  "lane %u: no descriptor left for some of %u sessions; they wait for their clients; raise LimitNOFILE",
                  lane->number, lane->reopen_count);
    lane->no_descriptor = true;
}

bool lane_reopen(struct lane *lane, uint32_t limit)
{
    if (lane->reopen_next == 0 && lane->reopen == NULL)
        list_closed_rows(lane);
    for (; lane->reopen_next < lane->reopen_count && limit > 0; limit--) {
        uint32_t position = lane->reopen != NULL ? lane->reopen[lane->reopen_next] : lane->reopen_next;
        struct path *path = lane->paths[position];
        lane->reopen_next++;
        if (path == NULL || path->stream != NULL || path->watched.fd >= 0 ||
            (lane->no_descriptor && (lane->incoming == NULL || lane->incoming[position] < 0)))
            continue;
        int status = path_open(path);
        if (status == -EMFILE || status == -ENFILE)
            say_no_descriptor(lane);
    }
    if (lane->reopen_next < lane->reopen_count)
        return true;
    incoming_free(lane);
    free(lane->reopen);
    lane->reopen = NULL;
    lane->reopen_next = lane->reopen_count = 0;
    return false;
}

bool lane_is_full(struct lane *lane)
{
    if (!lane->free_listed)
        list_free_rows(lane);
    return lane->free_count == 0;
}

struct session_row *lane_take_row(struct lane *lane)
{
    uint32_t position;

    if (lane_is_full(lane))
        return NULL;
    position = lane->free_rows[lane->free_first];
    lane->free_first = (lane->free_first + 1) % lane->row_count;
    lane->free_count--;
    return &lane->rows[position];
}

void lane_give_row(struct lane *lane, struct session_row *row)
{
    if (!lane->free_listed) /* then it will be among them */
        return;
    lane->free_rows[(lane->free_first + lane->free_count) % lane->row_count] = (uint32_t)(row - lane->rows);
    lane->free_count++;
}

static int number_compare(const void *left, const void *right)
{
    int a = *(const int *)left, b = *(const int *)right;

    return a < b ? -1 : a > b;
}

/* Most of them came in a row. */
static void close_all(int *descriptors, uint32_t count)
{
    uint32_t first = 0;

    qsort(descriptors, count, sizeof *descriptors, number_compare);
    for (uint32_t i = 0; i < count; i++) {
        if (i + 1 < count && descriptors[i + 1] == descriptors[i] + 1)
            continue;
        (void)close_range((unsigned)descriptors[first], (unsigned)descriptors[i], 0);
        first = i + 1;
    }
}

static void paths_forget(struct lane *lane)
{
    int *descriptors = malloc((lane->row_count + 1u) * sizeof *descriptors);
    uint32_t count = 0;

    for (uint32_t i = 0; lane->paths != NULL && i < lane->row_count; i++) {
        int fd = lane->paths[i] != NULL ? path_forget(lane->paths[i]) : -1;
        if (fd >= 0 && descriptors != NULL)
            descriptors[count++] = fd;
        else if (fd >= 0)
            close(fd);
    }
    if (descriptors != NULL)
        close_all(descriptors, count);
    free(descriptors);
}

void lane_let_go(struct lane *lane)
{
    uint32_t self = lane->relay->self;

    (void)atomic_compare_exchange_strong(&lane->relay->segment->lanes[lane->number].holder, &self, SEGMENT_NO_INDEX);
}

void lane_forget(struct lane *lane)
{
    epoll_close(lane);
    paths_forget(lane);
    while (lane->listeners != NULL) {
        struct listener *listener = lane->listeners;
        lane->listeners = listener->next;
        close(listener->watched.fd);
        free(listener);
    }
    lane_release(lane);
    lane->state = LANE_IDLE;
}

void lane_free(struct lane *lane)
{
    lane_forget(lane);
    free(lane);
}
