/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: `added` is remembered as a round begins; rows and records are counted; at its end the numbers stand in
 * the segment, together with what was remembered, so that who came meanwhile is not forgotten.
 *
 * A server refuses clients from an address: a warning when it begins, a line when it ends. An address is not on this
 * machine: a warning with the command, a line when it is back; new clients are not sent from it meanwhile. No
 * descriptor to look with: as it was before. */
#include "monitor/sources.h"

#include "base/endpoint.h"
#include "segment/record.h"
#include "segment/source.h"

#include <stdlib.h>
#include <string.h>

struct load {
    uint32_t clients, unproven, added;
};

struct sources {
    struct monitor_context context;
    struct load loads[SEGMENT_SERVERS][SEGMENT_SOURCES];
    uint32_t used[SEGMENT_SOURCES];
    uint64_t refusing[SEGMENT_SERVERS]; /* bit: source, at the last round */
    uint64_t absent;                    /* likewise */
};

_Static_assert(SEGMENT_SOURCES <= 64, "a bit for each source");

int sources_open(struct sources **out, const struct monitor_context *context, struct error *error)
{
    struct sources *self = calloc(1, sizeof *self);

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory to count clients by source address");
    self->context = *context;
    *out = self;
    return 0;
}

void sources_close(struct sources *sources)
{
    free(sources);
}

static bool in_use(const struct segment *segment, uint32_t source)
{
    return source == SOURCE_ROUTE || segment->sources[source].address.family != 0;
}

void sources_begin(struct sources *sources)
{
    const struct segment *segment = sources->context.segment;

    memset(sources->used, 0, sizeof sources->used);
    for (uint32_t server = 0; server < SEGMENT_SERVERS; server++) {
        if (segment->servers[server].identity == 0)
            continue;
        memset(sources->loads[server], 0, sizeof sources->loads[server]);
        for (uint32_t i = 0; i < SEGMENT_SOURCES; i++)
            if (in_use(segment, i))
                (void)source_unproven(segment, server, i, &sources->loads[server][i].added);
    }
}

void sources_count(struct sources *sources, const struct session_row *row, bool client, bool proven)
{
    struct load *load;

    if (row->server >= SEGMENT_SERVERS || row->source >= SEGMENT_SOURCES)
        return;
    sources->used[row->source]++;
    load = &sources->loads[row->server][row->source];
    load->clients += client;
    load->unproven += client && !proven;
}

void sources_count_record(struct sources *sources, uint32_t record, uint64_t value)
{
    struct record_source seen;

    if (record_source(sources->context.segment, record, RECORD_DECISION(value), &seen) && seen.chosen)
        sources->used[seen.source]++;
}

const char *source_text(const struct segment *segment, uint32_t source, char text[ENDPOINT_TEXT])
{
    return source == SOURCE_ROUTE ? "our address" : endpoint_format(&segment->sources[source].address, text);
}

static void note_refusal(struct sources *self, uint32_t server, uint32_t source)
{
    const struct segment *segment = self->context.segment;
    uint32_t unanswered;
    uint64_t bit = 1ull << source, left_ms = source_refuses_ms(segment, server, source, &unanswered);
    char name[SEGMENT_NAME], text[ENDPOINT_TEXT];

    if ((left_ms > 0) == ((self->refusing[server] & bit) != 0))
        return;
    self->refusing[server] ^= bit;
    memcpy(name, segment->servers[server].name, sizeof name);
    name[sizeof name - 1] = '\0';
    if (left_ms > 0)
        log_write(
            self->context.log, LOG_WARNING,
            "server %s refuses clients from %s: %u of their last %u IKE_SA_INITs were not answered within %u s; no "
            "new client goes there from that address for %u s; raise what the server allows one address, or list "
            "more: source: [ADDRESS, ...]",
            name, source_text(segment, source, text), unanswered, SOURCE_LAST, SOURCE_ANSWER_MS / 1000,
            SOURCE_REFUSAL_MS / 1000);
    else
        log_write(self->context.log, LOG_INFO, "server %s: new clients may come from %s again", name,
                  source_text(segment, source, text));
}

static void note_absence(struct sources *self, uint32_t source)
{
    struct segment *segment = self->context.segment;
    const struct hp_endpoint *address = &segment->sources[source].address;
    uint64_t bit = 1ull << source;
    char text[ENDPOINT_TEXT];
    int here = endpoint_look_for(address);
    bool absent = here == 0;

    if (here < 0)
        return;
    (void)source_set_absent(segment, source, absent);
    if (absent == ((self->absent & bit) != 0))
        return;
    self->absent ^= bit;
    if (absent)
        log_write(
            self->context.log, LOG_WARNING,
            "source address %s is not on this machine: no client leaves from it until it is: ip address add %s/%u "
            "dev INTERFACE",
            endpoint_format(address, text), text, address->family == 4 ? 32 : 128);
    else
        log_write(self->context.log, LOG_INFO, "source address %s is on this machine again",
                  endpoint_format(address, text));
}

void sources_publish(struct sources *sources)
{
    struct segment *segment = sources->context.segment;

    for (uint32_t server = 0; server < SEGMENT_SERVERS; server++)
        for (uint32_t i = 0; segment->servers[server].identity != 0 && i < SEGMENT_SOURCES; i++) {
            const struct load *load = &sources->loads[server][i];

            if (!in_use(segment, i))
                continue;
            source_publish(segment, server, i, load->clients, load->unproven, load->added);
            note_refusal(sources, server, i);
        }
    for (uint32_t i = 1; i < SEGMENT_SOURCES; i++) {
        atomic_store_explicit(&segment->sources[i].used, sources->used[i], memory_order_relaxed);
        if (in_use(segment, i))
            note_absence(sources, i);
    }
}
