/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: a timer begins a round every second. The round walks all session rows and counts sessions and clients by
 * server and by service, and how many sessions watch each record; then it walks all records and deletes those that
 * expired and that nobody watches; then it publishes the numbers and raises the header's recount, at which workers
 * forget what they had added by themselves.
 *
 * A client is a record with a live session that watches it, counted once per server and once per service; a session
 * without a record counts for itself. A session whose record has changed since counts as session only: its next
 * datagram is decided anew and will count then.
 *
 * What it walks stays mapped, though that counts as this process's memory: the file has all its pages anyway, and
 * mapping them anew each second would cost more than all the rest.
 *
 * Fails: a row changes under our eyes            -> session_read says so, it is skipped and counted in the next round
 *        a record is used while we delete it     -> the CAS fails, the record stays
 *        a round takes longer than a second      -> the next one begins at the tick after its end
 *        nonsense in the segment                 -> every index is checked before use */
#include "monitor/recount.h"
#include "monitor/sources.h"

#include "base/clock.h"
#include "base/endpoint.h"
#include "segment/record.h"
#include "segment/session.h"
#include "segment/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROUND_EVERY_MS 1000u
#define SLICE 4096u /* rows or records a loop turn */
#define AHEAD 8u    /* rows, that the processor fetches while one is looked at */

struct load {
    uint32_t clients, sessions;
};

struct recount {
    struct monitor_context context;
    uv_timer_t timer;
    uv_idle_t idle; /* active during a round */
    bool in_round;
    uint32_t row, row_count;       /* next to look at */
    uint32_t record, record_count; /* next to look at */
    struct load servers[SEGMENT_SERVERS], services[SEGMENT_SERVICES];
    uint16_t *watchers, *watchers_last; /* by record: this round, last round; UINT16_MAX: or more */
    uint8_t *seen; /* bit (service position, record): the record was counted for the service; this round */
    size_t seen_size;
    struct recount_totals totals, totals_last;
    struct sources *sources;
    struct recount_search *searches;
    int open_handles;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void begin_round(struct recount *self);

int recount_open(struct recount **out, const struct monitor_context *context, struct error *error)
{
    struct recount *self = calloc(1, sizeof *self);

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory to count loads");
    self->context = *context;
    self->row_count = context->segment->lane_count * context->segment->rows_per_lane;
    self->record_count = record_capacity(context->segment);
    self->seen_size = ((size_t)context->topology->service_count * self->record_count + 7) / 8;
    self->watchers = calloc(self->record_count + 1u, sizeof *self->watchers);
    self->watchers_last = calloc(self->record_count + 1u, sizeof *self->watchers_last);
    self->seen = calloc(self->seen_size + 1, 1);
    if (self->watchers == NULL || self->watchers_last == NULL || self->seen == NULL ||
        sources_open(&self->sources, context, error) < 0) {
        free(self->watchers);
        free(self->watchers_last);
        free(self->seen);
        free(self);
        return error_set(error, -ENOMEM, "no memory to count the loads of %u records",
                         record_capacity(context->segment));
    }
    uv_timer_init(context->loop, &self->timer);
    uv_idle_init(context->loop, &self->idle);
    self->timer.data = self;
    self->idle.data = self;
    self->open_handles = 2;
    *out = self;
    return 0;
}

static void on_close(uv_handle_t *handle)
{
    struct recount *self = handle->data;

    if (--self->open_handles > 0)
        return;
    self->closed(self->closed_arg);
    sources_close(self->sources);
    free(self->watchers);
    free(self->watchers_last);
    free(self->seen);
    free(self);
}

void recount_close(struct recount *recount, void (*done)(void *arg), void *arg)
{
    if (recount == NULL) {
        done(arg);
        return;
    }
    recount->closed = done;
    recount->closed_arg = arg;
    uv_close((uv_handle_t *)&recount->timer, on_close);
    uv_close((uv_handle_t *)&recount->idle, on_close);
}

const struct recount_totals *recount_totals(const struct recount *recount)
{
    return &recount->totals_last;
}

uint32_t recount_watchers(const struct recount *recount, uint32_t record)
{
    return record < recount->record_count ? recount->watchers_last[record] : 0;
}

/* Position in the topology, or its service_count: a service that is no longer configured. */
static uint32_t service_position(const struct topology *topology, uint64_t identity)
{
    uint32_t i = 0;

    while (i < topology->service_count && topology->services[i].identity != identity)
        i++;
    return i;
}

/* First time that this round sees the record on this service? */
static bool first_on_service(struct recount *self, uint32_t service, uint32_t record)
{
    size_t bit = (size_t)service * self->record_count + record;

    if (self->seen[bit / 8] & 1u << bit % 8)
        return false;
    self->seen[bit / 8] |= (uint8_t)(1u << bit % 8);
    return true;
}

static void count_row(struct recount *self, const struct session_row *row)
{
    const struct topology *topology = self->context.topology;
    uint32_t service = service_position(topology, row->service);
    uint32_t record = atomic_load_explicit(&row->record, memory_order_relaxed);
    uint64_t watch = atomic_load_explicit(&row->watch, memory_order_relaxed), value;
    struct load nowhere = {0, 0}, *server_load = &nowhere, *service_load = &nowhere;

    self->totals.sessions++;
    if (row->server < SEGMENT_SERVERS)
        server_load = &self->servers[row->server];
    if (service < topology->service_count)
        service_load = &self->services[topology->services[service].slot % SEGMENT_SERVICES];
    server_load->sessions++;
    service_load->sessions++;
    if (record == SEGMENT_NO_INDEX) {
        server_load->clients++;
        service_load->clients++;
        sources_count(self->sources, row, true,
                      (atomic_load_explicit(&row->flags, memory_order_relaxed) & SESSION_PROVEN) != 0);
        return;
    }
    value = record < self->record_count ? record_value(self->context.segment, record) : 0;
    if (record >= self->record_count || RECORD_DECISION(value) != watch) {
        sources_count(self->sources, row, false, false);
        return;
    }
    sources_count(self->sources, row, self->watchers[record] == 0, RECORD_PROVEN(value));
    if (self->watchers[record] == 0)
        server_load->clients++;
    if (self->watchers[record] < UINT16_MAX)
        self->watchers[record]++;
    if (service < topology->service_count && first_on_service(self, service, record))
        service_load->clients++;
}

static void walk_rows(struct recount *self)
{
    uint32_t end = self->row_count - self->row < SLICE ? self->row_count : self->row + SLICE;
    const struct session_row *rows = self->context.segment->rows;
    struct session_row copy;

    for (; self->row < end; self->row++) {
        __builtin_prefetch(&rows[self->row + AHEAD < end ? self->row + AHEAD : self->row].state);
        if (session_is_live(&rows[self->row]) && session_read(&rows[self->row], &copy))
            count_row(self, &copy);
    }
}

/* true: one of the searches wants it gone. */
static bool search_record(struct recount *self, const struct record_view *view, bool watched)
{
    bool remove = false;

    for (struct recount_search *search = self->searches; search != NULL; search = search->next)
        if (search->running && endpoint_names(&search->client, &view->client)) {
            search->found++;
            if (search->remove && !watched) {
                search->removed++;
                remove = true;
            }
        }
    return remove;
}

static void walk_records(struct recount *self)
{
    uint32_t end = self->record_count - self->record < SLICE ? self->record_count : self->record + SLICE;
    uint32_t now_s = (uint32_t)clock_now_s();
    struct segment *segment = self->context.segment;
    struct record_view view;
    struct record_ref ref;

    for (; self->record < end; self->record++) {
        bool watched = self->watchers[self->record] > 0, searched;

        if (!record_read(segment, self->record, &view))
            continue;
        self->totals.records++;
        sources_count_record(self->sources, view.ref.index, view.ref.value);
        searched = search_record(self, &view, watched);
        if (!searched && (watched || !record_expired(segment, &view.ref, now_s)))
            continue;
        ref = view.ref;
        if (!record_delete(segment, &ref)) /* a reference tells what it has become */
            continue;
        self->totals.records--;
        if (trace_is_on(segment, now_s * 1000ull))
            trace_record(segment, searched ? TRACE_RECORD_DELETED : TRACE_RECORD_EXPIRED, &view, now_s * 1000ull);
    }
}

static void publish(struct recount *self)
{
    struct segment *segment = self->context.segment;
    uint16_t *watchers = self->watchers_last;

    for (uint32_t i = 0; i < SEGMENT_SERVERS; i++) {
        atomic_store_explicit(&segment->servers[i].clients, self->servers[i].clients, memory_order_relaxed);
        atomic_store_explicit(&segment->servers[i].sessions, self->servers[i].sessions, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < SEGMENT_SERVICES; i++) {
        atomic_store_explicit(&segment->services[i].clients, self->services[i].clients, memory_order_relaxed);
        atomic_store_explicit(&segment->services[i].sessions, self->services[i].sessions, memory_order_relaxed);
    }
    sources_publish(self->sources);
    atomic_fetch_add_explicit(&segment->header->recount, 1, memory_order_release);
    self->totals_last = self->totals;
    self->watchers_last = self->watchers;
    self->watchers = watchers;
}

/* Takes the finished ones out before anybody is called: a callback may ask anew. */
static void answer_searches(struct recount *self)
{
    struct recount_search *finished = NULL, **link = &self->searches;

    while (*link != NULL) {
        struct recount_search *search = *link;

        if (!search->running) {
            link = &search->next;
            continue;
        }
        *link = search->next;
        search->next = finished;
        finished = search;
    }
    while (finished != NULL) {
        struct recount_search *search = finished;

        finished = search->next;
        search->next = NULL;
        search->running = false;
        search->done(search);
    }
}

static void end_round(struct recount *self)
{
    uv_idle_stop(&self->idle);
    self->in_round = false;
    publish(self);
    answer_searches(self);
    if (self->searches != NULL && !self->in_round && !uv_is_closing((uv_handle_t *)&self->idle))
        begin_round(self);
}

static void on_idle(uv_idle_t *idle)
{
    struct recount *self = idle->data;

    if (self->row < self->row_count)
        walk_rows(self);
    else if (self->record < self->record_count)
        walk_records(self);
    else
        end_round(self);
}

static void begin_round(struct recount *self)
{
    memset(self->servers, 0, sizeof self->servers);
    memset(self->services, 0, sizeof self->services);
    memset(self->watchers, 0, self->record_count * sizeof *self->watchers);
    memset(self->seen, 0, self->seen_size);
    memset(&self->totals, 0, sizeof self->totals);
    sources_begin(self->sources);
    self->row = 0;
    self->record = 0;
    self->in_round = true;
    for (struct recount_search *search = self->searches; search != NULL; search = search->next)
        search->running = true;
    uv_idle_start(&self->idle, on_idle);
}

static void on_timer(uv_timer_t *timer)
{
    struct recount *self = timer->data;

    if (!self->in_round)
        begin_round(self);
}

void recount_start(struct recount *recount)
{
    uv_timer_start(&recount->timer, on_timer, 0, ROUND_EVERY_MS);
}

void recount_search(struct recount *recount, struct recount_search *search)
{
    search->found = 0;
    search->removed = 0;
    search->running = false;
    search->next = recount->searches;
    recount->searches = search;
    if (!recount->in_round)
        begin_round(recount);
}

void recount_forget(struct recount *recount, struct recount_search *search)
{
    for (struct recount_search **link = &recount->searches; *link != NULL; link = &(*link)->next)
        if (*link == search) {
            *link = search->next;
            search->next = NULL;
            return;
        }
}
