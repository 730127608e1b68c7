/* SPDX-License-Identifier: Apache-2.0 */
/* The verb trace: what it tells of what was posted, and what it makes of holes, of a ring that ran over and of nonsense
 * from a hostile process. */
#include "fixture.h"

#include "base/clock.h"
#include "base/hash.h"
#include "monitor/control/control.h"
#include "segment/trace.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct fixture fixture;

struct tracing {
    int fd;
    char text[1 << 20];
    size_t size;
    const char *wanted;
    bool ended;
};
static struct tracing tracing;

static void set_up(void)
{
    fixture_open(&fixture);
    fixture_start(&fixture);
    tracing = (struct tracing){.fd = -1};
}

static void tear_down(void)
{
    if (tracing.fd >= 0)
        close(tracing.fd);
    fixture_close(&fixture);
}

TestSuite(trace, .init = set_up, .fini = tear_down, .timeout = 60);

static void read_more(struct tracing *self)
{
    ssize_t got;

    while ((got = recv(self->fd, self->text + self->size, sizeof self->text - 1 - self->size, 0)) > 0)
        self->size += (size_t)got;
    self->ended = self->ended || got == 0;
    self->text[self->size] = '\0';
}

static bool has_come(struct fixture *unused, void *arg)
{
    struct tracing *self = arg;

    (void)unused;
    read_more(self);
    return strstr(self->text, self->wanted) != NULL;
}

static bool has_ended(struct fixture *unused, void *arg)
{
    struct tracing *self = arg;

    (void)unused;
    read_more(self);
    return self->ended;
}

static void expect(const char *text)
{
    tracing.wanted = text;
    cr_assert(fixture_until(&fixture, has_come, &tracing), "no %s in: %.4000s", text, tracing.text);
}

static void ask(struct tracing *self, const char *line)
{
    self->fd = fixture_connect(&fixture);
    cr_assert_eq(send(self->fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
    cr_assert_eq(send(self->fd, "\n", 1, MSG_NOSIGNAL), 1);
}

static void begin(const char *client)
{
    char line[128];

    snprintf(line, sizeof line, "{\"verb\":\"trace\",\"client\":\"%s\"}", client);
    ask(&tracing, line);
    expect("\"ok\":true");
}

static struct trace_event event_of(uint8_t last, uint16_t port, enum trace_kind kind)
{
    struct trace_event event = {.at_ms = clock_now_ms(),
                                .client = {.address = {198, 51, 100, last}, .port = port, .family = 4},
                                .kind = (uint16_t)kind,
                                .server = (uint16_t)fixture.slots[1],
                                .worker = 1,
                                .lane = 3};

    event.service = hash_identity("service", "ike");
    return event;
}

static struct hp_endpoint client_of(uint8_t last)
{
    return event_of(last, 0, TRACE_PROVEN).client;
}

static void post(uint8_t last, uint16_t port, const char *text)
{
    struct trace_event event = event_of(last, port, TRACE_SESSION_BEGUN);

    trace_text(&event, text);
    trace_post(fixture.segment, &event);
}

Test(trace, tells_what_was_posted_of_its_client_alone)
{
    begin("198.51.100.7");
    post(8, 500, "of another");
    post(7, 500, "new client");
    expect("\"client\":\"198.51.100.7:500\",\"service\":\"ike\",\"server\":\"vpn2\"");
    expect("\"reason\":\"new client\"");
    cr_assert_null(strstr(tracing.text, "of another"));
}

Test(trace, of_a_port_tells_of_that_one_and_of_the_client_as_a_whole)
{
    struct trace_event event = event_of(7, 0, TRACE_RECORD_EVICTED);

    begin("198.51.100.7:4500");
    post(7, 500, "of another port");
    post(7, 4500, "of this port");
    trace_post(fixture.segment, &event);
    expect("record evicted");
    cr_assert_not_null(strstr(tracing.text, "of this port"));
    cr_assert_null(strstr(tracing.text, "of another port"));
}

Test(trace, tells_a_loss_with_its_counter_and_why)
{
    struct trace_event event = event_of(7, 500, TRACE_LOSS);

    event.code = LOSS_refused_no_server;
    event.server = UINT16_MAX;
    begin("198.51.100.7");
    trace_post(fixture.segment, &event);
    expect("\"event\":\"refused\"");
    expect("\"reason\":\"refused_no_server\",\"why\":\"no server may serve, or none accepts\"");
    event.code = LOSS_dropped_stranger;
    trace_post(fixture.segment, &event);
    expect("\"event\":\"dropped\"");
}

Test(trace, goes_on_behind_what_its_reader_has_seen)
{
    post(7, 500, "one");
    post(7, 500, "two");
    post(7, 500, "three");
    ask(&tracing, "{\"verb\":\"trace\",\"client\":\"198.51.100.7\",\"after\":1}");
    expect("three");
    cr_assert_not_null(strstr(tracing.text, "\"two\""));
    cr_assert_null(strstr(tracing.text, "\"one\""));
}

Test(trace, goes_on_from_the_first_event)
{
    post(7, 500, "one");
    ask(&tracing, "{\"verb\":\"trace\",\"client\":\"198.51.100.7\",\"after\":0}");
    expect("\"one\"");
}

/* A ring that has begun anew, or nonsense. */
Test(trace, begins_now_behind_what_has_never_been)
{
    post(7, 500, "before");
    ask(&tracing, "{\"verb\":\"trace\",\"client\":\"198.51.100.7\",\"after\":9000}");
    expect("\"after\":1}");
    post(7, 500, "later");
    expect("later");
    cr_assert_null(strstr(tracing.text, "before"));
}

Test(trace, passes_over_what_a_killed_writer_has_left)
{
    begin("198.51.100.7");
    atomic_fetch_add(&fixture.segment->traces->last, 1);
    post(7, 500, "behind the hole");
    expect("behind the hole");
    expect("\"event\":\"events lost\",\"count\":1}");
}

Test(trace, says_how_many_were_lost_when_the_ring_ran_over)
{
    begin("198.51.100.7");
    for (uint32_t i = 0; i < SEGMENT_TRACE_EVENTS + 10; i++)
        post(7, 500, "one of many");
    post(7, 500, "the last one");
    expect("the last one");
    expect("\"event\":\"events lost\",\"count\":11}");
}

Test(trace, nonsense_of_a_hostile_process_is_bounded_and_made_printable)
{
    struct trace_event event;

    begin("198.51.100.7");
    for (uint32_t i = 0; i < 200; i++) {
        memset(&event, (int)(i * 37 + 1), sizeof event);
        event.client = event_of(7, 500, TRACE_PROVEN).client;
        event.kind = (uint16_t)i;
        event.code = (uint16_t)(i * 1021);
        trace_post(fixture.segment, &event);
    }
    atomic_fetch_add(&fixture.segment->traces->last, UINT64_MAX / 2);
    for (uint32_t i = 0; i < SEGMENT_TRACES; i++)
        memset((void *)&fixture.segment->traces->watches[i], 0xff, sizeof fixture.segment->traces->watches[i]);
    expect("events lost");
    for (size_t i = 0; i < tracing.size; i++)
        cr_assert(tracing.text[i] == '\n' || (tracing.text[i] >= 0x20 && tracing.text[i] < 0x7f));
    for (char *line = strtok(tracing.text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, 0, NULL);
        cr_assert_not_null(object, "%s", line);
        json_decref(object);
    }
}

Test(trace, follows_no_more_when_its_reader_has_gone)
{
    struct tracing other = {.fd = -1};
    struct hp_endpoint client = client_of(7);

    begin("198.51.100.7");
    ask(&other, "{\"verb\":\"trace\",\"client\":\"198.51.100.7\"}");
    other.wanted = "\"ok\":true";
    cr_assert(fixture_until(&fixture, has_come, &other));
    close(other.fd);
    fixture_run(&fixture, 300);
    cr_assert(trace_wants(fixture.segment, &client, clock_now_ms()), "the other one is still there");
    close(tracing.fd);
    tracing.fd = -1;
    for (uint32_t i = 0; i < 100 && trace_wants(fixture.segment, &client, clock_now_ms()); i++)
        fixture_run(&fixture, 20);
    cr_assert_not(trace_wants(fixture.segment, &client, clock_now_ms()));
    cr_assert_not(trace_is_on(fixture.segment, clock_now_ms()));
}

Test(trace, the_next_monitor_finds_the_client_followed)
{
    struct hp_endpoint client = client_of(7);

    begin("198.51.100.7");
    post(7, 500, "seen");
    expect("\"seen\"");
    fixture_stop(&fixture);
    cr_assert(trace_wants(fixture.segment, &client, clock_now_ms()));
    post(7, 500, "between the two");
    fixture_start(&fixture);
    close(tracing.fd);
    ask(&tracing, "{\"verb\":\"trace\",\"client\":\"198.51.100.7\",\"after\":1}");
    expect("between the two");
}

Test(trace, more_than_so_many_are_refused_and_the_others_answered)
{
    static struct tracing many[CONTROL_TRACES];
    char line[128];

    for (uint32_t i = 0; i < CONTROL_TRACES; i++) {
        snprintf(line, sizeof line, "{\"verb\":\"trace\",\"client\":\"198.51.100.%u\"}", i);
        ask(&many[i], line);
        many[i].wanted = "\"ok\":true";
        cr_assert(fixture_until(&fixture, has_come, &many[i]), "%u: %s", i, many[i].text);
    }
    ask(&tracing, "{\"verb\":\"trace\",\"client\":\"198.51.100.99\"}");
    expect("no room for another");
    cr_assert(fixture_until(&fixture, has_ended, &tracing));
    post(3, 500, "still told");
    many[3].wanted = "still told";
    cr_assert(fixture_until(&fixture, has_come, &many[3]));
    for (uint32_t i = 0; i < CONTROL_TRACES; i++)
        close(many[i].fd);
}

Test(trace, needs_an_address)
{
    ask(&tracing, "{\"verb\":\"trace\"}");
    expect("trace needs a client");
    close(tracing.fd);
    ask(&tracing, "{\"verb\":\"trace\",\"client\":\"vpn.example\"}");
    expect("the client is no address");
    cr_assert_not(trace_is_on(fixture.segment, clock_now_ms()));
}

Test(trace, a_reader_that_does_not_read_is_let_go_and_holds_nobody_up)
{
    json_t *answer;

    begin("198.51.100.7");
    for (uint32_t round = 0; round < 40; round++) {
        for (uint32_t i = 0; i < 1000; i++)
            post(7, 500, "nobody reads this");
        fixture_run(&fixture, 110);
        if (round % 10 == 0) {
            answer = fixture_ask(&fixture, "{\"verb\":\"status\"}");
            cr_assert(json_is_true(json_object_get(answer, "ok")));
            json_decref(answer);
        }
    }
    fixture_run(&fixture, CONTROL_TIMEOUT_MS);
    cr_assert(fixture_until(&fixture, has_ended, &tracing), "five seconds are enough");
}
