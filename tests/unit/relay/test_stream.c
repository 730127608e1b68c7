/* SPDX-License-Identifier: Apache-2.0 */
/* Streams in one process: begin, ends, and a lane that changes hands while octets are unsent. */
#include "world.h"

#include "base/endpoint.h"
#include "relay/socket_message.h"
#include "relay/stream.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MANY (24u << 20) /* octets: more than two sockets and a relay hold */

struct scene {
    struct world world;
    struct worker *old, *new;
    int listener, client, server; /* server: the accepted end */
};

static int stream_socket(const struct hp_endpoint *address)
{
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(address, &name);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    cr_assert_geq(fd, 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&name, size), 0, "bind: %s", strerror(errno));
    return fd;
}

static int server_listen(struct world *world)
{
    struct hp_endpoint address = world_address(world, 11, world->port);
    int fd = stream_socket(&address);

    cr_assert_eq(listen(fd, 16), 0);
    return fd;
}

static int client_connect(struct world *world, uint8_t host)
{
    struct hp_endpoint own = world_address(world, host, 0), peer = world_address(world, 1, world->port);
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(&peer, &name);
    int fd = stream_socket(&own);

    cr_assert(connect(fd, (struct sockaddr *)&name, size) == 0 || errno == EINPROGRESS);
    return fd;
}

struct accepting {
    int listener, accepted;
};

static bool has_accepted(void *arg)
{
    struct accepting *accepting = arg;

    accepting->accepted = accept4(accepting->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return accepting->accepted >= 0;
}

static int server_accept(struct world *world, int listener)
{
    struct accepting accepting = {.listener = listener};

    cr_assert(world_wait(world, has_accepted, &accepting, 2000), "nobody came to the server");
    return accepting.accepted;
}

static void scene_open(struct scene *scene, const struct plan *plan)
{
    world_open(&scene->world, plan);
    scene->old = world_worker(&scene->world, 0);
    worker_take_all(&scene->world, scene->old);
    scene->listener = server_listen(&scene->world);
    scene->client = client_connect(&scene->world, 100);
    scene->server = server_accept(&scene->world, scene->listener);
    scene->new = world_worker(&scene->world, 1);
}

static void scene_close(struct scene *scene)
{
    close(scene->client);
    close(scene->server);
    close(scene->listener);
    world_close(&scene->world);
}

static void hand_over(struct scene *scene)
{
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    worker_take(&scene->world, scene->new, 0, pair[0]);
    worker_give(&scene->world, scene->old, 0, pair[1]);
    cr_assert(world_wait(&scene->world, worker_has_taken, scene->new, 2000));
    worker_die(&scene->world, scene->old);
}

static uint8_t octet(uint32_t position)
{
    return (uint8_t)(position * 7 + position / 251);
}

/* What the kernel takes of the octets from that position on. */
static uint32_t speak(int fd, uint32_t position)
{
    uint8_t data[16384];
    ssize_t sent;

    for (uint32_t i = 0; i < sizeof data; i++)
        data[i] = octet(position + i);
    sent = send(fd, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent > 0 ? (uint32_t)sent : 0;
}

/* Until nobody takes an octet more; how many there are. */
static uint32_t stuff(struct world *world, int fd)
{
    uint32_t said = 0, idle = 0;

    while (idle < 20 && said < MANY) {
        uint32_t more = speak(fd, said);
        said += more;
        idle = more > 0 ? 0 : idle + 1;
        if (more == 0)
            world_turn(world);
    }
    cr_assert_lt(said, MANY, "nobody stops this sender");
    return said;
}

struct hearing {
    int fd;
    uint32_t heard, end;
    bool over; /* the end came */
};

static bool has_heard(void *arg)
{
    struct hearing *hearing = arg;
    uint8_t data[16384];
    ssize_t size;

    while ((size = recv(hearing->fd, data, sizeof data, MSG_DONTWAIT)) > 0) {
        for (uint32_t i = 0; i < (uint32_t)size; i++)
            cr_assert_eq(data[i], octet(hearing->heard + i), "octet %u", hearing->heard + i);
        hearing->heard += (uint32_t)size;
    }
    hearing->over = size == 0;
    return hearing->heard >= hearing->end || hearing->over;
}

static void hear(struct world *world, int fd, uint32_t octets)
{
    struct hearing hearing = {.fd = fd, .end = octets};

    cr_expect(world_wait(world, has_heard, &hearing, 20000), "%u of %u octets came", hearing.heard, octets);
    cr_expect_eq(hearing.heard, octets);
}

static bool is_over(void *arg)
{
    struct hearing *hearing = arg;

    hearing->end = UINT32_MAX;
    return has_heard(hearing) && hearing->over;
}

static bool is_broken(void *arg)
{
    char one;

    return recv(*(int *)arg, &one, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET;
}

static bool nobody_lives(void *arg)
{
    return world_live(arg) == 0;
}

Test(stream, takes_a_row_with_its_port_and_no_cell)
{
    struct scene scene;
    struct sockaddr_storage name;
    struct hp_endpoint peer;
    socklen_t size = sizeof name;

    scene_open(&scene, &(struct plan){.tcp = true});
    cr_assert_eq(world_live(&scene.world), 1);
    cr_assert_eq(getpeername(scene.server, (struct sockaddr *)&name, &size), 0);
    cr_assert(endpoint_from_sockaddr(&peer, (struct sockaddr *)&name, size));
    cr_expect_eq(world_row(&scene.world, 0)->source_port, peer.port);
    cr_expect_eq(world_count(&scene.world, COUNTER_sessions_begun), 1);
    scene_close(&scene);
}

Test(stream, handed_over_in_peace_goes_on)
{
    struct scene scene;

    scene_open(&scene, &(struct plan){.tcp = true});
    cr_assert_gt(speak(scene.client, 0), 0);
    hear(&scene.world, scene.server, 16384);
    hand_over(&scene);
    cr_expect_gt(speak(scene.client, 0), 0);
    hear(&scene.world, scene.server, 16384);
    cr_expect_gt(speak(scene.server, 0), 0);
    hear(&scene.world, scene.client, 16384);
    cr_expect_eq(world_count(&scene.world, COUNTER_sessions_adopted), 1);
    scene_close(&scene);
}

Test(stream, unsent_octets_of_both_directions_are_handed_over_once)
{
    struct scene scene;
    uint32_t up, down;

    scene_open(&scene, &(struct plan){.tcp = true});
    up = stuff(&scene.world, scene.client);
    down = stuff(&scene.world, scene.server);
    hand_over(&scene);
    hear(&scene.world, scene.server, up);
    hear(&scene.world, scene.client, down);
    scene_close(&scene);
}

Test(stream, an_end_behind_unsent_octets_is_handed_over_too)
{
    struct scene scene;
    struct hearing end;
    uint32_t up;

    scene_open(&scene, &(struct plan){.tcp = true});
    up = stuff(&scene.world, scene.client);
    cr_assert_eq(shutdown(scene.client, SHUT_WR), 0);
    hand_over(&scene);
    hear(&scene.world, scene.server, up);
    end = (struct hearing){.fd = scene.server};
    cr_expect(world_wait(&scene.world, is_over, &end, 2000));
    cr_expect_gt(speak(scene.server, 0), 0);
    hear(&scene.world, scene.client, 16384);
    scene_close(&scene);
}

Test(stream, a_half_that_is_shut_stays_shut_behind_a_hand_over)
{
    struct scene scene;
    struct hearing end;

    scene_open(&scene, &(struct plan){.tcp = true});
    cr_assert_eq(shutdown(scene.server, SHUT_WR), 0);
    end = (struct hearing){.fd = scene.client};
    cr_assert(world_wait(&scene.world, is_over, &end, 2000));
    hand_over(&scene);
    cr_expect_gt(speak(scene.client, 0), 0);
    hear(&scene.world, scene.server, 16384);
    cr_assert_eq(shutdown(scene.client, SHUT_WR), 0);
    end = (struct hearing){.fd = scene.server};
    cr_expect(world_wait(&scene.world, is_over, &end, 2000));
    cr_expect(world_wait(&scene.world, nobody_lives, &scene.world, 2000));
    scene_close(&scene);
}

static void hold_too(const struct worker *worker, int held[2])
{
    const struct lane *lane = worker->relay->lanes;
    uint32_t row = 0;

    while (lane->paths[row] == NULL)
        cr_assert_lt(++row, lane->row_count);
    held[0] = dup(lane->paths[row]->stream->client.watched.fd);
    held[1] = dup(lane->paths[row]->stream->server.watched.fd);
    cr_assert(held[0] >= 0 && held[1] >= 0);
}

/* To close them says nothing then. */
Test(stream, the_last_end_arrives_while_somebody_else_has_the_sockets_still)
{
    struct scene scene;
    struct hearing end;
    int held[2];

    scene_open(&scene, &(struct plan){.tcp = true});
    cr_assert_gt(speak(scene.client, 0), 0);
    hear(&scene.world, scene.server, 16384);
    hold_too(scene.old, held);
    hand_over(&scene);
    cr_assert_eq(shutdown(scene.server, SHUT_WR), 0);
    end = (struct hearing){.fd = scene.client};
    cr_assert(world_wait(&scene.world, is_over, &end, 2000));
    cr_assert_eq(shutdown(scene.client, SHUT_WR), 0);
    end = (struct hearing){.fd = scene.server};
    cr_expect(world_wait(&scene.world, is_over, &end, 2000));
    close(held[0]);
    close(held[1]);
    scene_close(&scene);
}

Test(stream, that_has_no_holder_any_more_ends)
{
    struct scene scene;

    scene_open(&scene, &(struct plan){.tcp = true});
    worker_die(&scene.world, scene.old);
    cr_assert_eq(world_live(&scene.world), 1);
    worker_take(&scene.world, scene.new, 0, -1);
    cr_expect_eq(world_live(&scene.world), 0);
    scene_close(&scene);
}

/* The giver's words end in the middle: what cannot be whole is reset, never served with a gap. */
Test(stream, whose_octets_have_not_all_come_is_reset)
{
    struct scene scene;
    struct socket_message message = {.kind = SOCKET_MESSAGE_STREAMS, .count = 4};
    struct hp_endpoint any;
    int pair[2], ends[2];

    scene_open(&scene, &(struct plan){.tcp = true});
    worker_die(&scene.world, scene.old);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    worker_take(&scene.world, scene.new, 0, pair[0]);
    any = world_address(&scene.world, 99, 0);
    ends[0] = stream_socket(&any);
    ends[1] = stream_socket(&any);
    message.rows[0] = (uint32_t)(world_row(&scene.world, 0) - scene.world.segment->rows);
    message.rows[2] = 100;
    cr_assert_eq(socket_message_send(pair[1], &message, ends, 2), 0);
    message.count = 2;
    message.rows[1] = 0;
    cr_assert_eq(socket_message_send_rest(pair[1], &message, (const uint8_t *)"not a hundred", 13), 0);
    message.rows[1] = 1; /* of which none was announced */
    cr_assert_eq(socket_message_send_rest(pair[1], &message, (const uint8_t *)"no", 2), 0);
    message.rows[0] = UINT32_MAX;
    cr_assert_eq(socket_message_send_rest(pair[1], &message, (const uint8_t *)"no", 2), 0);
    close(pair[1]);
    cr_assert(world_wait(&scene.world, worker_has_taken, scene.new, 2000));
    cr_expect_eq(world_live(&scene.world), 0);
    close(ends[0]);
    close(ends[1]);
    scene_close(&scene);
}

Test(stream, a_reset_reaches_the_other_side)
{
    struct scene scene;
    const struct linger at_once = {.l_onoff = 1};

    scene_open(&scene, &(struct plan){.tcp = true});
    cr_assert_eq(setsockopt(scene.client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    close(scene.client);
    cr_expect(world_wait(&scene.world, is_broken, &scene.server, 2000));
    cr_expect(world_wait(&scene.world, nobody_lives, &scene.world, 2000));
    scene.client = dup(scene.server);
    scene_close(&scene);
}

Test(stream, of_a_client_when_no_row_is_left_is_reset)
{
    struct scene scene;
    int second;

    scene_open(&scene, &(struct plan){.tcp = true, .rows = 1});
    second = client_connect(&scene.world, 101);
    cr_expect(world_wait(&scene.world, is_broken, &second, 2000));
    cr_expect_eq(world_count(&scene.world, COUNTER_refused_sessions_full), 1);
    close(second);
    scene_close(&scene);
}
