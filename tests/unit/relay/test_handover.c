/* SPDX-License-Identifier: Apache-2.0 */
/* A lane changes hands: planned, after a crash, halfway, and with a peer that lies. */
#include "world.h"

#include "base/clock.h"
#include "base/endpoint.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 30u

struct scene {
    struct world world;
    struct worker *old, *new;
    int server, clients[CLIENTS];
    uint16_t ports[CLIENTS];
};

static void scene_open(struct scene *scene, const struct plan *plan)
{
    world_open(&scene->world, plan);
    scene->old = world_worker(&scene->world, 0);
    worker_take_all(&scene->world, scene->old);
    scene->server = world_server(&scene->world, 0, scene->world.port);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        scene->clients[i] = world_client(&scene->world, (uint8_t)(100 + i));
        scene->ports[i] = world_say(&scene->world, scene->clients[i], scene->server, "hello");
        cr_assert_neq(scene->ports[i], 0);
    }
    scene->new = world_worker(&scene->world, 1);
}

static void scene_close(struct scene *scene)
{
    for (uint32_t i = 0; i < CLIENTS; i++)
        close(scene->clients[i]);
    world_close(&scene->world);
}

static void expect_all_at_home(struct scene *scene)
{
    for (uint32_t i = 0; i < CLIENTS; i++) {
        cr_expect_eq(world_say(&scene->world, scene->clients[i], scene->server, "to home"), scene->ports[i],
                     "client %u", i);
        cr_expect(world_answer(&scene->world, scene->server, scene->ports[i], scene->clients[i], "from home"),
                  "client %u", i);
    }
    cr_expect_eq(world_live(&scene->world), CLIENTS);
}

static void pair_make(int pair[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

Test(handover, planned_keeps_every_socket_and_port)
{
    struct scene scene;
    int pair[2];

    scene_open(&scene, &(struct plan){0});
    uint64_t epoch = atomic_load(&scene.world.segment->lanes[0].epoch);
    pair_make(pair);
    worker_take(&scene.world, scene.new, 0, pair[0]);
    worker_give(&scene.world, scene.old, 0, pair[1]);
    cr_assert(world_wait(&scene.world, worker_has_given, scene.old, 2000));
    cr_assert(world_wait(&scene.world, worker_has_taken, scene.new, 2000));
    cr_expect_gt(atomic_load(&scene.world.segment->lanes[0].epoch), epoch);
    cr_expect_eq(atomic_load(&scene.world.segment->lanes[0].holder), scene.new->self);
    worker_die(&scene.world, scene.old);
    expect_all_at_home(&scene);
    cr_expect_eq(world_count(&scene.world, COUNTER_sessions_adopted), CLIENTS);
    scene_close(&scene);
}

/* Whatever is sent while nobody reads lies in the sockets' queues; nothing of it is lost. */
Test(handover, planned_loses_no_datagram_in_flight)
{
    struct scene scene;
    int pair[2];
    char data[16];
    struct hp_endpoint cell = {.address = {127, 0, 0, 1}, .family = 4};
    struct sockaddr_storage name;

    scene_open(&scene, &(struct plan){0});
    pair_make(pair);
    worker_take(&scene.world, scene.new, 0, pair[0]);
    worker_give(&scene.world, scene.old, 0, pair[1]);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        for (uint32_t j = 0; j < 5; j++) {
            cr_assert_eq(send(scene.clients[i], "in flight", 9, 0), 9);
            cell.port = scene.ports[i];
            socklen_t size = endpoint_to_sockaddr(&cell, &name);
            cr_assert_eq(sendto(scene.server, "too", 3, 0, (struct sockaddr *)&name, size), 3);
        }
        uv_run(&scene.world.loop, UV_RUN_NOWAIT); /* the hand-over goes on meanwhile */
    }
    for (uint32_t i = 0; i < CLIENTS * 5; i++)
        cr_assert_eq(world_receive(&scene.world, scene.server, data, sizeof data, NULL), 9, "datagram %u", i);
    for (uint32_t i = 0; i < CLIENTS * 5; i++)
        cr_assert_eq(world_receive(&scene.world, scene.clients[i / 5], data, sizeof data, NULL), 3, "reply %u", i);
    cr_expect(worker_has_taken(scene.new) && worker_has_given(scene.old));
    scene_close(&scene);
}

/* More sockets than a message carries, and than the pair's buffer takes at once. */
Test(handover, planned_takes_as_many_messages_as_it_needs)
{
    struct world world;
    struct worker *old, *new;
    int pair[2], small = 1, server;
    uint16_t ports[600];
    static int clients[600];

    world_open(&world, &(struct plan){.rows = 1024, .ports = 1024});
    old = world_worker(&world, 0);
    worker_take_all(&world, old);
    server = world_server(&world, 0, world.port);
    for (uint32_t i = 0; i < 600; i++) {
        clients[i] = world_client(&world, (uint8_t)(100 + i % 100));
        ports[i] = world_say(&world, clients[i], server, "hello");
        cr_assert_neq(ports[i], 0, "client %u", i);
    }
    new = world_worker(&world, 1);
    pair_make(pair);
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    worker_take(&world, new, 0, pair[0]);
    worker_give(&world, old, 0, pair[1]);
    cr_assert(world_wait(&world, worker_has_taken, new, 2000));
    cr_assert(world_wait(&world, worker_has_given, old, 2000));
    for (uint32_t i = 0; i < 600; i++) {
        cr_expect(world_answer(&world, server, ports[i], clients[i], "from home"), "client %u", i);
        close(clients[i]);
    }
    world_close(&world);
}

Test(handover, after_a_crash_goes_on_with_the_same_server_and_source_port)
{
    struct scene scene;

    scene_open(&scene, &(struct plan){.persistence = true});
    worker_die(&scene.world, scene.old);
    worker_take(&scene.world, scene.new, 0, -1);
    cr_expect_eq(scene.new->taken, 1);
    expect_all_at_home(&scene);
    cr_expect_eq(world_count(&scene.world, COUNTER_sessions_begun), CLIENTS, "nobody began anew");
    scene_close(&scene);
}

/* Its client says nothing: the sweep has opened the socket. */
Test(handover, after_a_crash_opens_the_cells_of_silent_clients_too)
{
    struct scene scene;

    scene_open(&scene, &(struct plan){0});
    worker_die(&scene.world, scene.old);
    worker_take(&scene.world, scene.new, 0, -1);
    world_turn(&scene.world);
    cr_expect(world_answer(&scene.world, scene.server, scene.ports[7], scene.clients[7], "wake up"));
    scene_close(&scene);
}

Test(handover, after_a_crash_serves_what_waits_in_the_listeners_queue)
{
    struct scene scene;
    char data[16];
    struct hp_endpoint from = {0};

    scene_open(&scene, &(struct plan){0});
    worker_die(&scene.world, scene.old);
    cr_assert_eq(send(scene.clients[3], "waiting", 7, 0), 7);
    worker_take(&scene.world, scene.new, 0, -1);
    cr_expect_eq(world_receive(&scene.world, scene.server, data, sizeof data, &from), 7);
    cr_expect_eq(from.port, scene.ports[3]);
    scene_close(&scene);
}

/* Killed after some sockets were sent: end of file stands for DONE. */
Test(handover, that_ends_halfway_goes_on_as_after_a_crash)
{
    struct scene scene;
    int pair[2];

    scene_open(&scene, &(struct plan){0});
    pair_make(pair);
    worker_take(&scene.world, scene.new, 0, pair[0]);
    world_turn(&scene.world);
    cr_expect_eq(scene.new->taken, 0);
    worker_die(&scene.world, scene.old);
    close(pair[1]);
    cr_assert(world_wait(&scene.world, worker_has_taken, scene.new, 2000));
    expect_all_at_home(&scene);
    scene_close(&scene);
}

Test(handover, to_a_taker_that_is_gone_leaves_the_rows_for_the_next)
{
    struct scene scene;
    int pair[2];

    scene_open(&scene, &(struct plan){0});
    pair_make(pair);
    close(pair[0]);
    worker_give(&scene.world, scene.old, 0, pair[1]);
    cr_assert(world_wait(&scene.world, worker_has_given, scene.old, 2000));
    worker_take(&scene.world, scene.new, 0, -1);
    expect_all_at_home(&scene);
    scene_close(&scene);
}

Test(handover, to_a_configuration_without_the_service_ends_its_sessions)
{
    struct world world;
    int server, client;

    world_open(&world, &(struct plan){.first_name = "old-name"});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    cr_assert_neq(world_say(&world, client, server, "x"), 0);
    worker_die(&world, &world.workers[0]);
    world.plan.first_name = "new-name";
    worker_take_all(&world, world_worker(&world, 1));
    cr_expect_eq(world_live(&world), 0);
    cr_expect_neq(world_say(&world, client, server, "as new"), 0);
    close(client);
    world_close(&world);
}

static bool is_none_left(void *arg)
{
    return world_live(arg) == 0;
}

/* As when a listener goes that was more specific than a wildcard: its clients begin anew, by the wildcard; what their
 * servers still owe them by the old session arrives. */
Test(handover, of_a_service_that_is_gone_before_a_wildcard_delivers_what_its_server_owes_and_ends)
{
    struct world world;
    int server, client;
    uint16_t before, after;

    world_open(&world, &(struct plan){.wildcard = true, .first_name = "old-name", .unproven = "300ms"});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.second_port);
    client = world_client_at(&world, 100, 21, world.port);
    before = world_say(&world, client, server, "x");
    cr_assert_neq(before, 0);
    worker_die(&world, &world.workers[0]);
    world.plan.first_name = "new-name";
    worker_take_all(&world, world_worker(&world, 1));
    cr_expect_eq(world_live(&world), 1);
    world_turn(&world); /* its socket is open again */
    cr_expect(world_answer(&world, server, before, client, "late"));
    after = world_say(&world, client, server, "as new");
    cr_expect(after != 0 && after != before, "%u, then %u", before, after);
    cr_expect(world_answer(&world, server, before, client, "later still"));
    cr_expect(world_answer(&world, server, after, client, "in time"));
    cr_expect(world_wait(&world, is_none_left, &world, 5000), "%u sessions live", world_live(&world));
    world_close(&world);
    close(client);
}

Test(handover, to_a_configuration_with_another_server_port_ends_its_sessions)
{
    struct world world;
    int server, client;

    world_open(&world, &(struct plan){.persistence = true});
    worker_take_all(&world, world_worker(&world, 0));
    server = world_server(&world, 0, world.port);
    client = world_client(&world, 100);
    cr_assert_neq(world_say(&world, client, server, "x"), 0);
    worker_die(&world, &world.workers[0]);
    world_row(&world, 0)->server_port = 9; /* as it was configured then */
    worker_take_all(&world, world_worker(&world, 1));
    cr_expect_eq(world_live(&world), 0);
    cr_expect_neq(world_say(&world, client, server, "as new"), 0);
    close(client);
    world_close(&world);
}

Test(handover, of_a_row_without_a_record_claims_one_for_its_own_server)
{
    struct scene scene;
    struct session_row *row;

    scene_open(&scene, &(struct plan){.persistence = true});
    worker_die(&scene.world, scene.old);
    row = world_row(&scene.world, 0);
    uint32_t record = atomic_load(&row->record);
    atomic_store(&row->record, SEGMENT_NO_INDEX); /* as after a quarantine, or begun with a full table */
    atomic_store(&row->watch, 0);
    worker_take(&scene.world, scene.new, 0, -1);
    uv_run(&scene.world.loop, UV_RUN_NOWAIT); /* whoever waits in a listener comes first */
    uv_run(&scene.world.loop, UV_RUN_NOWAIT);
    cr_expect_eq(atomic_load(&row->record), record, "before its client says anything");
    expect_all_at_home(&scene);
    scene_close(&scene);
}

/* A reload that has changed nothing about the sessions makes no decision, neither by itself nor with the next datagram:
 * at ten thousand tunnels those would be most of its work. */
static uint64_t decisions_of_a_hand_over(struct scene *scene)
{
    uint64_t before;

    worker_die(&scene->world, scene->old);
    before = world_count(&scene->world, COUNTER_decisions);
    worker_take(&scene->world, scene->new, 0, -1);
    world_turn(&scene->world);
    expect_all_at_home(scene);
    return world_count(&scene->world, COUNTER_decisions) - before;
}

Test(handover, decides_nothing_anew_while_settings_and_keys_are_the_same)
{
    struct scene scene;

    scene_open(&scene, &(struct plan){.persistence = true});
    cr_expect_eq(decisions_of_a_hand_over(&scene), 0);
    scene_close(&scene);
}

Test(handover, decides_every_session_anew_when_the_settings_have_changed)
{
    struct scene scene;
    struct record_view view;

    scene_open(&scene, &(struct plan){.persistence = true});
    scene.world.plan.timeout = "90s";
    scene.new = world_worker(&scene.world, 2);
    cr_expect_eq(decisions_of_a_hand_over(&scene), CLIENTS);
    cr_assert(record_read(scene.world.segment, atomic_load(&world_row(&scene.world, 0)->record), &view));
    cr_expect_eq(view.timeout_s, 90);
    scene_close(&scene);
}

Test(handover, decides_every_session_anew_when_its_key_is_another_record_s)
{
    struct scene scene;

    scene_open(&scene, &(struct plan){.persistence = true});
    for (uint32_t i = 0; i < CLIENTS; i++) { /* as if a map that create() reads had changed */
        uint32_t index = atomic_load(&world_row(&scene.world, i)->record);
        struct record_bucket *buckets = scene.world.segment->buckets;
        atomic_fetch_xor(&buckets[index / RECORD_SLOTS].slots[index % RECORD_SLOTS].fingerprint[1], 1);
    }
    cr_expect_eq(decisions_of_a_hand_over(&scene), CLIENTS);
    scene_close(&scene);
}

/* ---- what a peer could send ---- */

struct message { /* as in socket_message.h */
    uint32_t magic, kind, count, lane;
    uint32_t rows[250];
};

static void send_socket(int peer, const struct message *message, int fd)
{
    union {
        struct cmsghdr align;
        uint8_t space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)message, 16 + 4 * message->count};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        header.msg_control = &control;
        header.msg_controllen = sizeof control;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        *rights = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    cr_assert_geq(sendmsg(peer, &header, 0), 0);
}

/* The first client's row gets the cell, which is connected to the server before. Returns the giver's end, which says no
 * DONE yet. */
static int give_first(struct scene *scene, int cell, const struct hp_endpoint *server)
{
    struct message message = {.magic = 0x656e616c, .count = 1};
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(server, &name);
    int pair[2];

    cr_assert_eq(connect(cell, (struct sockaddr *)&name, size), 0);
    pair_make(pair);
    worker_take(&scene->world, scene->new, 0, pair[0]);
    message.rows[0] = (uint32_t)(world_row(&scene->world, 0) - scene->world.segment->rows);
    send_socket(pair[1], &message, cell);
    close(cell);
    return pair[1];
}

/* What the cell heard between bind and connect came from anybody. */
Test(handover, socket_that_heard_a_stranger_before_it_was_connected_passes_none_of_it)
{
    struct scene scene;
    int cell, stranger, on = 1;
    struct sockaddr_storage name;

    scene_open(&scene, &(struct plan){0});
    worker_die(&scene.world, scene.old);
    struct hp_endpoint own = {.family = 4, .port = scene.ports[0]}, at = {.address = {127, 0, 0, 1}, .family = 4};
    struct hp_endpoint other = world_address(&scene.world, 99, scene.world.port);
    struct hp_endpoint server = world_address(&scene.world, 11, scene.world.port);
    cell = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(cell, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    socklen_t size = endpoint_to_sockaddr(&own, &name);
    cr_assert_eq(bind(cell, (struct sockaddr *)&name, size), 0);
    stranger = world_socket(&other);
    at.port = scene.ports[0];
    size = endpoint_to_sockaddr(&at, &name);
    cr_assert_eq(sendto(stranger, "evil", 4, 0, (struct sockaddr *)&name, size), 4);
    close(give_first(&scene, cell, &server));
    cr_assert(world_wait(&scene.world, worker_has_taken, scene.new, 2000));
    cr_expect(world_silent(&scene.world, scene.clients[0]));
    cr_expect_eq(world_count(&scene.world, COUNTER_dropped_stranger), 1);
    cr_expect(world_answer(&scene.world, scene.server, scene.ports[0], scene.clients[0], "good"));
    close(stranger);
    scene_close(&scene);
}

Test(handover, believes_no_message_that_makes_no_sense)
{
    struct scene scene;
    struct message message = {.magic = 0x656e616c, .count = 1};
    int pair[2], wrong;

    scene_open(&scene, &(struct plan){0});
    worker_die(&scene.world, scene.old);
    pair_make(pair);
    worker_take(&scene.world, scene.new, 0, pair[0]);
    struct hp_endpoint any = world_address(&scene.world, 99, 0);
    wrong = world_socket(&any);
    send_socket(pair[1], &message, wrong);                                          /* not what the row says */
    send_socket(pair[1], &message, wrong);                                          /* the same row again */
    send_socket(pair[1], &(struct message){.magic = 1, .count = 1}, wrong);         /* another magic */
    send_socket(pair[1], &(struct message){.magic = 0x656e616c, .lane = 5}, wrong); /* another lane */
    send_socket(pair[1], &(struct message){.magic = 0x656e616c, .kind = 77}, -1);   /* no such kind */
    message.rows[0] = UINT32_MAX - 1;
    send_socket(pair[1], &message, wrong); /* no such row */
    message.rows[0] = 60;
    send_socket(pair[1], &message, wrong); /* a free row */
    message.count = 2;
    send_socket(pair[1], &message, wrong); /* fewer sockets than rows */
    cr_assert_eq(send(pair[1], "short", 5, 0), 5);
    close(wrong);
    close(pair[1]);
    cr_assert(world_wait(&scene.world, worker_has_taken, scene.new, 2000));
    expect_all_at_home(&scene);
    scene_close(&scene);
}

/* A socket for the first client's row, with a port of its own, and what the giver says of it; then the port that this
 * client's datagrams come from; 0: its own. */
static uint16_t port_behind(uint8_t server, bool done, bool word)
{
    const struct message last = {.magic = 0x656e616c, .kind = 1, .count = word, .rows = {1}};
    struct scene scene;
    uint16_t port;
    int giver;

    scene_open(&scene, &(struct plan){0});
    worker_die(&scene.world, scene.old);
    struct hp_endpoint any = world_address(&scene.world, 98, 0);
    struct hp_endpoint peer = world_address(&scene.world, server, scene.world.port);
    giver = give_first(&scene, world_socket(&any), &peer);
    if (done)
        send_socket(giver, &last, -1);
    close(giver);
    cr_assert(world_wait(&scene.world, worker_has_taken, scene.new, 2000));
    port = world_say(&scene.world, scene.clients[0], scene.server, "where from");
    port = port == scene.ports[0] ? 0 : port;
    scene_close(&scene);
    return port;
}

Test(handover, believes_a_holder_that_is_through_where_its_sockets_come_from_and_nobody_where_they_lead_to)
{
    cr_expect_eq(port_behind(11, false, false), 0, "its giver has died: opened anew, at its own port");
    cr_expect_eq(port_behind(11, true, false), 0, "the giver has not looked at it");
    cr_expect_neq(port_behind(11, true, true), 0, "the giver has opened it, or looked at it");
    cr_expect_eq(port_behind(12, true, true), 0, "the server of this number may have another address by now");
}

/* Rows as a hostile or half-dead holder may leave them. */
Test(handover, of_damaged_rows_ends_those_and_keeps_the_rest)
{
    struct scene scene;
    struct session_row *twin, *lost;

    scene_open(&scene, &(struct plan){0});
    worker_die(&scene.world, scene.old);
    lost = world_row(&scene.world, 1);
    lost->server = 0xffff;
    twin = world_row(&scene.world, 2);
    twin->client = world_row(&scene.world, 0)->client;
    worker_take(&scene.world, scene.new, 0, -1);
    cr_expect_eq(world_live(&scene.world), CLIENTS - 2);
    for (uint32_t i = 0; i < CLIENTS; i++)
        if (i != 1 && i != 2)
            cr_expect_eq(world_say(&scene.world, scene.clients[i], scene.server, "home"), scene.ports[i]);
    cr_expect_neq(world_say(&scene.world, scene.clients[1], scene.server, "as new"), 0);
    scene_close(&scene);
}

/* Begun, but killed before the watch was written: the next datagram is decided anew, and stays where it is. */
Test(handover, of_a_row_without_its_watch_writes_it)
{
    struct scene scene;
    struct session_row *row;

    scene_open(&scene, &(struct plan){.persistence = true});
    worker_die(&scene.world, scene.old);
    row = world_row(&scene.world, 0);
    atomic_store(&row->record, SEGMENT_NO_INDEX);
    atomic_store(&row->watch, 0);
    atomic_store(&row->flags, 0);
    worker_take(&scene.world, scene.new, 0, -1);
    cr_expect_eq(world_say(&scene.world, scene.clients[0], scene.server, "home"), scene.ports[0]);
    cr_expect_neq(atomic_load(&row->record), SEGMENT_NO_INDEX);
    scene_close(&scene);
}

Test(handover, of_a_lane_that_is_not_here_is_an_error)
{
    struct world world;
    struct worker *worker;
    struct error error = {0};
    int pair[2];

    world_open(&world, &(struct plan){0});
    worker = world_worker(&world, 0);
    pair_make(pair);
    cr_expect_eq(relay_give(worker->relay, 0, pair[0], NULL, NULL, &error), -EINVAL);
    cr_expect_eq(relay_take(worker->relay, 4000, -1, NULL, NULL, &error), -EINVAL);
    worker_take_all(&world, worker);
    cr_expect_eq(relay_take(worker->relay, 0, pair[1], NULL, NULL, &error), -EINVAL);
    world_close(&world);
}
