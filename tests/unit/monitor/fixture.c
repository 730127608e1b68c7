/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/hash.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char *const server_names[] = {"vpn1", "vpn2", "vpn3"};
static char *const service_names[] = {"ike", "nat-t", "other"};
static char *const pool_names[] = {"all", "first"};
static uint32_t members[] = {0, 1, 2};

static void fill_config(struct fixture *self)
{
    for (uint32_t i = 0; i < FIXTURE_SERVERS; i++)
        self->servers[i] = (struct config_server){
            .name = server_names[i], .address = {.address = {127, 0, 0, (uint8_t)(i + 1)}, .family = 4}, .weight = 1};
    for (uint32_t i = 0; i < FIXTURE_POOLS; i++)
        self->pools[i] = (struct config_pool){.name = pool_names[i],
                                              .servers = members,
                                              .server_count = i == 0 ? FIXTURE_SERVERS : 1,
                                              .health = {CHECK_IKE, 60, 30, 2, 3, {.family = 0}, .source_at = {0, 0}}};
    self->profile = (struct config_profile){.name = (char *)"home", .plugin = (char *)"source_address"};
    for (uint32_t i = 0; i < FIXTURE_SERVICES; i++) {
        self->listen[i] = (struct hp_endpoint){.address = {127, 0, 0, 1}, .port = (uint16_t)(500 + i), .family = 4};
        self->services[i] = (struct config_service){.name = service_names[i],
                                                    .listen = &self->listen[i],
                                                    .listen_count = 1,
                                                    .protocol = 17,
                                                    .check = CHECK_NONE,
                                                    .health_group = true,
                                                    .port = (uint16_t)(500 + i),
                                                    .server_port = (uint16_t)(500 + i),
                                                    .idle_ms = 120000};
    }
    self->config = (struct config){.path = (char *)"test.yaml",
                                   .workers = 2,
                                   .servers = self->servers,
                                   .pools = self->pools,
                                   .profiles = &self->profile,
                                   .services = self->services,
                                   .server_count = FIXTURE_SERVERS,
                                   .pool_count = FIXTURE_POOLS,
                                   .profile_count = 1,
                                   .service_count = FIXTURE_SERVICES};
}

static void on_reload(void *arg, int connection)
{
    ((struct fixture *)arg)->passed_on = connection;
}

void fixture_open(struct fixture *fixture)
{
    const char *base = getenv("TMPDIR");
    struct segment_shape shape = {.records = 600, .sessions = 4096, .lanes = 8};
    struct error error = {0};
    int directory;

    memset((void *)fixture, 0, sizeof *fixture);
    snprintf(fixture->path, sizeof fixture->path, "%.40s/monitor-XXXXXX", base != NULL ? base : "/tmp");
    cr_assert_not_null(mkdtemp(fixture->path));
    directory = open(fixture->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    log_init(&fixture->log, "test");
    fixture->log.fd = memfd_create("log", MFD_CLOEXEC);
    cr_assert_eq(segment_open(&fixture->segment, directory, &shape, &fixture->log, &error), 0, "%s", error.what);
    close(directory);
    cr_assert_eq(uv_loop_init(&fixture->loop), 0);
    fixture->passed_on = -1;
    fixture->host = (struct monitor_host){fixture, on_reload};
    fill_config(fixture);
}

void fixture_probe_tcp(struct fixture *fixture, uint32_t service, uint16_t port)
{
    fixture->services[service].protocol = 6;
    fixture->services[service].check = CHECK_TCP;
    fixture->services[service].server_port = port;
}

void fixture_probe_port(struct fixture *fixture, uint32_t service, uint16_t port)
{
    fixture->services[service].check = CHECK_IKE;
    fixture->services[service].server_port = port;
}

static void assign_slots(struct fixture *self)
{
    for (uint32_t i = 0; i < FIXTURE_SERVERS; i++) {
        self->slots[i] = server_assign(self->segment, self->servers[i].name, &self->servers[i].address);
        server_set_state(self->segment, self->slots[i], self->servers[i].state, true);
    }
    for (uint32_t i = 0; i < FIXTURE_POOLS; i++)
        pool_assign(self->segment, self->pools[i].name);
    profile_assign(self->segment, self->profile.name);
    for (uint32_t i = 0; i < self->config.service_count; i++) {
        const struct config_service *service = &self->services[i];
        const struct config_pool *pool = &self->pools[service->pool];

        service_assign(self->segment, service->name);
        for (uint32_t j = 0; service->check != CHECK_NONE && j < pool->server_count; j++)
            server_probe_assign(self->segment, self->slots[pool->servers[j]], service->protocol, service->server_port);
    }
}

static int control_socket(const struct fixture *self)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s/control.sock", self->path);
    unlink(address.sun_path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0, "%s", strerror(errno));
    cr_assert_eq(listen(fd, 128), 0);
    return fd;
}

void fixture_start(struct fixture *fixture)
{
    struct error error = {0};

    assign_slots(fixture);
    fixture->self = process_begin(fixture->segment, PROCESS_MONITOR, 0);
    cr_assert_eq(topology_open(&fixture->topology, &fixture->config, fixture->segment, &error), 0, "%s", error.what);
    cr_assert_eq(monitor_open(&fixture->monitor, &fixture->loop, &fixture->config, fixture->topology, fixture->segment,
                              fixture->self, control_socket(fixture), &fixture->host, &fixture->log, &error),
                 0, "%s", error.what);
    monitor_start(fixture->monitor);
}

static void on_closed(void *arg)
{
    ((struct fixture *)arg)->monitor = NULL;
}

void fixture_stop(struct fixture *fixture)
{
    if (fixture->monitor == NULL)
        return;
    monitor_close(fixture->monitor, on_closed, fixture);
    while (fixture->monitor != NULL) /* others may still be on this loop */
        uv_run(&fixture->loop, UV_RUN_ONCE);
    topology_close(fixture->topology);
    process_end(fixture->segment, fixture->self);
}

void fixture_close(struct fixture *fixture)
{
    char path[128];

    fixture_stop(fixture);
    uv_run(&fixture->loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&fixture->loop), 0, "a handle was left open");
    segment_close(fixture->segment);
    snprintf(path, sizeof path, "%s/control.sock", fixture->path);
    unlink(path);
    snprintf(path, sizeof path, "%s/segment", fixture->path);
    unlink(path);
    rmdir(fixture->path);
    close(fixture->log.fd);
}

static void on_wake(uv_timer_t *timer)
{
    (void)timer;
}

static void on_wake_closed(uv_handle_t *handle)
{
    *(bool *)handle->data = true;
}

bool fixture_until(struct fixture *fixture, bool (*claim)(struct fixture *fixture, void *arg), void *arg)
{
    uint64_t limit = clock_now_ms() + FIXTURE_WAIT_MS;
    bool held, closed = false;
    uv_timer_t wake;

    uv_timer_init(&fixture->loop, &wake);
    wake.data = &closed;
    uv_timer_start(&wake, on_wake, 1, 5); /* a claim may depend on what is not in the loop */
    while (!(held = claim(fixture, arg)) && clock_now_ms() < limit)
        uv_run(&fixture->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&wake, on_wake_closed);
    while (!closed)
        uv_run(&fixture->loop, UV_RUN_NOWAIT);
    return held;
}

static bool time_is_over(struct fixture *fixture, void *arg)
{
    (void)fixture;
    return clock_now_ms() >= *(uint64_t *)arg;
}

void fixture_run(struct fixture *fixture, uint64_t ms)
{
    uint64_t end = clock_now_ms() + ms;

    fixture_until(fixture, time_is_over, &end);
}

const char *fixture_logged(struct fixture *fixture, char text[4096])
{
    ssize_t size = pread(fixture->log.fd, text, 4095, 0);

    text[size > 0 ? size : 0] = '\0';
    return text;
}

struct health_view fixture_health(const struct fixture *fixture, uint32_t server, uint16_t port)
{
    uint32_t slot = fixture->slots[server], index = server_probe_find(fixture->segment, slot, 17, port);

    if (index == SEGMENT_NO_INDEX) /* each port here is of one protocol */
        index = server_probe_find(fixture->segment, slot, 6, port);
    const struct server_probe *probe = &fixture->segment->servers[slot].probes[index % SEGMENT_PROBES];
    struct health_view view = {.known = atomic_load(&probe->known) != 0,
                               .down = (server_word(fixture->segment, slot) >> index & 1u) != 0,
                               .failures = atomic_load(&probe->failures)};

    cr_assert_neq(index, SEGMENT_NO_INDEX);
    memcpy(view.reason, probe->reason, sizeof probe->reason);
    return view;
}

static struct hp_endpoint client_of(uint8_t last)
{
    return (struct hp_endpoint){.address = {198, 51, 100, last}, .family = 4};
}

struct record_ref fixture_record(struct fixture *fixture, uint8_t last, uint32_t server, uint32_t timeout_s,
                                 uint32_t age_s)
{
    struct record_origin origin = {.timeout_s = timeout_s,
                                   .profile = hash_identity("profile", "home"),
                                   .service = hash_identity("service", "ike"),
                                   .client = client_of(last)};
    struct record_key key;
    struct record_ref ref;
    uint32_t evicted;

    record_key_make(&key, fixture->segment, origin.profile, 0, &last, 1);
    cr_assert_eq(record_claim(fixture->segment, 0, &key, fixture->slots[server], &origin,
                              (uint32_t)clock_now_s() - age_s, true, &ref, &evicted),
                 RECORD_CREATED);
    return ref;
}

struct session_row *fixture_session(struct fixture *fixture, uint32_t row, uint8_t last, const char *service,
                                    uint32_t server, const struct record_ref *record)
{
    struct session_row content, *at = &fixture->segment->rows[row];

    memset((void *)&content, 0, sizeof content);
    content.client = client_of(last);
    content.client.port = (uint16_t)(10000 + row);
    content.service = hash_identity("service", service);
    content.server = (uint16_t)fixture->slots[server];
    content.server_port = 500;
    content.source_port = (uint16_t)(20000 + row);
    session_begin(at, &content, clock_now_ms());
    atomic_store(&at->record, record != NULL ? record->index : SEGMENT_NO_INDEX);
    atomic_store(&at->watch, record != NULL ? RECORD_DECISION(record->value) : 0);
    return at;
}

static bool recount_is(struct fixture *fixture, void *arg)
{
    return atomic_load(&fixture->segment->header->recount) >= *(uint64_t *)arg;
}

void fixture_recount(struct fixture *fixture)
{
    uint64_t wanted = atomic_load(&fixture->segment->header->recount) + 2; /* one may be half through */

    cr_assert(fixture_until(fixture, recount_is, &wanted), "no recount came");
}

int fixture_connect(struct fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s/control.sock", fixture->path);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0, "%s", strerror(errno));
    return fd;
}

struct reading {
    int fd;
    char *text;
    size_t size, room;
};

static bool at_end(struct fixture *fixture, void *arg)
{
    struct reading *reading = arg;
    ssize_t got;

    (void)fixture;
    do {
        if (reading->size + 65536 > reading->room)
            reading->text = realloc(reading->text, reading->room = reading->room * 2 + 131072);
        got = recv(reading->fd, reading->text + reading->size, reading->room - reading->size - 1, 0);
        if (got > 0)
            reading->size += (size_t)got;
    } while (got > 0);
    return got == 0 || (errno != EAGAIN && errno != EINTR);
}

char *fixture_read_all(struct fixture *fixture, int fd)
{
    struct reading reading = {.fd = fd};

    if (!fixture_until(fixture, at_end, &reading)) {
        free(reading.text);
        return NULL;
    }
    reading.text[reading.size] = '\0';
    return reading.text;
}

json_t *fixture_ask(struct fixture *fixture, const char *line)
{
    int fd = fixture_connect(fixture);
    char *text;
    json_t *answer;

    cr_assert_eq(send(fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
    cr_assert_eq(send(fd, "\n", 1, MSG_NOSIGNAL), 1);
    text = fixture_read_all(fixture, fd);
    close(fd);
    answer = text != NULL ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return answer;
}
