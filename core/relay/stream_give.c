/* SPDX-License-Identifier: Apache-2.0 */
/* Streams change hands (handover.c). Giver: both sockets of each stream with its row, its state, and how many octets it
 * has read of each side that the other has not taken yet; then these octets, in pieces. Taker: makes each stream again,
 * and adopts it with its row once the lane is its own.
 * Fails: sockets or octets are missing (the giver died on the way, no descriptor or memory was left, nonsense)
 *                                            -> the stream is reset: nobody could go on where it stood
 *        a socket that is not the row's             -> likewise */
#include "base/endpoint.h"
#include "relay/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS 4u          /* of a stream in a message: row, STREAM_ bits, unsent octets of both directions */
#define PIECE (32u << 10) /* octets in a message: some fit into the pair's queue */
#define STREAM_CONNECTING 1u
#define STREAM_TO_SERVER_SHUT 2u
#define STREAM_TO_CLIENT_SHUT 4u

/* ---- giver ---- */

static uint32_t unsent(const struct stream_half *half)
{
    return half->size - half->first;
}

static void describe(const struct stream *stream, uint32_t row, uint32_t words[WORDS])
{
    words[0] = row;
    words[1] = (stream->connect_ms != 0 ? STREAM_CONNECTING : 0) |
               (stream->to_server.shut ? STREAM_TO_SERVER_SHUT : 0) |
               (stream->to_client.shut ? STREAM_TO_CLIENT_SHUT : 0);
    words[2] = unsent(&stream->to_server);
    words[3] = unsent(&stream->to_client);
}

bool streams_give(const struct lane *lane, struct stream_place *place, struct socket_message *message, int *descriptors,
                  uint32_t *count)
{
    *count = 0;
    *message = (struct socket_message){.kind = SOCKET_MESSAGE_STREAMS, .lane = lane->number};
    for (; place->row < lane->row_count && message->count + WORDS <= SOCKET_MESSAGE_ROWS; place->row++) {
        const struct path *path = lane->paths[place->row];

        if (path == NULL || path->stream == NULL)
            continue;
        describe(path->stream, place->row, &message->rows[message->count]);
        message->count += WORDS;
        descriptors[(*count)++] = path->stream->client.watched.fd;
        descriptors[(*count)++] = path->stream->server.watched.fd;
    }
    return message->count > 0;
}

/* From the place on. NULL: no stream has an unsent octet more. */
static const struct stream_half *next_rest(const struct lane *lane, struct stream_place *place)
{
    for (; place->row < lane->row_count; *place = (struct stream_place){.row = place->row + 1}) {
        const struct path *path = lane->paths[place->row];

        for (; path != NULL && path->stream != NULL && place->half < 2; place->half++, place->offset = 0) {
            const struct stream_half *half = place->half == 0 ? &path->stream->to_server : &path->stream->to_client;
            if (place->offset < unsent(half))
                return half;
        }
    }
    return NULL;
}

bool streams_give_rest(const struct lane *lane, struct stream_place *place, struct socket_message *message,
                       const uint8_t **data, uint32_t *size)
{
    const struct stream_half *half = next_rest(lane, place);
    uint32_t left;

    if (half == NULL)
        return false;
    *message = (struct socket_message){
        .kind = SOCKET_MESSAGE_REST, .lane = lane->number, .count = 2, .rows = {place->row, place->half}};
    left = unsent(half) - place->offset;
    *data = half->rest + half->first + place->offset;
    *size = left < PIECE ? left : PIECE;
    place->offset += *size;
    return true;
}

/* ---- taker ---- */

static bool expect(struct stream_half *half, uint32_t size, bool is_shut)
{
    half->shut = is_shut;
    return size == 0 || (!is_shut && stream_half_expect(half, size));
}

static struct stream *stream_comes(const struct relay *relay, const uint32_t words[WORDS], int client, int server)
{
    struct stream *stream = stream_make(client, server);

    if (stream == NULL)
        return NULL;
    stream->connect_ms = (words[1] & STREAM_CONNECTING) != 0 ? relay->now_ms : 0;
    if (!expect(&stream->to_server, words[2], (words[1] & STREAM_TO_SERVER_SHUT) != 0) ||
        !expect(&stream->to_client, words[3], (words[1] & STREAM_TO_CLIENT_SHUT) != 0)) {
        stream->client.watched.fd = stream->server.watched.fd = -1;
        stream_free(stream);
        return NULL;
    }
    return stream;
}

void streams_come(struct lane *lane, const struct socket_message *message, const int *descriptors, uint32_t count)
{
    uint32_t used = 0;

    if (lane->coming == NULL)
        lane->coming = calloc(lane->row_count + 1u, sizeof(struct stream *));
    for (uint32_t i = 0; i + WORDS <= message->count && used + 2 <= count; i += WORDS, used += 2) {
        uint32_t row = message->rows[i];
        struct stream *stream = NULL;

        if (lane->coming != NULL && row < lane->row_count && lane->coming[row] == NULL)
            stream = stream_comes(lane->relay, &message->rows[i], descriptors[used], descriptors[used + 1]);
        if (stream != NULL) {
            lane->coming[row] = stream;
        } else {
            close(descriptors[used]);
            close(descriptors[used + 1]);
        }
    }
    while (used < count)
        close(descriptors[used++]);
}

/* Until a stream is whole, `first` of its halves counts what has come. */
void stream_rest_comes(struct lane *lane, const struct socket_message *message, const uint8_t *data, uint32_t size)
{
    uint32_t row = message->count == 2 ? message->rows[0] : UINT32_MAX;
    struct stream *stream = lane->coming != NULL && row < lane->row_count ? lane->coming[row] : NULL;
    struct stream_half *half;

    if (stream == NULL)
        return;
    half = message->rows[1] == 0 ? &stream->to_server : &stream->to_client;
    if (half->rest == NULL || size > half->size - half->first)
        return;
    memcpy(half->rest + half->first, data, size);
    half->first += size;
}

static bool is_whole(struct stream_half *half)
{
    if (half->first != half->size)
        return false;
    half->first = 0;
    return true;
}

/* What is not connected yet, or no more, has no peer: what is wrong with it the loop will say. */
static bool peer_is(int fd, const struct hp_endpoint *expected)
{
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    struct hp_endpoint peer;

    if (getpeername(fd, (struct sockaddr *)&name, &size) < 0)
        return errno == ENOTCONN;
    return endpoint_from_sockaddr(&peer, (const struct sockaddr *)&name, size) && endpoint_equal(&peer, expected);
}

struct path *stream_adopt(struct lane *lane, struct session_row *row, struct listener *listener, const char **why)
{
    uint32_t position = (uint32_t)(row - lane->rows);
    struct stream *stream = lane->coming != NULL ? lane->coming[position] : NULL;
    const struct hp_endpoint server = upstream_server(lane->relay->segment, row);
    struct path *path;

    *why = "its worker has died";
    if (stream == NULL || !is_whole(&stream->to_server) || !is_whole(&stream->to_client))
        return NULL;
    *why = "its sockets are others";
    if (!peer_is(stream->client.watched.fd, &row->client) || !peer_is(stream->server.watched.fd, &server))
        return NULL;
    *why = "no memory";
    path = path_adopt(lane, row, listener);
    if (path == NULL)
        return NULL;
    lane->coming[position] = NULL;
    stream->path = path;
    path->stream = stream;
    stream->handed_over = true;
    stream->first = row->server;
    if (stream_watch(stream) == 0)
        return path;
    path_end(path, *why);
    *why = NULL;
    return NULL;
}

void streams_forget(struct lane *lane)
{
    for (uint32_t i = 0; lane->coming != NULL && i < lane->row_count; i++)
        stream_free(lane->coming[i]);
    free(lane->coming);
    lane->coming = NULL;
}
