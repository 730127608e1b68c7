/* SPDX-License-Identifier: Apache-2.0 */
/* One direction of a TCP stream: octets from one socket to another, and the end of them. Knows nothing of sessions.
 *
 * What the target does not take at once is the rest: at most a chunk, and memory only as long as there is one. Nothing
 * is read while there is a rest, so the source is stopped by its own window. */
#ifndef RELAY_STREAM_HALF_H
#define RELAY_STREAM_HALF_H

#include <stdbool.h>
#include <stdint.h>

#define STREAM_CHUNK (64u << 10)

struct stream_half {
    uint8_t *rest;        /* NULL: nothing is unsent */
    uint32_t first, size; /* of the rest: what is unsent begins at first and ends at size */
    bool shut;            /* the source has sent all it will, and the target has been told so */
};

enum stream_half_state {
    STREAM_HALF_READS,  /* waits for the source */
    STREAM_HALF_WRITES, /* waits for the target */
    STREAM_HALF_SHUT,   /* nothing comes any more */
    STREAM_HALF_SOURCE_BROKEN,
    STREAM_HALF_TARGET_BROKEN,
    STREAM_HALF_NO_MEMORY /* for the rest: the stream cannot go on */
};

/* What is known of the two sockets. */
#define STREAM_HALF_ENDS 1u   /* the source has sent its end: what is read is the last (EPOLLRDHUP) */
#define STREAM_HALF_CLOSES 2u /* the target is closed as soon as it has all: that tells it the end as well */

/* What it waits for. */
enum stream_half_state stream_half_state(const struct stream_half *half);
/* Moves what can be moved without waiting, about `budget` octets of it, through the chunk, which is anybody's
 * afterwards. read, written: octets. */
enum stream_half_state stream_half_move(struct stream_half *half, int from, int to, uint8_t chunk[STREAM_CHUNK],
                                        uint32_t budget, uint32_t known, uint32_t *read, uint32_t *written);
/* The rest as another process had it, octet by octet: room for `size`. false: no memory, or more than a chunk. */
bool stream_half_expect(struct stream_half *half, uint32_t size);
void stream_half_close(struct stream_half *half);

#endif
