/* SPDX-License-Identifier: Apache-2.0 */
/* Own addresses towards servers, on the data path: which one a session comes from, and which ones a server does not
 * answer any more.
 *
 * Happy path: a session begins at the address that its client's record names, so that port 500 and port 4500 of a
 * client come from one. An IKE_SA_INIT of a client is answered: good for its server and address.
 *
 * The address is not on this machine: marked for everybody until the monitor finds it again; another is chosen, for
 * live sessions with their next datagram. The record names another by now: the session follows, where it may.
 *
 * An IKE_SA_INIT has no answer for two seconds: counted once, whatever its client repeats; half of the last 16: no new
 * client goes there for thirty seconds (segment/source.h). Its worker is killed before that: it is not counted. Where
 * servers see the clients' own addresses nothing is counted. */
#include "segment/source.h"

#include "base/endpoint.h"
#include "relay/private.h"

#include <string.h>
#include <unistd.h>

#define CHECK_EVERY_MS 1000u

static bool goes_on(const struct session_row *before, const struct decision *decision)
{
    return before != NULL && before->server == decision->server && !row_transparent(before);
}

uint32_t source_choose(struct relay *relay, const struct flow *flow, const struct decision *decision,
                       const struct session_row *before)
{
    const struct topology_source_question question = {.server = (uint32_t)decision->server,
                                                      .record = decision->record,
                                                      .watch = decision->watch,
                                                      .heard = decision->heard || before != NULL,
                                                      .prefer =
                                                          goes_on(before, decision) ? (int32_t)before->source : -1,
                                                      .client = flow->client};

    return topology_source(relay->topology, flow->listener->service->topology, &question);
}

void source_is_absent(struct relay *relay, uint32_t source)
{
    char text[ENDPOINT_TEXT];

    if (source_set_absent(relay->segment, source, true))
        log_write(relay->log, LOG_WARNING,
                  "source address %s is not on this machine any more: its clients go on from others; ip address add",
                  endpoint_format(&relay->segment->sources[source].address, text));
}

bool source_differs(const struct path *path, const struct decision *decision)
{
    const struct segment *segment = path->lane->relay->segment;
    struct record_source seen;

    return !row_transparent(path->row) && decision->record != SEGMENT_NO_INDEX &&
           record_source(segment, decision->record, decision->watch, &seen) && seen.chosen &&
           seen.source != path->row->source && source_usable(segment, seen.source, path->server.family);
}

static void outcome(struct path *path, bool answered)
{
    struct relay *relay = path->lane->relay;

    path->init_ms = 0;
    if (!answered)
        relay_count(relay, COUNTER_sa_init_unanswered, 1);
    /* A server that is down refuses nobody in particular. */
    if (answered || path->member == NULL || topology_is_up(relay->topology, path->member))
        source_answer(relay->segment, path->row->server, path->row->source, answered, relay->now_ms);
}

void source_look(struct path *path)
{
    if (path->init_ms != 0 && path->lane->relay->now_ms - path->init_ms >= SOURCE_ANSWER_MS)
        outcome(path, false);
}

void source_asked(struct path *path, const struct ike_datagram *ike)
{
    if (!path->service->config->ike || row_transparent(path->row) || !ike_is_new_sa(ike))
        return;
    source_look(path);
    if (path->init_ms != 0 || memcmp(path->init_spi, ike->header.initiator_spi, sizeof path->init_spi) == 0)
        return;
    memcpy(path->init_spi, ike->header.initiator_spi, sizeof path->init_spi);
    path->init_ms = path->lane->relay->now_ms;
}

void source_answered(struct path *path, const uint8_t *data, uint32_t size)
{
    struct ike_datagram datagram;

    if (path->init_ms == 0)
        return;
    ike_read(&datagram, data, size, path->service->config->port);
    if (datagram.kind == IKE_MESSAGE && datagram.header.exchange == IKE_SA_INIT &&
        memcmp(path->init_spi, datagram.header.initiator_spi, sizeof path->init_spi) == 0)
        outcome(path, path->lane->relay->now_ms - path->init_ms < SOURCE_ANSWER_MS);
}

/* Its socket goes: the session's next datagram opens it elsewhere (udp.c). */
void source_dropped(struct path *path)
{
    struct relay *relay = path->lane->relay;
    uint32_t source = path->row->source % SEGMENT_SOURCES;

    if (source == SOURCE_ROUTE || path->watched.fd < 0)
        return;
    if (source_usable(relay->segment, source, path->server.family)) {
        if (relay->now_ms - relay->source_checked_ms[source] < CHECK_EVERY_MS)
            return;
        relay->source_checked_ms[source] = relay->now_ms;
        if (endpoint_look_for(&relay->segment->sources[source].address) != 0)
            return;
        source_is_absent(relay, source);
    }
    keeper_note(relay->keeper, path->row, -1);
    relay_unwatch(path->lane->epoll, &path->watched);
    close(path->watched.fd);
    path->watched.fd = -1;
}
