/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct fixture fixture;

static void set_up(void)
{
    fixture_open(&fixture);
    fixture_start(&fixture);
}

static void tear_down(void)
{
    fixture_close(&fixture);
}

TestSuite(control, .init = set_up, .fini = tear_down, .timeout = 30);

static bool is_ok(const json_t *answer)
{
    return json_is_true(json_object_get(answer, "ok"));
}

static void expect_refusal(json_t *answer, const char *words)
{
    const char *error = json_string_value(json_object_get(answer, "error"));

    cr_assert_not_null(answer, "no answer");
    cr_assert_not(is_ok(answer));
    cr_assert(error != NULL && strstr(error, words) != NULL, "%s", error);
    cr_assert_gt(strlen(json_string_value(json_object_get(answer, "next"))), 0);
    json_decref(answer);
}

static const json_t *find(const json_t *array, const char *key, const char *value)
{
    const json_t *item;
    size_t i;

    json_array_foreach(array, i,
                       item) if (strcmp(json_string_value(json_object_get(item, key)), value) == 0) return item;
    return NULL;
}

Test(control, status_names_what_is_missing)
{
    json_t *answer = fixture_ask(&fixture, "{\"verb\":\"status\"}");
    const json_t *reasons = json_object_get(answer, "reasons");

    cr_assert(is_ok(answer));
    cr_assert(json_is_false(json_object_get(answer, "healthy")), "neither master nor workers are here");
    cr_assert_geq(json_array_size(reasons), 3);
    cr_assert_eq(json_integer_value(json_object_get(answer, "workers")), 2);
    cr_assert_not_null(json_object_get(json_object_get(answer, "counters"), "probes_sent"));
    cr_assert_eq(json_array_size(json_object_get(answer, "listeners")), FIXTURE_SERVICES);
    json_decref(answer);
}

static uint32_t stand_in(enum process_role role, uint32_t number, uint64_t turned_ms)
{
    uint32_t slot = process_begin(fixture.segment, role, number);

    atomic_store(&fixture.segment->processes[slot].pid, getpid());
    atomic_store(&fixture.segment->processes[slot].started_ms, turned_ms);
    atomic_store(&fixture.segment->processes[slot].loop_ms, turned_ms);
    return slot;
}

static bool healthy(void)
{
    json_t *answer = fixture_ask(&fixture, "{\"verb\":\"status\"}");
    bool result = json_is_true(json_object_get(answer, "healthy"));

    json_decref(answer);
    return result;
}

Test(control, status_is_healthy_only_while_every_loop_turns)
{
    uint32_t worker;

    atomic_store(&fixture.segment->processes[fixture.self].pid, getpid());
    atomic_store(&fixture.segment->processes[fixture.self].loop_ms, clock_now_ms());
    stand_in(PROCESS_MASTER, 0, clock_now_ms());
    stand_in(PROCESS_WORKER, 0, clock_now_ms());
    cr_assert_not(healthy(), "worker 1 is missing");
    worker = stand_in(PROCESS_WORKER, 1, clock_now_ms());
    cr_assert(healthy());
    atomic_store(&fixture.segment->processes[worker].started_ms, clock_now_ms() - 7000);
    atomic_store(&fixture.segment->processes[worker].loop_ms, clock_now_ms() - 6000);
    cr_assert_not(healthy(), "worker 1 has not turned for six seconds");
    atomic_store(&fixture.segment->processes[worker].loop_ms, clock_now_ms());
    cr_assert(healthy());
    atomic_store(&fixture.segment->processes[worker].pid, 0x7ffffffe);
    cr_assert_not(healthy(), "worker 1 is dead");
    stand_in(PROCESS_WORKER, 1, clock_now_ms());
    cr_assert(healthy(), "the dead one is a reload's, and not reaped yet");
}

Test(control, servers_shows_state_health_and_load)
{
    json_t *answer, *probe;
    const json_t *server;
    uint32_t index;

    fixture_stop(&fixture);
    fixture.servers[1].state = SERVER_DRAIN;
    fixture.pools[0].health.interval_ms = 3600000;
    fixture_probe_port(&fixture, 0, 9);
    fixture_start(&fixture);
    fixture_session(&fixture, 1, 7, "ike", 1, NULL);
    index = server_probe_find(fixture.segment, fixture.slots[1], 17, 9);
    strcpy(fixture.segment->servers[fixture.slots[1]].probes[index].reason, "port unreachable (ICMP)");
    atomic_store(&fixture.segment->servers[fixture.slots[1]].probes[index].known, 1);
    server_set_down(fixture.segment, fixture.slots[1], index, true);
    fixture_recount(&fixture);
    answer = fixture_ask(&fixture, "{\"verb\":\"servers\"}");
    server = find(json_object_get(answer, "servers"), "name", "vpn2");
    cr_assert_not_null(server);
    cr_assert_str_eq(json_string_value(json_object_get(server, "state")), "drain");
    cr_assert_str_eq(json_string_value(json_object_get(server, "health")), "down");
    cr_assert_str_eq(json_string_value(json_object_get(server, "address")), "127.0.0.2");
    cr_assert_eq(json_integer_value(json_object_get(server, "sessions")), 1);
    probe = json_array_get(json_object_get(server, "probes"), 0);
    cr_assert_str_eq(json_string_value(json_object_get(probe, "reason")), "port unreachable (ICMP)");
    json_decref(answer);
}

Test(control, servers_says_when_a_service_has_none_that_is_enabled_and_up)
{
    json_t *answer = fixture_ask(&fixture, "{\"verb\":\"servers\"}");

    cr_assert_eq(json_array_size(json_object_get(answer, "notes")), 0);
    json_decref(answer);
    for (uint32_t i = 0; i < 3; i++)
        server_set_state(fixture.segment, fixture.slots[i], SERVER_DISABLED, true);
    answer = fixture_ask(&fixture, "{\"verb\":\"servers\"}");
    cr_assert_geq(json_array_size(json_object_get(answer, "notes")), 1);
    cr_assert_not_null(
        strstr(json_string_value(json_array_get(json_object_get(answer, "notes"), 0)), "no enabled server is up"));
    json_decref(answer);
}

Test(control, a_server_that_left_the_file_is_listed_while_it_has_sessions)
{
    struct hp_endpoint address = {.address = {127, 0, 0, 9}, .family = 4};
    uint32_t slot = server_assign(fixture.segment, "old", &address);
    struct session_row *row = fixture_session(&fixture, 1, 7, "ike", 0, NULL);
    json_t *answer;
    const json_t *server;

    server_set_state(fixture.segment, slot, SERVER_ENABLED, false);
    row->server = (uint16_t)slot;
    fixture_recount(&fixture);
    answer = fixture_ask(&fixture, "{\"verb\":\"servers\"}");
    server = find(json_object_get(answer, "servers"), "name", "old");
    cr_assert_not_null(server);
    cr_assert(json_is_false(json_object_get(server, "configured")));
    json_decref(answer);
    session_end(row);
    fixture_recount(&fixture);
    answer = fixture_ask(&fixture, "{\"verb\":\"servers\"}");
    cr_assert_null(find(json_object_get(answer, "servers"), "name", "old"));
    json_decref(answer);
}

Test(control, sessions_can_be_asked_for_one_client)
{
    json_t *answer;
    const json_t *session;

    fixture_session(&fixture, 1, 7, "ike", 0, NULL);
    fixture_session(&fixture, 2, 8, "nat-t", 1, NULL);
    answer = fixture_ask(&fixture, "{\"verb\":\"sessions\",\"client\":\"198.51.100.8\"}");
    cr_assert_eq(json_array_size(json_object_get(answer, "sessions")), 1);
    session = json_array_get(json_object_get(answer, "sessions"), 0);
    cr_assert_str_eq(json_string_value(json_object_get(session, "client")), "198.51.100.8:10002");
    cr_assert_str_eq(json_string_value(json_object_get(session, "server")), "vpn2");
    cr_assert_str_eq(json_string_value(json_object_get(session, "service")), "nat-t");
    cr_assert_eq(json_integer_value(json_object_get(session, "source_port")), 20002);
    json_decref(answer);
    expect_refusal(fixture_ask(&fixture, "{\"verb\":\"sessions\",\"client\":\"vpn.example\"}"), "no address");
}

Test(control, a_listing_of_thousands_arrives_whole)
{
    json_t *answer;

    for (uint32_t i = 0; i < 4096; i++)
        fixture_session(&fixture, i, (uint8_t)i, "ike", i % 3, NULL);
    answer = fixture_ask(&fixture, "{\"verb\":\"sessions\"}");
    cr_assert_eq(json_array_size(json_object_get(answer, "sessions")), 4096);
    json_decref(answer);
    answer = fixture_ask(&fixture, "{\"verb\":\"affinity\"}");
    cr_assert_eq(json_array_size(json_object_get(answer, "records")), 0);
    cr_assert(is_ok(answer));
    json_decref(answer);
}

Test(control, affinity_says_what_holds_a_record)
{
    struct record_ref held = fixture_record(&fixture, 7, 1, 180, 10);
    const json_t *record;
    json_t *answer;

    fixture_record(&fixture, 8, 2, 180, 100);
    fixture_session(&fixture, 1, 7, "ike", 1, &held);
    fixture_session(&fixture, 2, 7, "nat-t", 1, &held);
    fixture_recount(&fixture);
    answer = fixture_ask(&fixture, "{\"verb\":\"affinity\"}");
    record = find(json_object_get(answer, "records"), "client", "198.51.100.7");
    cr_assert_str_eq(json_string_value(json_object_get(record, "left")), "held");
    cr_assert_eq(json_integer_value(json_object_get(record, "sessions")), 2);
    cr_assert_str_eq(json_string_value(json_object_get(record, "profile")), "home");
    cr_assert_str_eq(json_string_value(json_object_get(record, "service")), "ike");
    record = find(json_object_get(answer, "records"), "client", "198.51.100.8");
    cr_assert_geq(json_integer_value(json_object_get(record, "left")), 70);
    cr_assert_leq(json_integer_value(json_object_get(record, "left")), 80);
    cr_assert_str_eq(json_string_value(json_object_get(record, "server")), "vpn3");
    json_decref(answer);
}

Test(control, record_finds_by_profile_and_key)
{
    json_t *answer;

    fixture_record(&fixture, 7, 1, 180, 0);
    answer = fixture_ask(&fixture, "{\"verb\":\"record\",\"profile\":\"home\",\"key\":\"07\"}");
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(answer, "record"), "server")), "vpn2");
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(answer, "record"), "server_state")), "enabled");
    json_decref(answer);
    answer = fixture_ask(&fixture, "{\"verb\":\"record\",\"profile\":\"home\",\"key\":\"08\"}");
    cr_assert(is_ok(answer) && json_is_null(json_object_get(answer, "record")));
    json_decref(answer);
    expect_refusal(fixture_ask(&fixture, "{\"verb\":\"record\",\"profile\":\"home\",\"key\":\"7\"}"), "hexadecimal");
    expect_refusal(fixture_ask(&fixture, "{\"verb\":\"record\",\"profile\":\"home\",\"key\":\"zz\"}"), "hexadecimal");
}

/* What the lanes' holders do for a drop. */
struct holders {
    uv_timer_t timer;
    uint32_t obey; /* lanes that carry it out */
    struct session_row *row;
    bool closed;
};

static void on_holders(uv_timer_t *timer)
{
    struct holders *holders = timer->data;
    uint64_t last = atomic_load(&fixture.segment->header->drop_last);

    for (uint32_t i = 0; last > 0 && i < holders->obey; i++)
        atomic_store(&fixture.segment->lanes[i].drop_seen, last);
    if (last > 0 && holders->row != NULL && holders->obey > 0) {
        session_end(holders->row);
        atomic_fetch_add(&fixture.segment->drops[last % SEGMENT_DROPS].ended, 1);
        holders->row = NULL;
    }
}

static void on_holders_closed(uv_handle_t *handle)
{
    ((struct holders *)handle->data)->closed = true;
}

static json_t *drop(struct holders *holders, const char *line)
{
    json_t *answer;

    uv_timer_init(&fixture.loop, &holders->timer);
    holders->timer.data = holders;
    uv_timer_start(&holders->timer, on_holders, 10, 10);
    answer = fixture_ask(&fixture, line);
    uv_close((uv_handle_t *)&holders->timer, on_holders_closed);
    while (!holders->closed)
        uv_run(&fixture.loop, UV_RUN_NOWAIT);
    return answer;
}

Test(control, drop_waits_for_the_lanes_and_deletes_the_record)
{
    struct record_ref mine = fixture_record(&fixture, 7, 1, 180, 0), other = fixture_record(&fixture, 8, 1, 180, 0);
    struct holders holders = {.obey = 8, .row = fixture_session(&fixture, 1, 7, "ike", 1, &mine)};
    json_t *answer = drop(&holders, "{\"verb\":\"drop\",\"client\":\"198.51.100.7\"}");
    struct record_view view;

    cr_assert(is_ok(answer));
    cr_assert_eq(json_integer_value(json_object_get(answer, "sessions_ended")), 1);
    cr_assert_eq(json_integer_value(json_object_get(answer, "records_deleted")), 1);
    cr_assert_eq(json_integer_value(json_object_get(answer, "lanes_behind")), 0);
    cr_assert_not(record_read(fixture.segment, mine.index, &view));
    cr_assert(record_read(fixture.segment, other.index, &view), "another client's record is none of its business");
    json_decref(answer);
}

Test(control, drop_answers_although_a_holder_does_not)
{
    struct record_ref mine = fixture_record(&fixture, 7, 1, 180, 0);
    struct holders holders = {.obey = 0, .row = fixture_session(&fixture, 1, 7, "ike", 1, &mine)};
    uint64_t began = clock_now_ms();
    json_t *answer = drop(&holders, "{\"verb\":\"drop\",\"client\":\"198.51.100.7\"}");
    struct record_view view;

    cr_assert_eq(json_integer_value(json_object_get(answer, "lanes_behind")), 8);
    cr_assert_eq(json_integer_value(json_object_get(answer, "records_left")), 1);
    cr_assert(record_read(fixture.segment, mine.index, &view), "a live session watches it");
    cr_assert_geq(clock_now_ms() - began, 1900);
    cr_assert_leq(clock_now_ms() - began, 5000);
    json_decref(answer);
}

Test(control, reload_passes_the_connection_on)
{
    int fd = fixture_connect(&fixture);
    char *text;

    cr_assert_eq(send(fd, "{\"verb\":\"reload\"}\n", 18, 0), 18);
    for (int i = 0; i < 1000 && fixture.passed_on < 0; i++)
        uv_run(&fixture.loop, UV_RUN_ONCE);
    cr_assert_geq(fixture.passed_on, 0);
    cr_assert_eq(write(fixture.passed_on, "{\"ok\":true}\n", 12), 12);
    close(fixture.passed_on);
    text = fixture_read_all(&fixture, fd);
    cr_assert_str_eq(text, "{\"ok\":true}\n");
    free(text);
    close(fd);
}

Test(control, garbage_gets_an_error_object)
{
    expect_refusal(fixture_ask(&fixture, "GET / HTTP/1.1"), "not JSON");
    expect_refusal(fixture_ask(&fixture, ""), "not JSON");
    expect_refusal(fixture_ask(&fixture, "[1,2,3]"), "no verb");
    expect_refusal(fixture_ask(&fixture, "{\"verb\":7}"), "no verb");
    expect_refusal(fixture_ask(&fixture, "{\"verb\":\"status\",\"verb\":\"drop\"}"), "not JSON");
    expect_refusal(fixture_ask(&fixture, "{\"verb\":\"explode\"}"), "does not know");
    expect_refusal(fixture_ask(&fixture, "{\"verb\":\"drop\"}"), "needs a client");
    expect_refusal(fixture_ask(&fixture, "{\"verb\":\"drop\",\"client\":5}"), "no address");
}

Test(control, random_octets_hurt_nobody)
{
    unsigned seed = (unsigned)clock_now_ms();

    srandom(seed);
    for (int i = 0; i < 300; i++) {
        int fd = fixture_connect(&fixture), size = (int)(random() % 900);
        char octets[900], *text;

        for (int j = 0; j < size; j++)
            octets[j] = (char)random();
        cr_assert_eq(send(fd, octets, (size_t)size, MSG_NOSIGNAL), size);
        shutdown(fd, SHUT_WR);
        text = fixture_read_all(&fixture, fd);
        cr_assert_not_null(text, "seed %u: neither answered nor closed", seed);
        free(text);
        close(fd);
    }
}

Test(control, deep_nesting_is_refused_and_not_followed)
{
    char line[60001];

    memset(line, '[', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    expect_refusal(fixture_ask(&fixture, line), "not JSON");
}

Test(control, half_a_request_gets_an_error_object)
{
    int fd = fixture_connect(&fixture);
    char *text;

    cr_assert_eq(send(fd, "{\"verb\":\"sta", 12, 0), 12);
    shutdown(fd, SHUT_WR);
    text = fixture_read_all(&fixture, fd);
    expect_refusal(json_loads(text, 0, NULL), "without a newline");
    free(text);
    close(fd);
}

Test(control, a_request_that_never_ends_is_closed_after_five_seconds)
{
    int fd = fixture_connect(&fixture);
    uint64_t began = clock_now_ms();
    char *text;

    cr_assert_eq(send(fd, "{\"verb\":", 8, 0), 8);
    text = fixture_read_all(&fixture, fd);
    cr_assert_not_null(text);
    cr_assert_eq(strlen(text), 0);
    cr_assert_geq(clock_now_ms() - began, 4500);
    free(text);
    close(fd);
}

static bool sent_all(struct fixture *at, void *arg)
{
    static char block[16384];
    ssize_t sent;

    (void)at;
    memset(block, 'x', sizeof block);
    sent = send(*(int *)arg, block, sizeof block, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 && errno != EAGAIN;
}

/* Nobody reads a gigabyte to find out that it is no request. */
Test(control, a_huge_line_is_refused_after_64_KiB)
{
    int fd = fixture_connect(&fixture);
    uint64_t began = clock_now_ms();

    cr_assert(fixture_until(&fixture, sent_all, &fd), "the line was read for ever");
    cr_assert_leq(clock_now_ms() - began, 4000);
    close(fd);
    json_decref(fixture_ask(&fixture, "{\"verb\":\"status\"}"));
}

Test(control, a_slow_reader_holds_up_nobody_and_is_closed)
{
    int fd = fixture_connect(&fixture), small = 4096;
    uint64_t began;
    char *text;

    for (uint32_t i = 0; i < 4096; i++)
        fixture_session(&fixture, i, (uint8_t)i, "ike", i % 3, NULL);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    cr_assert_eq(send(fd, "{\"verb\":\"sessions\"}\n", 20, 0), 20);
    for (int i = 0; i < 10; i++) {
        json_t *answer = fixture_ask(&fixture, "{\"verb\":\"status\"}");

        cr_assert(is_ok(answer), "somebody else's slow reader stopped us");
        json_decref(answer);
    }
    began = clock_now_ms();
    fixture_run(&fixture, 5500);
    text = fixture_read_all(&fixture, fd);
    cr_assert_leq(clock_now_ms() - began, 7000);
    cr_assert_null(json_loads(text, 0, NULL), "the whole answer fitted into the socket: this test proves nothing");
    free(text);
    close(fd);
}

Test(control, the_sixty_fifth_waits_and_is_then_answered)
{
    int idle[64], last;
    char *text;

    for (int i = 0; i < 64; i++)
        idle[i] = fixture_connect(&fixture);
    fixture_run(&fixture, 50);
    last = fixture_connect(&fixture);
    cr_assert_eq(send(last, "{\"verb\":\"servers\"}\n", 19, 0), 19);
    fixture_run(&fixture, 200);
    cr_assert_eq(recv(last, (char[1]){0}, 1, MSG_DONTWAIT), -1, "more than 64 are served at once");
    close(idle[10]);
    text = fixture_read_all(&fixture, last);
    cr_assert(text != NULL && strstr(text, "\"ok\":true") != NULL, "%s", text);
    free(text);
    close(last);
    for (int i = 0; i < 64; i++)
        if (i != 10)
            close(idle[i]);
}

Test(control, a_thousand_connections_at_once_are_all_answered)
{
    static int fds[1000];
    int answered = 0;

    for (int i = 0; i < 1000; i += 100) {
        for (int j = i; j < i + 100; j++) {
            fds[j] = fixture_connect(&fixture);
            cr_assert_eq(send(fds[j], "{\"verb\":\"servers\"}\n", 19, 0), 19);
        }
        for (int j = i; j < i + 100; j++) {
            char *text = fixture_read_all(&fixture, fds[j]);

            answered += text != NULL && strstr(text, "\"ok\":true") != NULL;
            free(text);
            close(fds[j]);
        }
    }
    cr_assert_eq(answered, 1000);
}

Test(control, closing_ends_connections_in_any_state)
{
    int half = fixture_connect(&fixture), dropping = fixture_connect(&fixture), listing = fixture_connect(&fixture);
    int small = 4096;

    for (uint32_t i = 0; i < 4096; i++)
        fixture_session(&fixture, i, (uint8_t)i, "ike", i % 3, NULL);
    setsockopt(listing, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    cr_assert_eq(send(half, "{", 1, 0), 1);
    cr_assert_eq(send(dropping, "{\"verb\":\"drop\",\"client\":\"198.51.100.7\"}\n", 41, 0), 41);
    cr_assert_eq(send(listing, "{\"verb\":\"sessions\"}\n", 20, 0), 20);
    fixture_run(&fixture, 100);
    fixture_stop(&fixture);
    close(half);
    close(dropping);
    close(listing);
}
