/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"
#include "responder.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct fixture fixture;
static struct responder responder;

static void set_up(void)
{
    fixture_open(&fixture);
}

static void tear_down(void)
{
    fixture_close(&fixture);
}

TestSuite(health, .init = set_up, .fini = tear_down, .timeout = 30);

struct expected {
    uint32_t server;
    uint16_t port;
    bool down;
};

static bool health_is(struct fixture *at, void *arg)
{
    const struct expected *expected = arg;
    struct health_view view = fixture_health(at, expected->server, expected->port);

    return view.known && view.down == expected->down;
}

static bool becomes(uint32_t server, uint16_t port, bool down)
{
    struct expected expected = {server, port, down};

    return fixture_until(&fixture, health_is, &expected);
}

static bool enough_probes(struct fixture *at, void *arg)
{
    (void)at;
    return responder.plain + responder.marked >= *(uint32_t *)arg;
}

static void await_probes(uint32_t more)
{
    uint32_t wanted = responder.plain + responder.marked + more;

    cr_assert(fixture_until(&fixture, enough_probes, &wanted), "no more probes came");
}

/* One server in the pool, one service, one port. */
static uint16_t begin_with(enum manner manner)
{
    uint16_t port = responder_open(&responder, &fixture.loop, 1, 0, manner);

    fixture.pools[0].server_count = 1;
    fixture_probe_port(&fixture, 0, port);
    fixture_start(&fixture);
    return port;
}

static void finish(void)
{
    fixture_stop(&fixture);
    responder_close(&responder, &fixture.loop);
}

Test(health, first_answer_brings_an_unknown_server_up)
{
    uint16_t port = begin_with(MANNER_ANSWER);
    char text[4096];

    cr_assert_not(fixture_health(&fixture, 0, port).known);
    cr_assert(becomes(0, port, false));
    cr_assert_leq(responder.plain, 1, "one answered probe is enough");
    cr_assert(strstr(fixture_logged(&fixture, text), "vpn1 is up"), "%s", text);
    finish();
}

Test(health, fall_silent_probes_in_a_row_take_it_down)
{
    uint16_t port = begin_with(MANNER_SILENT);
    char text[4096];

    cr_assert(becomes(0, port, true));
    cr_assert_geq(responder.plain, 3, "after %u probes", responder.plain);
    cr_assert_geq(fixture_health(&fixture, 0, port).failures, 3);
    cr_assert(strstr(fixture_health(&fixture, 0, port).reason, "no answer to 3 probes"), "%s",
              fixture_health(&fixture, 0, port).reason);
    cr_assert(strstr(fixture_logged(&fixture, text), "vpn1 is down"), "%s", text);
    finish();
}

Test(health, garbage_is_no_answer)
{
    uint16_t port = begin_with(MANNER_GARBAGE);

    cr_assert(becomes(0, port, true));
    finish();
}

Test(health, an_ikev1_header_is_no_answer)
{
    uint16_t port = begin_with(MANNER_IKEV1);

    cr_assert(becomes(0, port, true));
    finish();
}

Test(health, an_answer_with_another_spi_is_no_answer)
{
    uint16_t port = begin_with(MANNER_WRONG_SPI);

    cr_assert(becomes(0, port, true));
    finish();
}

Test(health, an_answer_from_another_address_is_no_answer)
{
    uint16_t port = begin_with(MANNER_STRANGER);

    cr_assert(becomes(0, port, true));
    finish();
}

/* fall is out of reach: only the ICMP message can have done it. */
Test(health, a_closed_port_takes_it_down_at_once)
{
    uint16_t port = responder_closed_port(1);

    fixture.pools[0].server_count = 1;
    fixture.pools[0].health.fall = 1000000;
    fixture_probe_port(&fixture, 0, port);
    fixture_start(&fixture);
    cr_assert(becomes(0, port, true));
    cr_assert(strstr(fixture_health(&fixture, 0, port).reason, "ICMP"), "%s", fixture_health(&fixture, 0, port).reason);
}

/* An ICMP error stops libuv's watcher: a probe that went deaf then would never see the server come back. */
Test(health, rise_answers_bring_it_back_after_an_icmp_error)
{
    uint16_t port = responder_closed_port(1);

    fixture.pools[0].server_count = 1;
    fixture.pools[0].health.rise = 3;
    fixture_probe_port(&fixture, 0, port);
    fixture_start(&fixture);
    cr_assert(becomes(0, port, true));
    fixture_run(&fixture, 150); /* several errors more */
    cr_assert_eq(responder_open(&responder, &fixture.loop, 1, port, MANNER_ANSWER), port);
    cr_assert(becomes(0, port, false));
    cr_assert_geq(responder.plain, 3, "up after %u answers", responder.plain);
    finish();
}

Test(health, one_answer_between_silences_starts_the_count_anew)
{
    uint16_t port = begin_with(MANNER_ANSWER);

    cr_assert(becomes(0, port, false));
    for (int i = 0; i < 4; i++) {
        responder.manner = MANNER_SILENT;
        await_probes(2); /* both shapes of one probe */
        responder.manner = MANNER_ANSWER;
        await_probes(4);
        cr_assert_not(fixture_health(&fixture, 0, port).down);
    }
    finish();
}

Test(health, a_server_that_answers_clients_is_not_taken_down_by_silence)
{
    uint16_t port = begin_with(MANNER_SILENT);
    struct server_slot *slot = &fixture.segment->servers[fixture.slots[0]];
    char text[4096];

    for (int i = 0; i < 16; i++) {
        atomic_store(&slot->answered_ms, clock_now_ms());
        await_probes(1);
    }
    cr_assert_gt(fixture_health(&fixture, 0, port).failures, 3);
    cr_assert_not(fixture_health(&fixture, 0, port).down);
    cr_assert(strstr(fixture_logged(&fixture, text), "answers clients"), "%s", text);
    cr_assert(becomes(0, port, true), "silent towards everybody now, yet up");
    finish();
}

/* ...but ICMP port unreachable is no silence. */
Test(health, a_closed_port_takes_it_down_whatever_clients_saw)
{
    uint16_t port = responder_closed_port(1);

    fixture.pools[0].server_count = 1;
    fixture_probe_port(&fixture, 0, port);
    fixture_start(&fixture);
    atomic_store(&fixture.segment->servers[fixture.slots[0]].answered_ms, clock_now_ms() + 60000);
    cr_assert(becomes(0, port, true));
}

Test(health, one_probe_serves_all_services_of_a_port_at_the_shortest_interval)
{
    uint16_t port = responder_open(&responder, &fixture.loop, 1, 0, MANNER_ANSWER);

    fixture.pools[0].server_count = 1;
    fixture.pools[0].health.interval_ms = 3600000;
    fixture.services[1].pool = 1; /* the pool with interval 60 ms */
    fixture_probe_port(&fixture, 0, port);
    fixture_probe_port(&fixture, 1, port);
    fixture_start(&fixture);
    fixture_run(&fixture, 660);
    cr_assert_geq(responder.plain, 5, "%u", responder.plain);
    cr_assert_leq(responder.plain, 13, "probed more than once a round: %u", responder.plain);
    finish();
}

Test(health, ports_of_one_server_have_states_of_their_own)
{
    uint16_t open = responder_open(&responder, &fixture.loop, 1, 0, MANNER_ANSWER), closed = responder_closed_port(1);
    const struct topology_service *service;

    fixture.pools[0].server_count = 1;
    fixture.services[0].profile = fixture.services[1].profile = 0;
    fixture_probe_port(&fixture, 0, open);
    fixture_probe_port(&fixture, 1, closed);
    fixture_start(&fixture);
    cr_assert(becomes(0, open, false));
    cr_assert(becomes(0, closed, true));
    service = &fixture.topology->services[0];
    cr_assert_not(topology_is_up(fixture.topology, &service->members[0]), "the group is as down as its worst port");
    finish();
}

Test(health, check_none_sends_nothing)
{
    uint16_t port = responder_open(&responder, &fixture.loop, 1, 0, MANNER_ANSWER);

    fixture.services[0].server_port = port;
    fixture_start(&fixture);
    server_probe_assign(fixture.segment, fixture.slots[0], 17, port);
    fixture_run(&fixture, 300);
    cr_assert_eq(responder.plain + responder.marked, 0);
    finish();
}

Test(health, probes_come_from_the_source_that_is_written)
{
    const uint8_t source[4] = {127, 0, 0, 77};

    fixture.pools[0].health.source = (struct hp_endpoint){.address = {127, 0, 0, 77}, .family = 4};
    begin_with(MANNER_ANSWER);
    await_probes(1);
    cr_assert_arr_eq(responder.peer.address, source, 4);
    finish();
}

/* 203.0.113.0/24 is for documentation: no machine has it. */
Test(health, a_source_that_is_not_here_changes_no_state_and_is_said_once)
{
    uint16_t port;
    char text[4096], *first;

    fixture.pools[0].health.source = (struct hp_endpoint){.address = {203, 0, 113, 99}, .family = 4};
    port = begin_with(MANNER_ANSWER);
    fixture_run(&fixture, 500);
    cr_assert_not(fixture_health(&fixture, 0, port).known);
    first = strstr(fixture_logged(&fixture, text), "cannot probe server vpn1");
    cr_assert_not_null(first, "%s", text);
    cr_assert_null(strstr(first + 1, "cannot probe"), "%s", text);
    finish();
}

Test(health, port_500_is_asked_plainly)
{
    uint16_t port = responder_open(&responder, &fixture.loop, 1, 500, MANNER_ANSWER);

    if (port == 0)
        cr_skip_test("port 500 of 127.0.0.1 may not be had here");
    fixture.pools[0].server_count = 1;
    fixture_probe_port(&fixture, 0, 500);
    fixture_start(&fixture);
    cr_assert(becomes(0, 500, false));
    cr_assert_eq(responder.marked, 0);
    finish();
}

Test(health, port_4500_is_asked_with_the_marker)
{
    uint16_t port = responder_open(&responder, &fixture.loop, 2, 4500, MANNER_ANSWER);

    if (port == 0)
        cr_skip_test("port 4500 of 127.0.0.2 may not be had here");
    fixture_probe_port(&fixture, 1, 4500);
    fixture_start(&fixture);
    cr_assert(becomes(1, 4500, false));
    cr_assert_eq(responder.plain, 0);
    finish();
}

Test(health, the_next_monitor_goes_on_from_the_state_it_finds)
{
    uint16_t port = begin_with(MANNER_SILENT);
    uint32_t before;

    cr_assert(becomes(0, port, true));
    fixture_stop(&fixture);
    responder.manner = MANNER_ANSWER;
    before = responder.plain;
    fixture_start(&fixture);
    cr_assert(fixture_health(&fixture, 0, port).down, "a restart forgot that the server is down");
    cr_assert(becomes(0, port, false));
    cr_assert_geq(responder.plain - before, 2, "rise counts as ever: up after %u answers", responder.plain - before);
    finish();
}

Test(health, what_is_probed_no_more_is_down_no_more)
{
    uint16_t port = begin_with(MANNER_SILENT);

    cr_assert(becomes(0, port, true));
    fixture_stop(&fixture);
    fixture.services[0].check = CHECK_NONE;
    fixture_start(&fixture);
    cr_assert_not(fixture_health(&fixture, 0, port).down);
    cr_assert_not(fixture_health(&fixture, 0, port).known);
    finish();
}

Test(health, the_first_probes_of_many_do_not_go_out_in_one_burst)
{
    uint16_t ports[FIXTURE_SERVICES];

    for (uint32_t i = 0; i < FIXTURE_SERVICES; i++) {
        ports[i] = responder_closed_port((uint8_t)(i + 1));
        fixture_probe_port(&fixture, i, ports[i]);
    }
    fixture.pools[0].health.interval_ms = 3600000;
    fixture_start(&fixture);
    fixture_run(&fixture, 100);
    cr_assert_leq(atomic_load(&fixture.segment->processes[fixture.self].counters[COUNTER_probes_sent]), 1,
                  "nine probes of an hour's interval, and more than one in the first tenth of a second");
}

/* ---- TCP ---- */

/* A listener at the first server's address; a port of 0 is any, and is filled in. */
static int tcp_listen(uint16_t *port, int backlog)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t size = sizeof name;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    memcpy(&name.sin_addr, fixture.servers[0].address.address, sizeof name.sin_addr);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&name, size), 0);
    cr_assert_eq(listen(fd, backlog), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&name, &size), 0);
    *port = ntohs(name.sin_port);
    return fd;
}

static void begin_tcp(uint16_t port)
{
    fixture.pools[0].server_count = 1;
    fixture_probe_tcp(&fixture, 0, port);
    fixture_start(&fixture);
}

Test(health, a_tcp_port_that_accepts_is_up)
{
    uint16_t port = 0;
    int fd = tcp_listen(&port, 100);
    char text[4096];

    begin_tcp(port);
    cr_assert(becomes(0, port, false));
    cr_assert(strstr(fixture_logged(&fixture, text), "vpn1 is up on tcp/"), "%s", text);
    close(fd);
}

/* fall is out of reach: only the reset can have done it. */
Test(health, a_tcp_port_where_nobody_listens_is_down_at_once_and_up_again_when_somebody_does)
{
    uint16_t port = 0;
    int fd = tcp_listen(&port, 100);

    close(fd);
    fixture.pools[0].health.fall = 1000000;
    begin_tcp(port);
    cr_assert(becomes(0, port, true));
    cr_assert(strstr(fixture_health(&fixture, 0, port).reason, "refused"), "%s",
              fixture_health(&fixture, 0, port).reason);
    fd = tcp_listen(&port, 100);
    cr_assert(becomes(0, port, false));
    close(fd);
}

static bool is_down_though_it_answers_datagrams(struct fixture *at, void *arg)
{
    atomic_store(&at->segment->servers[at->slots[0]].answered_ms, clock_now_ms());
    return health_is(at, arg);
}

/* Its queue is full: a SYN gets no answer. That the server answers datagrams meanwhile says nothing of this port. */
Test(health, a_tcp_port_that_does_not_answer_is_down_after_fall_probes)
{
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    uint16_t port = 0;
    int fd = tcp_listen(&port, 0), fill[4];
    struct expected expected = {0, port, true};

    cr_assert_eq(getsockname(fd, (struct sockaddr *)&name, &size), 0);
    for (uint32_t i = 0; i < 4; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(fill[i], (struct sockaddr *)&name, size);
    }
    begin_tcp(port);
    cr_assert(fixture_until(&fixture, is_down_though_it_answers_datagrams, &expected));
    cr_assert(strstr(fixture_health(&fixture, 0, port).reason, "no answer to 3 probes"), "%s",
              fixture_health(&fixture, 0, port).reason);
    for (uint32_t i = 0; i < 4; i++)
        close(fill[i]);
    close(fd);
}
