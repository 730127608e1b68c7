/* SPDX-License-Identifier: Apache-2.0 */
/* The verb trace: what is seen of one client, a JSON object a line, until its reader goes.
 *
 * Happy path: the client is written down as followed; the answer says so; ten times a second what was posted about it
 * since the last look goes out, and the watch is renewed; an empty line each second says that we are here.
 * Fails: as many traces as there may be   -> refused
 *        more events than the ring holds  -> how many are lost is told
 *        who posted one died on the way   -> passed over after HOLE_MS, and counted as lost
 *        the reader is slow               -> nothing more is read until it has taken what there is; five seconds close
 *        the reader goes                  -> the client is followed no more, unless another trace is of it
 *        this monitor ends                -> the watch stays for a while: the reader asks the next one, with `after`
 * What lies in the ring may be anything: it is bounded and made printable here. */
#include "monitor/control/requests.h"

#include "base/clock.h"
#include "base/endpoint.h"
#include "ike/ike.h"
#include "segment/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_EVERY_MS 100u
#define BEAT_EVERY_MS 1000u
#define HOLE_MS 300u
#define PIECE_BYTES 32768u
#define LINE_BYTES 1024u /* an event is far below */

struct piece {
    char text[PIECE_BYTES + LINE_BYTES];
    size_t size;
};

static const char *exchange_name(uint8_t exchange)
{
    static const char *const names[] = {"IKE_SA_INIT", "IKE_AUTH", "CREATE_CHILD_SA", "INFORMATIONAL",
                                        "IKE_SESSION_RESUME"};

    return exchange >= IKE_SA_INIT && exchange <= IKE_SESSION_RESUME ? names[exchange - IKE_SA_INIT] : NULL;
}

/* Those that a server may answer an IKE_SA_INIT with; else its number. */
static json_t *notify_object(uint16_t type)
{
    switch (type) {
    case 7:
        return json_string("INVALID_SYNTAX");
    case 14:
        return json_string("NO_PROPOSAL_CHOSEN");
    case 17:
        return json_string("INVALID_KE_PAYLOAD");
    case 16390:
        return json_string("COOKIE");
    case 16407:
        return json_string("REDIRECT");
    default:
        return json_integer(type);
    }
}

static json_t *text_object(const char *text)
{
    char name[SEGMENT_NAME] = "";

    memcpy(name, text, strnlen(text, sizeof name - 1));
    return json_name(name);
}

/* From our clock to the wall's. It stays what it is unless somebody has set that one: else a reading that is a
 * millisecond off would turn the order of two events. */
static void time_set(struct trace *trace, uint64_t now_ms)
{
    struct timespec now = {0};
    int64_t ahead_ms;

    clock_gettime(CLOCK_REALTIME, &now);
    ahead_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 - (int64_t)now_ms;
    if (ahead_ms < trace->wall_ahead_ms - 2 || ahead_ms > trace->wall_ahead_ms + 2)
        trace->wall_ahead_ms = ahead_ms;
}

/* at_ms: of our clock. */
static json_t *time_object(const struct trace *trace, uint64_t at_ms)
{
    int64_t wall_ms = trace->wall_ahead_ms + (int64_t)(at_ms % (1ull << 52)); /* it may be nonsense */
    time_t wall_s = wall_ms / 1000;
    struct tm utc = {0};

    gmtime_r(&wall_s, &utc);
    return json_sprintf("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                        utc.tm_hour, utc.tm_min, utc.tm_sec, (int)(wall_ms % 1000));
}

static void add_loss(json_t *object, uint16_t code)
{
    enum counter counter = lane_loss_counter((enum lane_loss)code);
    const char *name = counter_name(counter), *help = counter_help(counter), *colon = strstr(help, ": ");

    json_object_set_new(object, "event", json_string(strncmp(name, "refused", 7) == 0 ? "refused" : "dropped"));
    json_object_set_new(object, "reason", json_string(name));
    json_object_set_new(object, "why", json_string(colon != NULL ? colon + 2 : help));
}

static void add_ike(json_t *object, const struct trace_event *event)
{
    const char *exchange = exchange_name(event->exchange);

    json_object_set_new(object, "exchange",
                        exchange != NULL ? json_string(exchange) : json_sprintf("exchange %u", event->exchange));
    json_object_set_new(object, "response", json_boolean((event->flags & IKE_FLAG_RESPONSE) != 0));
    json_object_set_new(object, "message_id", json_integer(event->message_id));
    json_object_set_new(object, "size", json_integer(event->size));
    if (event->code != 0)
        json_object_set_new(object, "notify", notify_object(event->code));
}

static json_t *event_object(const struct connection *connection, const struct trace_event *event, uint64_t sequence)
{
    const struct segment *segment = connection->sources->context->segment;
    bool of_record = event->kind >= TRACE_RECORD_EVICTED;
    json_t *object = json_pack("{s:I, s:o, s:s, s:o, s:s?}", "sequence", (json_int_t)sequence, "time",
                               time_object(&connection->trace, event->at_ms), "event", trace_kind_name(event->kind),
                               "client", json_address(&event->client), "service",
                               service_name(connection, event->service, of_record ? UINT32_MAX : UINT64_MAX));

    if (event->server != UINT16_MAX)
        json_object_set_new(object, "server", json_server(segment, event->server));
    if (event->source_port != 0)
        json_object_set_new(object, "source_port", json_integer(event->source_port));
    if (event->worker != SEGMENT_NO_INDEX) {
        json_object_set_new(object, "worker", json_integer(event->worker));
        json_object_set_new(object, "lane", json_integer(event->lane));
    }
    if (event->text[0] != '\0')
        json_object_set_new(object, "reason", text_object(event->text));
    if (event->kind == TRACE_LOSS)
        add_loss(object, event->code);
    if (event->kind == TRACE_IKE_TO_SERVER || event->kind == TRACE_IKE_TO_CLIENT)
        add_ike(object, event);
    if (event->kind == TRACE_SESSION_ENDED) {
        json_object_set_new(object, "bytes_to_server", json_integer((json_int_t)event->bytes_to_server));
        json_object_set_new(object, "bytes_to_client", json_integer((json_int_t)event->bytes_to_client));
    }
    return object;
}

static void append(struct piece *piece, json_t *object)
{
    char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT);
    size_t size = text == NULL ? 0 : strlen(text);

    if (size > 0 && size < LINE_BYTES) {
        memcpy(piece->text + piece->size, text, size);
        piece->size += size;
        piece->text[piece->size++] = '\n';
    }
    free(text);
    json_decref(object);
}

/* Only what is ours, and of the port that was asked for. */
static bool is_ours(const struct trace *trace, const struct trace_event *event)
{
    return event->kind < TRACE_KIND_COUNT && endpoint_names(&trace->client, &event->client) &&
           (trace->client.port == 0 || event->client.port == 0 || trace->client.port == event->client.port);
}

/* How many of the ring are past, from our place on. */
static void pass_over(struct trace *trace, uint64_t count)
{
    trace->next += count;
    trace->lost += count;
    trace->hole_ms = 0;
}

/* true: go on at the next one. */
static bool look(struct connection *connection, struct piece *piece, uint64_t now_ms)
{
    struct trace *trace = &connection->trace;
    const struct segment *segment = connection->sources->context->segment;
    uint64_t last = trace_last(segment);
    struct trace_event event;

    if (trace->next > last) /* none, or the ring has begun anew */
        return false;
    if (last - trace->next >= SEGMENT_TRACE_EVENTS)
        pass_over(trace, last - trace->next - SEGMENT_TRACE_EVENTS + 1);
    switch (trace_read(segment, trace->next, &event)) {
    case TRACE_HERE:
        trace->hole_ms = 0;
        if (is_ours(trace, &event))
            append(piece, event_object(connection, &event, trace->next));
        trace->next++;
        return true;
    case TRACE_OVERWRITTEN:
        pass_over(trace, 1);
        return true;
    case TRACE_NOT_YET:
        if (trace->hole_ms == 0)
            trace->hole_ms = now_ms;
        if (now_ms - trace->hole_ms < HOLE_MS)
            return false;
        pass_over(trace, 1);
        return true;
    }
    return false;
}

static void gather(struct connection *connection, struct piece *piece, uint64_t now_ms)
{
    struct trace *trace = &connection->trace;

    time_set(trace, now_ms);
    for (uint32_t i = 0; i < SEGMENT_TRACE_EVENTS && piece->size < PIECE_BYTES && look(connection, piece, now_ms); i++)
        continue;
    if (trace->lost > 0 && piece->size < PIECE_BYTES) {
        append(piece, json_pack("{s:o, s:s, s:I}", "time", time_object(trace, now_ms), "event", "events lost", "count",
                                (json_int_t)trace->lost));
        trace->lost = 0;
    }
    if (piece->size == 0 && now_ms - trace->beat_ms >= BEAT_EVERY_MS)
        piece->text[piece->size++] = '\n';
    if (piece->size > 0)
        trace->beat_ms = now_ms;
}

static void on_look(uv_timer_t *timer)
{
    struct connection *connection = timer->data;
    struct piece piece = {.size = 0};
    uint64_t now_ms = clock_now_ms();
    char *text;

    (void)trace_follow(connection->sources->context->segment, &connection->trace.client, now_ms);
    if (connection->text != NULL) /* not out yet */
        return;
    gather(connection, &piece, now_ms);
    if (piece.size == 0)
        return;
    text = malloc(piece.size);
    if (text == NULL)
        return;
    memcpy(text, piece.text, piece.size);
    connection_write(connection, text, piece.size);
}

/* Where to begin: behind what its reader has seen of another monitor, or now. */
static uint64_t first_of(const struct segment *segment, const json_t *request)
{
    const json_t *given = json_object_get(request, "after");
    json_int_t after = json_integer_value(given);
    uint64_t last = trace_last(segment);

    return json_is_integer(given) && after >= 0 && (uint64_t)after <= last ? (uint64_t)after + 1 : last + 1;
}

static void refuse_more(struct connection *connection)
{
    connection_refuse(connection, "so many clients are followed already that there is no room for another",
                      "end another homeport trace first");
}

void answer_trace(struct connection *connection, const json_t *request)
{
    struct segment *segment = connection->sources->context->segment;
    struct trace *trace = &connection->trace;
    struct hp_endpoint whole;
    uint64_t now_ms = clock_now_ms();

    switch (request_client(connection, request, &trace->client)) {
    case CLIENT_ABSENT:
        connection_refuse(connection, "trace needs a client", "write an address: homeport trace 198.51.100.7");
        return;
    case CLIENT_WRONG:
        return;
    case CLIENT_GIVEN:
        break;
    }
    if (endpoint_parse(&whole, json_string_value(json_object_get(request, "client"))))
        trace->client.port = whole.port;
    if (connection_traces(connection, NULL) == CONTROL_TRACES || !trace_follow(segment, &trace->client, now_ms)) {
        refuse_more(connection);
        return;
    }
    trace->on = true;
    trace->next = first_of(segment, request);
    trace->beat_ms = now_ms;
    uv_timer_start(&connection->work, on_look, 0, LOOK_EVERY_MS);
    connection_answer(connection, json_pack("{s:b, s:o, s:I}", "ok", 1, "client", json_address(&trace->client), "after",
                                            (json_int_t)trace->next - 1));
}

void trace_end(struct connection *connection)
{
    struct trace *trace = &connection->trace;

    if (!trace->on)
        return;
    trace->on = false;
    if (connection_traces(connection, &trace->client) == 0)
        trace_leave(connection->sources->context->segment, &trace->client);
}
