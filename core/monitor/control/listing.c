/* SPDX-License-Identifier: Apache-2.0 */
/* sessions, affinity and record: the two big tables. A listing is written in pieces, each made when the one before is
 * out, so that neither a million rows nor a slow reader holds up the loop or takes memory. It is no snapshot: a row
 * that comes or goes meanwhile may be in it or not. */
#include "monitor/control/requests.h"

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/hash.h"
#include "segment/record.h"
#include "segment/session.h"
#include "segment/source.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES 49152u /* a piece ends when it is as long */
#define PIECE_LOOKS 8192u  /* or after so many rows */

const char *service_name(const struct connection *connection, uint64_t identity, uint64_t mask)
{
    const struct topology *topology = connection->sources->context->topology;

    for (uint32_t i = 0; i < topology->service_count; i++)
        if ((topology->services[i].identity & mask) == (identity & mask))
            return topology->services[i].config->name;
    return NULL; /* no longer configured */
}

static const char *profile_name(const struct config *config, uint32_t identity)
{
    for (uint32_t i = 0; i < config->profile_count; i++)
        if ((uint32_t)hash_identity("profile", config->profiles[i].name) == identity)
            return config->profiles[i].name;
    return NULL;
}

static json_int_t ago(uint64_t now_ms, uint64_t then_ms)
{
    return then_ms < now_ms ? (json_int_t)(now_ms - then_ms) : 0;
}

/* null: the route's choice */
static json_t *source_address(const struct segment *segment, uint32_t source)
{
    if (source == SOURCE_ROUTE || source >= SEGMENT_SOURCES || segment->sources[source].address.family == 0)
        return json_null();
    return json_address(&segment->sources[source].address);
}

static json_t *session_object(const struct connection *connection, const struct session_row *row, uint32_t lane)
{
    const struct segment *segment = connection->sources->context->segment;
    uint64_t now = clock_now_ms();
    uint64_t client_ms = atomic_load(&row->client_ms), server_ms = atomic_load(&row->server_ms);
    uint64_t last = client_ms > server_ms ? client_ms : server_ms;
    uint32_t record = atomic_load(&row->record);
    bool proven = (atomic_load(&row->flags) & SESSION_PROVEN) != 0;

    return json_pack("{s:o, s:s?, s:i, s:o, s:i, s:i, s:I, s:I, s:b, s:I, s:I, s:b, s:b, s:o}", "client",
                     json_address(&row->client), "service", service_name(connection, row->service, UINT64_MAX), "lane",
                     (int)lane, "server", json_server(segment, row->server), "server_port", row->server_port,
                     "source_port", row->source_port, "age_ms", ago(now, atomic_load(&row->begun_ms)), "idle_ms",
                     ago(now, last), "answered", server_ms != 0, "bytes_to_server",
                     (json_int_t)atomic_load(&row->bytes_to_server), "bytes_to_client",
                     (json_int_t)atomic_load(&row->bytes_to_client), "proven", proven, "record",
                     record != SEGMENT_NO_INDEX, "source_address", source_address(segment, row->source));
}

/* Seconds left, "held" while a live session watches it, null for never. */
static json_t *time_left(const struct record_view *view, uint32_t watchers, uint32_t now_s)
{
    uint32_t age = record_age_s(view->ref.value, now_s);

    if (watchers > 0)
        return json_string("held");
    if (view->timeout_s == UINT32_MAX)
        return json_null();
    return json_integer(age < view->timeout_s ? view->timeout_s - age : 0);
}

static json_t *record_object(const struct connection *connection, const struct record_view *view)
{
    const struct monitor_context *context = connection->sources->context;
    uint32_t watchers = recount_watchers(connection->sources->recount, view->ref.index);
    uint32_t now_s = (uint32_t)clock_now_s();
    const char *service = service_name(connection, view->service, UINT32_MAX);
    const char *profile = profile_name(context->config, view->profile);

    return json_pack("{s:o, s:o, s:s?, s:s?, s:I, s:I, s:o, s:i, s:b}", "client", json_address(&view->client), "server",
                     json_server(context->segment, RECORD_SERVER(view->ref.value)), "profile", profile, "service",
                     service, "age_s", (json_int_t)(now_s > view->created_s ? now_s - view->created_s : 0), "unused_s",
                     (json_int_t)record_age_s(view->ref.value, now_s), "left", time_left(view, watchers, now_s),
                     "sessions", (int)watchers, "proven", (int)RECORD_PROVEN(view->ref.value));
}

/* The object at the listing's position, which moves on; NULL: nothing to show there. */
static json_t *next_object(struct connection *connection)
{
    struct listing *listing = &connection->listing;
    const struct segment *segment = connection->sources->context->segment;
    uint32_t position = listing->position++;
    struct session_row row;
    struct record_view view;

    if (listing->kind == LISTING_SESSIONS) {
        if (!session_is_live(&segment->rows[position]) || !session_read(&segment->rows[position], &row) ||
            (listing->filtered && !endpoint_names(&listing->client, &row.client)))
            return NULL;
        return session_object(connection, &row, position / segment->rows_per_lane);
    }
    if (!record_read(segment, position, &view) ||
        (listing->filtered && !endpoint_names(&listing->client, &view.client)))
        return NULL;
    return record_object(connection, &view);
}

static uint32_t listing_limit(const struct connection *connection)
{
    const struct segment *segment = connection->sources->context->segment;

    if (connection->listing.kind == LISTING_SESSIONS)
        return segment->lane_count * segment->rows_per_lane;
    return record_capacity(segment);
}

struct piece {
    char *text;
    size_t size, room;
    bool failed;
};

static void append(struct piece *piece, const char *text)
{
    size_t size = strlen(text);

    if (piece->failed || piece->size + size > piece->room) {
        piece->failed = true;
        return;
    }
    memcpy(piece->text + piece->size, text, size);
    piece->size += size;
}

static void append_object(struct connection *connection, struct piece *piece)
{
    json_t *object = next_object(connection);
    char *text = object == NULL ? NULL : json_dumps(object, JSON_COMPACT);

    if (text != NULL) {
        append(piece, connection->listing.some ? "," : "");
        append(piece, text);
        connection->listing.some = true;
    }
    free(text);
    json_decref(object);
}

char *listing_piece(struct connection *connection, size_t *size)
{
    struct listing *listing = &connection->listing;
    struct piece piece = {.room = PIECE_BYTES + 4096}; /* an object is far below 4 KiB */
    uint32_t limit = listing_limit(connection), looks = 0;

    piece.text = malloc(piece.room);
    if (piece.text == NULL)
        return NULL;
    if (!listing->begun)
        append(&piece,
               listing->kind == LISTING_SESSIONS ? "{\"ok\":true,\"sessions\":[" : "{\"ok\":true,\"records\":[");
    listing->begun = true;
    while (listing->position < limit && looks++ < PIECE_LOOKS && piece.size < PIECE_BYTES)
        append_object(connection, &piece);
    if (listing->position >= limit) {
        listing->ended = true;
        append(&piece, "]}\n");
    }
    if (piece.size == 0)
        append(&piece, " "); /* nothing here to show; blanks between values are legal JSON */
    if (piece.failed) {
        free(piece.text);
        return NULL;
    }
    *size = piece.size;
    return piece.text;
}

static void begin_listing(struct connection *connection, const json_t *request, enum listing_kind kind)
{
    struct listing *listing = &connection->listing;
    enum client_given given = request_client(connection, request, &listing->client);

    if (given == CLIENT_WRONG)
        return;
    listing->kind = kind;
    listing->filtered = given == CLIENT_GIVEN;
    connection_list(connection);
}

void answer_sessions(struct connection *connection, const json_t *request)
{
    begin_listing(connection, request, LISTING_SESSIONS);
}

void answer_affinity(struct connection *connection, const json_t *request)
{
    begin_listing(connection, request, LISTING_RECORDS);
}

/* Octets, or -1: no hexadecimal of 1 to HP_KEY_MAX octets. */
static int read_hex(const char *text, uint8_t key[HP_KEY_MAX])
{
    size_t size = text == NULL ? 0 : strlen(text);

    if (size == 0 || size % 2 != 0 || size / 2 > HP_KEY_MAX || strspn(text, "0123456789abcdefABCDEF") != size)
        return -1;
    for (size_t i = 0; i < size / 2; i++) {
        char digits[3] = {text[2 * i], text[2 * i + 1], '\0'};

        key[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return (int)(size / 2);
}

/* What decides whether the record will be honoured. */
static void add_condition(const struct connection *connection, json_t *record, uint32_t server)
{
    const char *state, *health;

    if (server >= SEGMENT_SERVERS)
        return;
    server_condition(connection->sources, server, &state, &health);
    json_object_set_new(record, "server_state", json_string(state));
    json_object_set_new(record, "server_health", json_string(health));
}

void answer_record(struct connection *connection, const json_t *request)
{
    const struct segment *segment = connection->sources->context->segment;
    const char *profile = json_string_value(json_object_get(request, "profile"));
    uint8_t octets[HP_KEY_MAX];
    int size = read_hex(json_string_value(json_object_get(request, "key")), octets);
    struct record_key key;
    struct record_ref ref;
    struct record_view view;
    json_t *record = NULL;

    if (size < 0 || profile == NULL) {
        connection_refuse(connection, "record needs a profile and a key in hexadecimal",
                          "use homeport affinity --explain CLIENT");
        return;
    }
    record_key_make(&key, segment, hash_identity("profile", profile), 0, octets, (uint32_t)size);
    if (record_find(segment, &key, &ref) && record_read(segment, ref.index, &view)) {
        record = record_object(connection, &view);
        add_condition(connection, record, RECORD_SERVER(view.ref.value));
    }
    connection_answer(connection, json_pack("{s:b, s:o?}", "ok", 1, "record", record));
}
