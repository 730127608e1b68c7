/* SPDX-License-Identifier: Apache-2.0 */
/* Flows that speak in turns, one datagram each: asking for answers, one way, or at a steady rate. */
#include "traffic.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STUCK 0.03    /* seconds without news: what is on its way is lost */
#define PAUSE 0.00002 /* while all is on its way and nothing is heard of it */
#define TICK 0.0001   /* at a steady rate: what is due leaves together */
#define SAMPLES (1u << 22)

struct round {
    const struct role_options *options;
    struct frames *frames;
    uint64_t sent, answers;
    uint64_t arrived, waits_for; /* of all that was sent; waits_for less those that are lost */
    double heard;
    uint32_t next;
    uint32_t *samples, sample_count; /* tenths of a microsecond; NULL: none are wanted */
};

static uint64_t real_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_REALTIME, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void round_open(struct round *self, const struct role_options *options)
{
    *self = (struct round){
        .options = options, .frames = frames_open(options->device, options->hardware), .heard = traffic_now()};
}

static void say_next(struct round *self, bool silent, uint64_t time_ns)
{
    uint8_t *data = traffic_say(self->frames, self->options, self->next, MESSAGE_ESP);

    message_stamp(data, time_ns);
    if (silent)
        message_silence(data);
    self->next = (self->next + 1) % self->options->flows;
    self->sent++;
}

static void note(struct round *self, const struct datagram *datagram)
{
    uint64_t said_ns = message_time(datagram->data);

    self->answers++;
    if (self->samples != NULL && self->sample_count < SAMPLES && datagram->time_ns > said_ns)
        self->samples[self->sample_count++] = (uint32_t)((datagram->time_ns - said_ns) / 100);
}

static void hear(struct round *self)
{
    struct datagram datagram;
    enum message_step step;
    uint32_t flow;

    while (traffic_hear(self->frames, self->options, &datagram, &flow, &step))
        note(self, &datagram);
}

/* As many on their way as the window has; what is heard of: answers, or what the sink has counted. */
static void turn_windowed(struct round *self, bool silent, double time)
{
    uint64_t arrived = silent ? self->options->count[1] : self->answers;
    uint64_t time_ns = real_ns();

    if (arrived != self->arrived)
        self->heard = time;
    self->arrived = arrived;
    if (time - self->heard > STUCK) {
        self->waits_for = arrived;
        self->heard = time;
    }
    for (uint32_t i = 0; i < FRAMES_VECTOR && self->waits_for < arrived + self->options->window; i++) {
        say_next(self, silent, time_ns);
        self->waits_for++;
    }
    frames_send(self->frames);
    hear(self);
    if (self->waits_for >= arrived + self->options->window && (silent || self->answers == arrived))
        frames_wait(self->frames, silent ? PAUSE : STUCK);
}

/* Who is late catches up, but for what is older than STUCK. */
static void turn_paced(struct round *self, bool silent, double time, double *since, uint64_t *done)
{
    double rate = self->options->rate, due = (time - *since) * rate - (double)*done;

    if (due > STUCK * rate + FRAMES_VECTOR) {
        *since = time;
        *done = 0;
        due = 1;
    }
    for (; due >= 1; due--, ++*done) {
        uint64_t time_ns = real_ns();
        say_next(self, silent, time_ns);
    }
    frames_send(self->frames);
    hear(self);
    frames_send(self->frames);
    frames_wait(self->frames, TICK);
}

/* At least so many have been sent, if that takes no longer than 10 s. */
static void round_for(struct round *self, bool silent, double seconds, uint64_t least)
{
    double time = traffic_now(), since = time, end = time + seconds, limit = end + 10;
    uint64_t done = 0, before = self->sent;

    while (time < end || (self->sent - before < least && time < limit)) {
        if (self->options->rate > 0)
            turn_paced(self, silent, time, &since, &done);
        else
            turn_windowed(self, silent, time);
        time = traffic_now();
    }
}

static int sample_compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

    return a < b ? -1 : a > b;
}

static double percentile(struct round *self, double share)
{
    if (self->sample_count == 0)
        return 0;
    return self->samples[(uint32_t)((self->sample_count - 1) * share)] / 10.0;
}

static int run(const struct role_options *options, bool silent, bool samples)
{
    struct round self;
    uint64_t sent, answers, count;
    double begin, seconds;

    round_open(&self, options);
    self.arrived = self.waits_for = silent ? options->count[1] : 0;
    round_for(&self, silent, options->warmup, 2ull * options->flows);
    if (samples)
        self.samples = traffic_zeroed(SAMPLES, sizeof *self.samples);
    sent = self.sent;
    answers = self.answers;
    count = options->count[silent];
    printf("{\"warm\": true}\n");
    fflush(stdout);
    begin = traffic_now();
    round_for(&self, silent, options->seconds, 0);
    seconds = traffic_now() - begin;
    sent = self.sent - sent;
    answers = self.answers - answers;
    count = options->count[silent] - count;
    if (samples)
        qsort(self.samples, self.sample_count, sizeof *self.samples, sample_compare);
    printf("{\"seconds\": %.3f, \"sent\": %llu, \"responses\": %llu, \"sink\": %llu, \"p50\": %.1f, \"p99\": %.1f}\n",
           seconds, (unsigned long long)sent, (unsigned long long)answers, (unsigned long long)count,
           percentile(&self, 0.5), percentile(&self, 0.99));
    free(self.samples);
    frames_close(self.frames);
    return 0;
}

int role_ask(const struct role_options *options)
{
    return run(options, false, options->rate > 0);
}

int role_bulk(const struct role_options *options)
{
    return run(options, true, false);
}
