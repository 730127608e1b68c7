/* SPDX-License-Identifier: Apache-2.0 */
/* ike_spi in the real host, call by call: who is who, what is learnt, what is not. */
#include "deciding.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

enum { HOME = 1, ELSEWHERE, NOWHERE }; /* addresses of clients */
enum { A = 1, B };                     /* SPIs */
enum { AUTH = 35, ESTABLISHED = 37, ESP = -1, KEEPALIVE = -2, OTHER = -3, SA_INIT = 34 };
enum { NEW = -1 };

static struct deciding deciding;

struct message {
    uint32_t from;
    uint64_t spi;
    int what;
    int32_t at; /* server of its live session */
    bool proven;
};

static void message_read(struct ike_datagram *out, const struct message *message)
{
    static const uint8_t octets[64] = {0xff};

    *out = (struct ike_datagram){.kind = IKE_OTHER, .data = octets, .size = 64};
    if (message->what == ESP) {
        out->kind = IKE_ESP;
        out->esp_spi = (uint32_t)message->spi;
    } else if (message->what == KEEPALIVE) {
        out->kind = IKE_KEEPALIVE;
        out->size = 1;
    } else if (message->what != OTHER) {
        out->kind = IKE_MESSAGE;
        out->header = (struct hp_ike){.size = sizeof out->header,
                                      .exchange = (uint8_t)message->what,
                                      .flags = IKE_FLAG_INITIATOR,
                                      .version = 0x20,
                                      .responder_spi = {message->what != SA_INIT}};
        memcpy(out->header.initiator_spi, &message->spi, sizeof message->spi);
    }
}

static struct decision say_to(uint32_t worker, const struct message *message)
{
    const struct hp_endpoint local = {.address = {127, 0, 0, 1}, .port = 500, .family = 4};
    const struct hp_endpoint from = {.address = {198, 51, 100, (uint8_t)message->from}, .port = 5000, .family = 4};
    struct decision_request request = {.service = message->what == SA_INIT ? 0 : 1,
                                       .client = &from,
                                       .local = &local,
                                       .own_server = message->at,
                                       .proven = message->proven,
                                       .now_s = deciding.now_s};
    struct ike_datagram datagram;
    struct decision decision;

    message_read(&datagram, message);
    request.datagram = &datagram;
    decide(deciding.deciders[worker], &request, &decision);
    return decision;
}

static struct decision say(uint32_t from, uint64_t spi, int what, int32_t at, bool proven)
{
    const struct message message = {from, spi, what, at, proven};

    return say_to(spi % 2, &message);
}

static int32_t begin(uint32_t from, uint64_t spi)
{
    int32_t server = say(from, spi, SA_INIT, NEW, false).server;

    cr_assert_geq(server, 0);
    return server;
}

static uint32_t records(void)
{
    struct record_view view;
    uint32_t count = 0;

    for (uint32_t i = 0; i < record_capacity(deciding.world.segment); i++)
        count += record_read(deciding.world.segment, i, &view);
    return count;
}

static void open_with(const char *options, uint32_t capacity)
{
    char yaml[2048];

    deciding_open_yaml(&deciding, deciding_yaml(yaml, "../../../plugins/ike_spi/ike_spi", options, ""), capacity);
}

static void open_deciding(void)
{
    open_with("fallback: scheduler", 1600);
}

static void close_deciding(void)
{
    deciding_close(&deciding);
}

TestSuite(ike_spi, .init = open_deciding, .fini = close_deciding);
TestSuite(ike_spi_source_ip, .fini = close_deciding);

Test(ike_spi, one_spi_from_two_addresses_is_two_clients)
{
    int32_t first = begin(HOME, A), second = begin(ELSEWHERE, A);

    cr_assert_neq(first, second);
    cr_assert_eq(say(ELSEWHERE, A, AUTH, NEW, false).server, second, "with its address first");
    cr_assert_eq(say(HOME, A, AUTH, NEW, false).server, first);
    cr_assert_eq(say(NOWHERE, A, ESTABLISHED, NEW, false).server, first, "then without");
    cr_assert_eq(begin(HOME, A), first, "a repeat");
    cr_assert_eq(begin(ELSEWHERE, A), second);
}

Test(ike_spi, while_the_victims_server_is_down_who_repeats_its_spi_moves_nothing)
{
    struct decision victim = say(HOME, A, SA_INIT, NEW, false);
    struct decision moved;

    world_down(&deciding.world, "vpn1", 500, true);
    cr_assert_eq(victim.server, server_named(&deciding, "vpn1"));
    cr_assert_neq(begin(ELSEWHERE, A), victim.server);
    cr_assert(watch_holds(&deciding, &victim));
    moved = say(HOME, A, SA_INIT, NEW, false);
    cr_assert_eq(moved.reason, DECISION_MOVED, "the victim itself may start anew elsewhere");
    cr_assert_not(watch_holds(&deciding, &victim));
}

struct racer {
    uint32_t worker, from;
    int32_t servers[2000];
};
static pthread_barrier_t barrier;

static void *race(void *arg)
{
    struct racer *self = arg;

    for (uint32_t i = 0; i < 2000; i++) {
        const struct message message = {self->from, 1000 + i % 500 * 7 + i, SA_INIT, NEW, false};

        pthread_barrier_wait(&barrier);
        self->servers[i] = say_to(self->worker, &message).server;
    }
    return NULL;
}

/* Two workers, two addresses, the same new SPI at the same moment: whoever is first, each is found where it began. */
Test(ike_spi_source_ip, of_two_who_claim_an_spi_at_once_each_is_found_where_it_began)
{
    static struct racer racers[2] = {{.worker = 0, .from = HOME}, {.worker = 1, .from = ELSEWHERE}};
    pthread_t threads[2];

    open_with("fallback: scheduler", 16000);
    pthread_barrier_init(&barrier, NULL, 2);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, race, &racers[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < 2000; i++)
        for (int j = 0; j < 2; j++)
            cr_assert_eq(say(racers[j].from, 1000 + i % 500 * 7 + i, AUTH, NEW, false).server, racers[j].servers[i],
                         "SPI %u of racer %d", i, j);
}

Test(ike_spi, a_new_spi_on_a_known_flow_gets_its_server)
{
    for (int32_t server = 0; server < 3; server++) {
        cr_assert_eq(say(HOME, 100u + (uint32_t)server, SA_INIT, server, false).server, server);
        cr_assert_eq(say(HOME, 200u + (uint32_t)server, SA_INIT, server, true).server, server);
        cr_assert_eq(say(ELSEWHERE, 100u + (uint32_t)server, AUTH, NEW, false).server, server);
    }
}

Test(ike_spi, a_proven_session_teaches)
{
    int32_t home = begin(HOME, A);

    cr_assert_eq(say(HOME, 77, ESTABLISHED, home, true).server, home, "the SPI of a rekeyed IKE_SA");
    cr_assert_eq(say(HOME, 78, ESP, home, true).server, home);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(say(ELSEWHERE, 77, ESTABLISHED, NEW, false).server, home);
        cr_assert_eq(say(ELSEWHERE, 78, ESP, NEW, false).server, home);
    }
}

Test(ike_spi, an_unproven_session_teaches_nothing)
{
    int32_t home = begin(HOME, A);
    uint32_t before = records();

    cr_assert_eq(say(HOME, 77, ESTABLISHED, home, false).server, home);
    cr_assert_eq(say(HOME, 78, ESP, home, false).server, home);
    cr_assert_eq(say(HOME, 0, OTHER, home, false).server, home);
    cr_assert_eq(say(NOWHERE, 79, ESTABLISHED, NEW, false).record, SEGMENT_NO_INDEX);
    cr_assert_eq(say(NOWHERE, 80, ESP, NEW, false).record, SEGMENT_NO_INDEX);
    cr_assert_eq(say(NOWHERE, 0, OTHER, NEW, false).record, SEGMENT_NO_INDEX);
    cr_assert_eq(records(), before);
}

Test(ike_spi, a_keepalive_asks_for_nothing)
{
    struct decision refused = say(HOME, 0, KEEPALIVE, NEW, false);

    cr_assert_eq(refused.server, -1);
    cr_assert_eq(refused.reason, DECISION_REFUSED_PLUGIN);
    cr_assert_eq(say(HOME, 0, KEEPALIVE, 2, false).server, 2);
    cr_assert_eq(records(), 0);
}

Test(ike_spi, an_unproven_session_follows_whoever_speaks_on_it)
{
    int32_t home = begin(HOME, A), other = (home + 1) % 3;

    say(HOME, 78, ESP, home, true);
    cr_assert_eq(say(ELSEWHERE, A, ESTABLISHED, other, false).server, home);
    cr_assert_eq(say(ELSEWHERE, 78, ESP, other, false).server, home);
}

Test(ike_spi, a_proven_session_follows_a_client_that_begins_and_one_that_is_proven)
{
    struct decision one = say(HOME, A, SA_INIT, NEW, false);
    int32_t other = (one.server + 1) % 3;

    cr_assert_eq(say(ELSEWHERE, A, ESTABLISHED, other, true).server, other, "nobody has proven it");
    cr_assert_eq(say(ELSEWHERE, A, AUTH, other, true).server, other, "nor was it begun at this address");
    cr_assert_eq(say(HOME, A, AUTH, other, true).server, one.server, "an IKE_SA that begins");
    prove(&deciding, &one);
    cr_assert_eq(say(ELSEWHERE, A, ESTABLISHED, other, true).server, one.server, "the NAT has shuffled its ports");
}

Test(ike_spi, equal_esp_spis_part_by_address)
{
    int32_t home = begin(HOME, A), other = (home + 1) % 3;

    cr_assert_eq(say(HOME, 78, ESP, home, true).server, home);
    cr_assert_eq(say(ELSEWHERE, 78, ESP, other, true).server, home, "it may be another client's flow now");
    cr_assert_eq(say(ELSEWHERE, 78, ESP, other, true).server, other, "IKE has brought it back: SPIs that are equal");
    cr_assert_eq(say(ELSEWHERE, 78, ESP, NEW, false).server, other);
    cr_assert_eq(say(HOME, 78, ESP, NEW, false).server, home);
}

/* What was learnt in the wrong place leads nobody astray who is at home. */
Test(ike_spi, a_session_at_home_stays_whatever_its_address_has_claimed)
{
    int32_t home = begin(HOME, A), other = (home + 1) % 3;

    say(HOME, 78, ESP, home, true);
    say(ELSEWHERE, 78, ESP, other, true);
    cr_assert_eq(say(ELSEWHERE, 78, ESP, other, true).server, other);
    cr_assert_eq(say(ELSEWHERE, 78, ESP, home, true).server, home);
}

Test(ike_spi, a_servers_limit_moves_no_ike_sa)
{
    static const char *const names[] = {"vpn1", "vpn2", "vpn3"};
    int32_t home = begin(HOME, A);

    say(HOME, 78, ESP, home, true);
    for (uint32_t worker = 0; worker < 2; worker++) /* every server is at its limit */
        for (uint32_t service = 0; service < 2; service++)
            for (uint32_t i = 0; i < 3; i++)
                deciding.topologies[worker]->services[service].members[i].max_clients = 1;
    for (uint32_t i = 0; i < 3; i++)
        world_recount(&deciding.world, names[i], 1);
    deciding.now_s += 150;
    cr_assert_eq(say(ELSEWHERE, 78, ESP, NEW, false).server, home);
    cr_assert_eq(say(ELSEWHERE, A, ESTABLISHED, NEW, false).server, home);
}

/* Each bucket full of proven records: the IKE_SA has no record, and both its messages go to one server all the same. */
Test(ike_spi_source_ip, without_room_for_a_record_an_ike_sa_is_one_still)
{
    uint32_t full = 0;

    open_with("fallback: scheduler", 16);
    for (uint64_t spi = 1000; spi < 3000; spi++) {
        struct decision decision = say(HOME, spi, SA_INIT, NEW, false);

        if (decision.reason == DECISION_TABLE_FULL) {
            cr_assert_eq(say(HOME, spi, AUTH, NEW, false).server, decision.server);
            full++;
        } else {
            prove(&deciding, &decision);
        }
    }
    cr_assert_gt(full, 50);
}

Test(ike_spi_source_ip, what_is_neither_ike_nor_known_esp_goes_by_its_address)
{
    struct decision first;

    open_with("fallback: source_ip", 1600);
    first = say(HOME, 0, OTHER, NEW, false);
    cr_assert_eq(first.reason, DECISION_NEW_RECORD);
    cr_assert_eq(say(HOME, 99, ESP, NEW, false).server, first.server);
    cr_assert_eq(say(HOME, 99, ESTABLISHED, NEW, false).server, first.server);
    cr_assert_neq(say(ELSEWHERE, 0, OTHER, NEW, false).server, first.server);
    cr_assert_eq(records(), 2);
    cr_assert_eq(say(HOME, 0, OTHER, (first.server + 1) % 3, false).server, (first.server + 1) % 3, "a live one stays");
}

Test(ike_spi_source_ip, a_live_session_puts_its_addresss_record_back)
{
    struct decision first, again;
    struct record_ref ref;

    open_with("fallback: source_ip", 1600);
    first = say(HOME, 0, OTHER, NEW, false);
    ref = (struct record_ref){first.record, record_value(deciding.world.segment, first.record)};
    cr_assert(record_delete(deciding.world.segment, &ref));
    again = say(HOME, 0, OTHER, first.server, false);
    cr_assert_eq(again.reason, DECISION_PUT_BACK);
    cr_assert_eq(again.server, first.server);
}

Test(ike_spi, a_disabled_servers_clients_begin_elsewhere)
{
    int32_t home = begin(HOME, A);

    world_state(&deciding.world, "vpn1", SERVER_DISABLED);
    cr_assert_eq(home, server_named(&deciding, "vpn1"));
    cr_assert_neq(say(HOME, A, SA_INIT, home, true).server, home);
    cr_assert_neq(say(HOME, 0, OTHER, home, true).server, home, "nor does what nobody knows stay");
    cr_assert_eq(counted(&deciding, COUNTER_plugin_failures), 0);
}
