/* SPDX-License-Identifier: Apache-2.0 */
#include "traffic.h"

#include <stdio.h>
#include <stdlib.h>

/* Of all flows, before they have said anything. */
static enum message_step *steps(const struct role_options *options)
{
    enum message_step *step = traffic_zeroed(options->flows, sizeof *step);

    for (uint32_t flow = 0; flow < options->flows; flow++)
        step[flow] = options->begin;
    return step;
}

int role_sink(const struct role_options *options)
{
    struct frames *frames = frames_open(options->device, options->hardware);
    double end = traffic_now() + options->seconds;
    struct datagram datagram;
    uint64_t count, silent;

    while (traffic_now() < end) {
        for (count = silent = 0; frames_receive(frames, &datagram);) {
            if (datagram.destination_port != options->port)
                continue;
            count++;
            if (message_is_silent(datagram.data, datagram.size)) {
                silent++;
                continue;
            }
            message_answer(datagram.data, datagram.size);
            frames_return(frames, &datagram);
        }
        frames_send(frames);
        options->count[0] += count;
        options->count[1] += silent;
        if (count == 0)
            frames_wait(frames, 1);
    }
    frames_close(frames);
    return 0;
}

struct drive {
    const struct role_options *options;
    struct frames *frames;
    uint64_t responses;
    enum message_step *step; /* what each flow is saying */
    uint32_t *waits_for;     /* responses that each flow is waiting for */
    double *began;           /* when it sent its window */
};

static void drive_window(struct drive *self, uint32_t flow, double time)
{
    enum message_step step = self->step[flow];
    uint32_t window = step == MESSAGE_ESP ? self->options->window : 1;

    for (uint32_t i = 0; i < window; i++)
        (void)traffic_say(self->frames, self->options, flow, step);
    self->waits_for[flow] = window;
    self->began[flow] = time;
}

/* A flow that waits for long has lost something: it begins anew. */
static void drive_revive(struct drive *self, double time)
{
    for (uint32_t flow = 0; flow < self->options->flows; flow++) {
        if (time - self->began[flow] >= 0.2)
            drive_window(self, flow, time);
    }
    frames_send(self->frames);
}

static void drive_turn(struct drive *self, double time)
{
    uint32_t flows[FRAMES_VECTOR], done = 0, flow;
    uint64_t before = self->responses;
    struct datagram datagram;
    enum message_step step;

    while (traffic_hear(self->frames, self->options, &datagram, &flow, &step)) {
        self->responses++;
        if (step != self->step[flow] || self->waits_for[flow] == 0 || --self->waits_for[flow] > 0)
            continue;
        if (step < MESSAGE_ESP)
            self->step[flow]++;
        flows[done++] = flow;
    }
    for (uint32_t i = 0; i < done; i++)
        drive_window(self, flows[i], time);
    frames_send(self->frames);
    if (self->responses == before)
        frames_wait(self->frames, 0.01);
}

static void drive_for(struct drive *self, double seconds)
{
    double time = traffic_now(), end = time + seconds, revive = 0;

    for (; time < end; time = traffic_now()) {
        if (time >= revive) {
            drive_revive(self, time);
            revive = time + 0.05;
        }
        drive_turn(self, time);
    }
}

int role_drive(const struct role_options *options)
{
    struct drive self = {.options = options, .frames = frames_open(options->device, options->hardware)};
    uint64_t responses, count;
    double begin, seconds;

    self.step = steps(options);
    self.waits_for = traffic_zeroed(options->flows, sizeof *self.waits_for);
    self.began = traffic_zeroed(options->flows, sizeof *self.began);
    drive_for(&self, options->warmup);
    responses = self.responses;
    count = *options->count;
    begin = traffic_now();
    drive_for(&self, options->seconds);
    seconds = traffic_now() - begin;
    responses = self.responses - responses;
    count = *options->count - count;
    printf("{\"seconds\": %.3f, \"responses\": %llu, \"sink\": %llu, \"all\": %llu}\n", seconds,
           (unsigned long long)responses, (unsigned long long)count, (unsigned long long)self.responses);
    free(self.step);
    free(self.waits_for);
    free(self.began);
    frames_close(self.frames);
    return 0;
}

struct opening { /* flows that are opened, each by its datagrams up to the first ESP */
    const struct role_options *options;
    struct frames *frames;
    enum message_step *step; /* what each flow is saying; MESSAGE_STEPS: all is answered */
    uint32_t next, answers, in_flight;
    double first, last; /* datagram out, answer in */
    double heard;       /* an answer, even if it was there already */
};

static void opening_init(struct opening *self, const struct role_options *options)
{
    *self = (struct opening){.options = options, .frames = frames_open(options->device, options->hardware)};
    self->step = steps(options);
}

static void opening_speak(struct opening *self)
{
    for (; self->in_flight < self->options->window && self->next < self->options->flows; self->next++) {
        if (self->step[self->next] == MESSAGE_STEPS)
            continue;
        (void)traffic_say(self->frames, self->options, self->next, self->step[self->next]);
        self->in_flight++;
    }
    frames_send(self->frames);
}

static void opening_hear(struct opening *self)
{
    enum message_step step;
    struct datagram datagram;
    uint32_t flow;

    while (traffic_hear(self->frames, self->options, &datagram, &flow, &step)) {
        self->heard = traffic_now();
        if (step != self->step[flow])
            continue;
        if (++self->step[flow] < MESSAGE_STEPS) {
            (void)traffic_say(self->frames, self->options, flow, self->step[flow]);
            continue;
        }
        self->answers++;
        self->in_flight -= self->in_flight > 0;
        self->last = self->heard;
    }
    frames_send(self->frames);
}

/* Until every flow is answered. When no answer comes any more, something was lost: the rest is asked again. */
static void open_flows(struct opening *self)
{
    const struct role_options *options = self->options;
    double end = traffic_now() + options->seconds;

    self->first = self->last = self->heard = traffic_now();
    while (self->answers < options->flows && traffic_now() < end) {
        uint32_t before = self->answers;
        opening_speak(self);
        opening_hear(self);
        if (self->answers > before)
            continue;
        frames_wait(self->frames, 0.02);
        if (traffic_now() - self->heard > 0.05) {
            self->next = self->in_flight = 0;
            self->heard = traffic_now();
        }
    }
}

int role_newflows(const struct role_options *options)
{
    struct opening self;

    opening_init(&self, options);
    open_flows(&self);
    printf("{\"answered\": %u, \"seconds\": %.4f}\n", self.answers, self.last - self.first);
    free(self.step);
    frames_close(self.frames);
    return 0;
}

int role_hold(const struct role_options *options)
{
    struct opening self;
    double end = traffic_now() + options->seconds, next;

    opening_init(&self, options);
    open_flows(&self);
    printf("{\"answered\": %u}\n", self.answers);
    fflush(stdout);
    for (uint32_t flow = 0; traffic_now() < end; flow = (flow + 1) % options->flows) {
        next = traffic_now() + options->keepalive / options->flows;
        (void)traffic_say(self.frames, options, flow, MESSAGE_ESP);
        opening_hear(&self);
        while (traffic_now() < next)
            frames_wait(self.frames, next - traffic_now());
    }
    free(self.step);
    frames_close(self.frames);
    return 0;
}
