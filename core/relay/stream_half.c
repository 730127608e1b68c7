/* SPDX-License-Identifier: Apache-2.0 */
/* Copied, not spliced: a pipe saves a third of the time for pieces of 64 KiB (0.57 instead of 0.84 s of a core for a
 * GiB) and nothing for those of a network's packets, and what lies in it could not be handed over.
 *
 * Happy path: a chunk is read and leaves at once. What does not is kept; the next move begins with it. The source's end
 * is read when nothing is unsent any more, and passed on at once (half-close); known to stand behind what is read, it
 * leaves in the same segment.
 * Fails: the source was reset, or an error waits on it -> SOURCE_BROKEN, once what came before has been read
 *        the target takes nothing any more             -> TARGET_BROKEN
 *        no memory for the rest                        -> NO_MEMORY: an octet would be lost */
#include "relay/stream_half.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Octets that were sent, 0 when there is no room; -1: broken. */
static ssize_t send_some(int fd, const uint8_t *data, uint32_t size, int flags)
{
    ssize_t sent;

    do
        sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL | flags);
    while (sent < 0 && errno == EINTR);
    return sent < 0 && errno == EAGAIN ? 0 : sent;
}

/* false: the target is broken. */
static bool send_rest(struct stream_half *half, int to, uint32_t *written)
{
    ssize_t sent = send_some(to, half->rest + half->first, half->size - half->first, 0);

    if (sent < 0)
        return false;
    half->first += (uint32_t)sent;
    *written += (uint32_t)sent;
    if (half->first == half->size)
        stream_half_close(half);
    return true;
}

static enum stream_half_state pass_on(struct stream_half *half, int to, const uint8_t *data, uint32_t size, int flags,
                                      uint32_t *written)
{
    ssize_t sent = send_some(to, data, size, flags);

    if (sent < 0)
        return STREAM_HALF_TARGET_BROKEN;
    *written += (uint32_t)sent;
    if ((uint32_t)sent == size)
        return STREAM_HALF_READS;
    if (!stream_half_expect(half, size - (uint32_t)sent))
        return STREAM_HALF_NO_MEMORY;
    memcpy(half->rest, data + sent, half->size);
    return STREAM_HALF_WRITES;
}

enum stream_half_state stream_half_state(const struct stream_half *half)
{
    if (half->rest != NULL)
        return STREAM_HALF_WRITES;
    return half->shut ? STREAM_HALF_SHUT : STREAM_HALF_READS;
}

static enum stream_half_state shut(struct stream_half *half, int to, bool closes)
{
    half->shut = true;
    if (closes)
        return STREAM_HALF_SHUT;
    return shutdown(to, SHUT_WR) < 0 ? STREAM_HALF_TARGET_BROKEN : STREAM_HALF_SHUT;
}

enum stream_half_state stream_half_move(struct stream_half *half, int from, int to, uint8_t chunk[STREAM_CHUNK],
                                        uint32_t budget, uint32_t known, uint32_t *read, uint32_t *written)
{
    enum stream_half_state state = stream_half_state(half);
    bool ends = (known & STREAM_HALF_ENDS) != 0;

    if (state == STREAM_HALF_WRITES && !send_rest(half, to, written))
        return STREAM_HALF_TARGET_BROKEN;
    state = stream_half_state(half);
    while (state == STREAM_HALF_READS && *read < budget) {
        ssize_t size = recv(from, chunk, STREAM_CHUNK, MSG_DONTWAIT);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            return errno == EAGAIN ? STREAM_HALF_READS : STREAM_HALF_SOURCE_BROKEN;
        if (size == 0)
            return shut(half, to, (known & STREAM_HALF_CLOSES) != 0);
        *read += (uint32_t)size;
        state = pass_on(half, to, chunk, (uint32_t)size, ends ? MSG_MORE : 0, written);
        if (size < (ssize_t)STREAM_CHUNK && !ends) /* that was all, most likely: if not, the loop says so again */
            break;
    }
    return state;
}

bool stream_half_expect(struct stream_half *half, uint32_t size)
{
    half->rest = size > 0 && size <= STREAM_CHUNK ? malloc(size) : NULL;
    half->first = 0;
    half->size = half->rest != NULL ? size : 0;
    return half->rest != NULL;
}

void stream_half_close(struct stream_half *half)
{
    free(half->rest);
    half->rest = NULL;
    half->first = half->size = 0;
}
