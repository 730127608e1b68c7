/* SPDX-License-Identifier: Apache-2.0 */
/* Who has a client's address and port at a server to itself. */
#include "fixture.h"
#include "segment/tuple.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

static struct fixture fixture;
static struct segment *segment;
static struct hp_endpoint server;

static void begin(void)
{
    fixture_open(&fixture);
    fixture.shape.sessions = 512;
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
    segment = fixture.segment;
    server = endpoint_of(11, 0);
    segment->servers[5].address = segment->servers[6].address = server;
    segment->servers[7].address = endpoint_of(12, 0);
    server.port = 4500;
}
static void end(void)
{
    fixture_close(&fixture);
}
TestSuite(tuple, .init = begin, .fini = end);

/* A live row of this flow: its client's number, the address of ours, the server's slot. */
static struct session_row *live(uint32_t position, uint8_t client, uint8_t local, uint16_t slot)
{
    struct session_row content = {.client = endpoint_of(client, 4500),
                                  .local = {local},
                                  .service = 0x1234,
                                  .server = slot,
                                  .server_port = 4500,
                                  .flags = SESSION_TRANSPARENT};

    session_begin(&segment->rows[position], &content, 1000);
    return &segment->rows[position];
}

Test(tuple, is_one_flow_s_at_a_time)
{
    struct session_row *first = live(3, 1, 10, 5), *second = live(100, 1, 20, 5);

    cr_assert(tuple_claim(segment, first, &server));
    cr_assert_not(tuple_claim(segment, second, &server), "by another address of ours");
    cr_assert_not(tuple_holds(segment, second, &server));
    cr_assert(tuple_holds(segment, first, &server));
    tuple_release(segment, first, &server);
    session_end(first);
    cr_assert(tuple_claim(segment, second, &server), "the first has ended");
}

Test(tuple, claimed_again_by_the_next_holder_is_still_its_own)
{
    struct session_row *row = live(3, 1, 10, 5);

    for (int i = 0; i < 100; i++)
        cr_assert(tuple_claim(segment, row, &server));
    tuple_release(segment, row, &server);
    cr_assert_not(tuple_holds(segment, row, &server), "one word, however often it was claimed");
}

Test(tuple, is_of_client_server_and_port)
{
    struct hp_endpoint other = segment->servers[7].address, other_port = server;

    other.port = 4500;
    other_port.port = 500;
    cr_assert(tuple_claim(segment, live(1, 1, 10, 5), &server));
    cr_assert(tuple_claim(segment, live(2, 2, 10, 5), &server), "another client");
    cr_assert(tuple_claim(segment, live(3, 1, 20, 7), &other), "another server");
    cr_assert(tuple_claim(segment, live(4, 1, 30, 5), &other_port), "another port");
    cr_assert_not(tuple_claim(segment, live(5, 1, 40, 6), &server), "another name of the same server");
}

Test(tuple, of_a_dead_row_holds_nobody_up)
{
    struct session_row *dead = live(3, 1, 10, 5);

    cr_assert(tuple_claim(segment, dead, &server));
    session_end(dead); /* killed before it let go */
    cr_assert(tuple_claim(segment, live(100, 1, 20, 5), &server));
    cr_assert_not(tuple_claim(segment, live(3, 1, 10, 5), &server), "its word is of a life that is over");
}

Test(tuple, of_the_same_flow_goes_to_the_lane_in_which_it_comes_now)
{
    struct session_row *before = live(3, 1, 10, 5), *now = live(100, 1, 10, 5);

    cr_assert(tuple_claim(segment, before, &server));
    cr_assert(tuple_claim(segment, now, &server));
    cr_assert_not(tuple_holds(segment, before, &server));
    cr_assert(tuple_holds(segment, now, &server));
}

Test(tuple, every_row_of_a_full_table_has_its_own)
{
    uint32_t count = segment->lane_count * segment->rows_per_lane, refused = 0;

    for (int round = 0; round < 5; round++) /* leftovers of the dead are no hindrance */
        for (uint32_t i = 0; i < count; i++) {
            struct session_row content = {
                .client = endpoint_of(9, (uint16_t)(1000 + round * 1000 + i)), .server = 5, .server_port = 4500};
            session_end(&segment->rows[i]);
            session_begin(&segment->rows[i], &content, 1000);
            refused += !tuple_claim(segment, &segment->rows[i], &server);
        }
    cr_assert_eq(refused, 0);
}

Test(tuple, forged_words_lead_nowhere)
{
    memset((void *)segment->tuples, 0xff, segment->tuple_count * sizeof *segment->tuples);
    cr_assert(tuple_claim(segment, live(3, 1, 10, 5), &server), "a word of no row may be overwritten");
}

#define RACERS 4u
#define RACES 20000u

static struct racer {
    pthread_t thread;
    uint32_t number;
    uint8_t won[RACES];
} racers[RACERS];
static pthread_barrier_t line;

static void *race(void *arg)
{
    struct racer *self = arg;

    for (uint32_t i = 0; i < RACES; i++) {
        pthread_barrier_wait(&line);
        struct session_row *row = live(self->number * 64, (uint8_t)(i % 200), (uint8_t)(1 + self->number), 5);
        self->won[i] = tuple_claim(segment, row, &server);
        pthread_barrier_wait(&line);
        tuple_release(segment, row, &server);
        session_end(row);
    }
    return NULL;
}

Test(tuple, raced_for_is_never_two_s)
{
    uint32_t won = 0;

    pthread_barrier_init(&line, NULL, RACERS);
    for (uint32_t i = 0; i < RACERS; i++) {
        racers[i].number = i;
        cr_assert_eq(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    for (uint32_t i = 0; i < RACERS; i++)
        pthread_join(racers[i].thread, NULL);
    for (uint32_t i = 0; i < RACES; i++) {
        uint32_t winners = 0;

        for (uint32_t j = 0; j < RACERS; j++)
            winners += racers[j].won[i];
        cr_assert_leq(winners, 1, "race %u", i);
        won += winners;
    }
    cr_assert_gt(won, RACES / 2, "mostly somebody wins");
    pthread_barrier_destroy(&line);
}
