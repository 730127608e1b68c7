/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of runs that the kernel does not take: it says so once, the first time that it is asked. */
#include "relay/run.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

ssize_t __real_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags);
int __real_sendmmsg(int fd, struct mmsghdr *headers, unsigned count, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned count, int flags);

static int refuses_with; /* errno value; 0: it does not */
static bool takes_one;   /* message of the first call, and refuses then */

static bool refused(void)
{
    if (refuses_with == 0 || takes_one)
        return false;
    errno = refuses_with;
    refuses_with = 0;
    return true;
}

ssize_t __wrap_send(int fd, const void *data, size_t size, int flags)
{
    return refused() ? -1 : __real_send(fd, data, size, flags);
}

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned count, int flags)
{
    unsigned most = takes_one ? 1 : count;

    if (refused())
        return -1;
    takes_one = false;
    return __real_sendmmsg(fd, headers, most, flags);
}

struct scene {
    int from, to; /* from is connected to to */
    struct runs *runs;
    struct run_result result;
};

static struct scene scene_open(void)
{
    struct scene scene = {.from = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
                          .to = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
                          .runs = calloc(1, sizeof *scene.runs)};
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;

    cr_assert_eq(bind(scene.to, (struct sockaddr *)&name, sizeof name), 0);
    cr_assert_eq(getsockname(scene.to, (struct sockaddr *)&name, &size), 0);
    cr_assert_eq(connect(scene.from, (struct sockaddr *)&name, sizeof name), 0);
    return scene;
}

static void scene_close(struct scene *scene)
{
    close(scene->from);
    close(scene->to);
    free(scene->runs);
}

/* Of one owner, 100 octets each. */
static void add(struct scene *scene, const void *owner, uint32_t count)
{
    static const uint8_t payload[100];

    for (uint32_t i = 0; i < count; i++)
        runs_add(scene->runs,
                 &(struct run_datagram){.owner = owner, .data = payload, .size = sizeof payload, .family = 4});
}

static void send_refused(struct scene *scene, int code)
{
    refuses_with = code;
    runs_send(scene->runs, scene->from, &scene->result);
    cr_assert_eq(refuses_with, 0, "nobody was asked");
}

static uint32_t arrived(const struct scene *scene)
{
    struct pollfd look = {.fd = scene->to, .events = POLLIN};
    uint8_t data[256];
    uint32_t count = 0;

    while (poll(&look, 1, 0) == 1 && recv(scene->to, data, sizeof data, 0) == 100)
        count++;
    return count;
}

static const int no_room[] = {EAGAIN, ENOBUFS};

Test(run_refused, for_want_of_room_is_dropped_and_counted_and_the_next_run_goes)
{
    for (size_t i = 0; i < sizeof no_room / sizeof no_room[0]; i++) {
        struct scene scene = scene_open();
        add(&scene, "one", 3);
        add(&scene, "another", 4);
        send_refused(&scene, no_room[i]);
        cr_expect_eq(scene.result.dropped, 3);
        cr_expect_eq(scene.result.dropped_mask, 0x7, "which ones");
        cr_expect_eq(scene.result.datagrams, 4);
        cr_expect_eq(scene.result.bytes, 400);
        cr_expect_eq(arrived(&scene), 4);
        scene_close(&scene);
    }
}

Test(run_refused, behind_another_is_told_by_its_place)
{
    struct scene scene = scene_open();

    add(&scene, "one", 3);
    add(&scene, "another", 2);
    add(&scene, "a third", 1);
    takes_one = true;
    send_refused(&scene, ENOBUFS);
    cr_expect_eq(scene.result.dropped_mask, 0x3u << 3);
    cr_expect_eq(scene.result.dropped, 2);
    cr_expect_eq(arrived(&scene), 4);
    scene_close(&scene);
}

Test(run_refused, alone_for_want_of_room_is_dropped_and_counted_once)
{
    for (size_t i = 0; i < sizeof no_room / sizeof no_room[0]; i++) {
        struct scene scene = scene_open();
        add(&scene, "one", 1);
        send_refused(&scene, no_room[i]);
        cr_expect_eq(scene.result.dropped, 1);
        cr_expect_eq(scene.result.datagrams, 0);
        cr_expect_eq(arrived(&scene), 0);
        scene_close(&scene);
    }
}

Test(run_refused, by_a_device_without_checksums_is_the_last_run)
{
    struct scene scene = scene_open();

    add(&scene, "one", 4);
    send_refused(&scene, EIO);
    cr_expect_eq(scene.result.datagrams, 4);
    cr_expect_eq(arrived(&scene), 4);
    add(&scene, "one", 4);
    cr_expect_eq(scene.runs->count, 4, "no run any more");
    runs_send(scene.runs, scene.from, &scene.result);
    cr_expect_eq(scene.result.gso_runs, 0);
    cr_expect_eq(arrived(&scene), 4);
    scene_close(&scene);
}

Test(run_refused, by_its_path_goes_singly_and_the_next_one_as_a_run)
{
    static const int codes[] = {EINVAL, EMSGSIZE};

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        struct scene scene = scene_open();
        add(&scene, "one", 4);
        send_refused(&scene, codes[i]);
        cr_expect_eq(scene.result.datagrams, 4);
        cr_expect_eq(scene.result.gso_runs, 0);
        cr_expect_eq(arrived(&scene), 4);
        add(&scene, "one", 4);
        runs_send(scene.runs, scene.from, &scene.result);
        cr_expect_eq(scene.result.gso_runs, 1);
        cr_expect_eq(arrived(&scene), 4);
        scene_close(&scene);
    }
}
