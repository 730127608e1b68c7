/* SPDX-License-Identifier: Apache-2.0 */
#include "traffic.h"

#include <err.h>
#include <stdlib.h>
#include <time.h>

double traffic_now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void *traffic_zeroed(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        err(1, "calloc");
    return memory;
}

uint8_t *traffic_say(struct frames *frames, const struct role_options *options, uint32_t flow, enum message_step step)
{
    struct datagram datagram = {
        .source = options->from + flow,
        .destination = options->to,
        .source_port = options->port,
        .destination_port = options->port,
        .size = options->size,
    };
    uint8_t *data = frames_add(frames, &datagram);

    message_write(data, datagram.size, datagram.source, step);
    return data;
}

bool traffic_hear(struct frames *frames, const struct role_options *options, struct datagram *datagram, uint32_t *flow,
                  enum message_step *step)
{
    while (frames_receive(frames, datagram)) {
        *flow = datagram->destination - options->from;
        *step = message_step(datagram->data, datagram->size);
        if (datagram->source == options->to && *flow < options->flows)
            return true;
    }
    return false;
}
