/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include "base/clock.h"
#include "base/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_MS 2000u

/* No test framework here: the plain programs use this file too. */
static void require(bool fine, const char *what)
{
    if (fine)
        return;
    perror(what);
    abort();
}

static void require_done(int status, const struct error *error)
{
    if (status == 0)
        return;
    fprintf(stderr, "%s\n", error->what);
    abort();
}

static const char *const server_names[] = {"vpn1", "vpn2", "vpn3"};

static const char *or_else(const char *text, const char *usual)
{
    return text != NULL ? text : usual;
}

struct hp_endpoint world_address(const struct world *world, uint8_t host, uint16_t port)
{
    return (struct hp_endpoint){.address = {127, world->net[0], world->net[1], host}, .family = 4, .port = port};
}

int world_socket(const struct hp_endpoint *address)
{
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(address, &name);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), buffer = 4 << 20;

    require(fd >= 0, "socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    require(bind(fd, (struct sockaddr *)&name, size) == 0, "bind");
    return fd;
}

static uint16_t own_port(int fd)
{
    struct sockaddr_storage name;
    struct hp_endpoint own = {0};
    socklen_t size = sizeof name;

    require(getsockname(fd, (struct sockaddr *)&name, &size) == 0, "getsockname");
    require(endpoint_from_sockaddr(&own, (struct sockaddr *)&name, size), "endpoint_from_sockaddr");
    return own.port;
}

static uint16_t free_port(const struct world *world)
{
    struct hp_endpoint any = world_address(world, 1, 0);
    int fd = world_socket(&any);
    uint16_t port = own_port(fd);

    close(fd);
    return port;
}

/* ---- the configuration ---- */

static void write_config(const struct world *world, char *text, size_t size)
{
    const struct plan *plan = &world->plan;
    FILE *out = fmemopen(text, size, "w");
    const char *persistence = plan->persistence ? ", persistence: home" : "", *protocol = plan->tcp ? "tcp" : "udp";

    require(out != NULL, "fmemopen");
    fprintf(out, "workers: 1\nlog: { sessions: %s }\n", plan->log ? "on" : "off");
    fprintf(out, "sessions: { capacity: %u, idle: %s, idle_unproven: %s, ports: %u-%u }\n", plan->rows,
            or_else(plan->idle, "60s"), or_else(plan->unproven, "60s"), world->port_first, world->port_first + 2047);
    fprintf(out, "servers:\n");
    for (uint32_t i = 0; i < plan->servers; i++)
        fprintf(out, "  %s: { address: 127.%u.%u.%u }\n", server_names[i], world->net[0], world->net[1], 11 + i);
    fprintf(out, "pools:\n  all: { servers: [ vpn1%s%s ], health: { check: %s }", plan->servers > 1 ? ", vpn2" : "",
            plan->servers > 2 ? ", vpn3" : "", plan->ike ? "ike" : "none");
    if (plan->wildcard) /* the server's own address is one of the wildcard's */
        fprintf(out, ", port: %u", world->second_port);
    fprintf(out, " }\n");
    if (plan->persistence)
        fprintf(out, "persistence:\n  home: { plugin: \"%s\", options: { timeout: %s } }\n", RELAY_PLUGIN,
                or_else(plan->timeout, "60s"));
    fprintf(out, "services:\n");
    if (plan->wildcard)
        fprintf(out, "  %s: { listen: \"0.0.0.0:%u\", protocol: %s, pool: all%s }\n",
                or_else(plan->first_name, "first"), world->port, protocol, persistence);
    else
        fprintf(out, "  %s: { listen: \"127.%u.%u.1:%u\", protocol: %s, pool: all%s }\n",
                or_else(plan->first_name, "first"), world->net[0], world->net[1], world->port, protocol, persistence);
    if (plan->two_services)
        fprintf(out, "  second: { listen: \"127.%u.%u.1:%u\", protocol: %s, pool: all%s }\n", world->net[0],
                world->net[1], world->second_port, protocol, persistence);
    fclose(out);
}

static struct config *read_config(const struct world *world)
{
    char text[4096] = "";
    struct diagnostics *diagnostics;
    struct config *config = NULL;
    int status;

    write_config(world, text, sizeof text);
    require(diagnostics_open(&diagnostics, "test.yaml", text, strlen(text)) == 0, "diagnostics_open");
    status = config_read(&config, "test.yaml", text, strlen(text), diagnostics);
    if (status < 0)
        diagnostics_print(diagnostics, stderr);
    diagnostics_close(diagnostics);
    require(status == 0, "config_read");
    config->port_last = (uint16_t)(config->port_first + world->plan.ports - 1); /* fewer than a file may say */
    return config;
}

static void assign_slots(struct world *world, const struct config *config)
{
    for (uint32_t i = 0; i < config->server_count; i++) {
        uint32_t slot = server_assign(world->segment, config->servers[i].name, &config->servers[i].address);
        server_set_state(world->segment, slot, config->servers[i].state, true);
        for (uint32_t j = 0; j < config->service_count; j++)
            server_probe_assign(world->segment, slot, 17, config->services[j].server_port);
    }
    for (uint32_t i = 0; i < config->pool_count; i++)
        pool_assign(world->segment, config->pools[i].name);
    for (uint32_t i = 0; i < config->profile_count; i++)
        profile_assign(world->segment, config->profiles[i].name);
    for (uint32_t i = 0; i < config->service_count; i++)
        service_assign(world->segment, config->services[i].name);
}

/* ---- the world ---- */

static void on_pulse(uv_timer_t *timer)
{
    (void)timer; /* wakes the loop, so that waiting can look at sockets that it does not know */
}

static void open_segment(struct world *world)
{
    const char *base = getenv("TMPDIR");
    struct segment_shape shape = {.records = 64, .sessions = world->plan.rows, .lanes = world->plan.lanes};
    struct error error = {0};
    int directory;

    snprintf(world->folder, sizeof world->folder, "%.40s/relay-XXXXXX", or_else(base, "/tmp"));
    require(mkdtemp(world->folder) != NULL, "mkdtemp");
    directory = open(world->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    require_done(segment_open(&world->segment, directory, &shape, &world->log, &error), &error);
    close(directory);
}

static void open_listeners(struct world *world, const struct config *config)
{
    struct error error = {0};

    for (uint32_t i = 0; i < config->service_count; i++)
        for (uint32_t lane = 0; lane < world->plan.lanes; lane++)
            require_done(listener_socket(&world->listeners[i][lane], &config->services[i].listen[0],
                                         config->services[i].protocol, false, false, &error),
                         &error);
}

void world_open(struct world *world, const struct plan *plan)
{
    uint32_t pid = (uint32_t)getpid();
    struct config *config;

    memset((void *)world, 0, sizeof *world);
    world->plan = *plan;
    world->plan.lanes = plan->lanes != 0 ? plan->lanes : 1;
    world->plan.rows = plan->rows != 0 ? plan->rows : 64;
    world->plan.ports = plan->ports != 0 ? plan->ports : 64;
    world->plan.servers = plan->servers != 0 ? plan->servers : 1;
    world->net[0] = (uint8_t)(64 + (pid >> 8) % 64);
    world->net[1] = (uint8_t)pid;
    world->port = free_port(world);
    world->second_port = free_port(world);
    world->port_first = (uint16_t)(8192 + pid % 16 * 1024);
    memset(world->listeners, 0xff, sizeof world->listeners);
    memset(world->servers, 0xff, sizeof world->servers);
    log_init(&world->log, "test");
    world->log.fd = memfd_create("log", MFD_CLOEXEC);
    require(uv_loop_init(&world->loop) == 0, "uv_loop_init");
    uv_timer_init(&world->loop, &world->pulse);
    uv_timer_start(&world->pulse, on_pulse, 2, 2);
    open_segment(world);
    config = read_config(world);
    assign_slots(world, config);
    open_listeners(world, config);
    config_free(config);
}

struct worker *world_worker(struct world *world, uint32_t number)
{
    struct worker *worker = &world->workers[number];
    struct error error = {0};
    uint32_t listener = 0;

    worker->config = read_config(world);
    assign_slots(world, worker->config);
    worker->self = process_begin(world->segment, PROCESS_WORKER, number);
    require_done(topology_open(&worker->topology, worker->config, world->segment, &error), &error);
    require_done(decider_open(&worker->decider, worker->config, worker->topology, world->segment, worker->self,
                              geteuid() == 0, &world->log, &error),
                 &error);
    require_done(relay_open(&worker->relay, &world->loop, worker->config, worker->topology, worker->decider,
                            world->segment, NULL, worker->self, &world->log, &error),
                 &error);
    for (; listener < worker->config->service_count; listener++)
        for (uint32_t lane = 0; lane < world->plan.lanes; lane++)
            require_done(relay_add_listener(worker->relay, listener, lane,
                                            fcntl(world->listeners[listener][lane], F_DUPFD_CLOEXEC, 3), &error),
                         &error);
    return worker;
}

static void on_taken(void *arg, uint32_t lane)
{
    (void)lane;
    ((struct worker *)arg)->taken++;
}

static void on_given(void *arg, uint32_t lane)
{
    (void)lane;
    ((struct worker *)arg)->given++;
}

void worker_take(struct world *world, struct worker *worker, uint32_t lane, int peer)
{
    struct error error = {0};

    (void)world;
    require_done(relay_take(worker->relay, lane, peer, on_taken, worker, &error), &error);
}

void worker_take_all(struct world *world, struct worker *worker)
{
    for (uint32_t lane = 0; lane < world->plan.lanes; lane++)
        worker_take(world, worker, lane, -1);
    require(worker->taken == world->plan.lanes, "lanes were not taken at once");
}

void worker_give(struct world *world, struct worker *worker, uint32_t lane, int peer)
{
    struct error error = {0};

    (void)world;
    require_done(relay_give(worker->relay, lane, peer, on_given, worker, &error), &error);
}

static void on_relay_closed(void *arg)
{
    ((struct worker *)arg)->closed = true;
}

static bool is_closed(void *arg)
{
    return ((struct worker *)arg)->closed;
}

bool worker_has_taken(void *worker)
{
    return ((const struct worker *)worker)->taken > 0;
}

bool worker_has_given(void *worker)
{
    return ((const struct worker *)worker)->given > 0;
}

void worker_die(struct world *world, struct worker *worker)
{
    relay_close(worker->relay, on_relay_closed, worker);
    require(world_wait(world, is_closed, worker, WAIT_MS), "the relay does not close");
    decider_close(worker->decider);
    topology_close(worker->topology);
    config_free(worker->config);
    process_end(world->segment, worker->self);
    *worker = (struct worker){0};
}

void world_close(struct world *world)
{
    char path[96];

    for (uint32_t i = 0; i < WORLD_WORKERS; i++)
        if (world->workers[i].relay != NULL)
            worker_die(world, &world->workers[i]);
    for (uint32_t i = 0; i < WORLD_LISTENERS * WORLD_LANES; i++)
        if (world->listeners[i / WORLD_LANES][i % WORLD_LANES] >= 0)
            close(world->listeners[i / WORLD_LANES][i % WORLD_LANES]);
    for (uint32_t i = 0; i < WORLD_SERVERS; i++)
        if (world->servers[i] >= 0)
            close(world->servers[i]);
    uv_close((uv_handle_t *)&world->pulse, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    require(uv_loop_close(&world->loop) == 0, "the relay has left a handle behind");
    segment_close(world->segment);
    snprintf(path, sizeof path, "%s/segment", world->folder);
    unlink(path);
    rmdir(world->folder);
    close(world->log.fd);
}

int world_server(struct world *world, uint32_t server, uint16_t port)
{
    struct hp_endpoint address = world_address(world, (uint8_t)(11 + server), port);

    world->servers[server] = world_socket(&address);
    return world->servers[server];
}

int world_client_at(struct world *world, uint8_t host, uint8_t local, uint16_t port)
{
    struct hp_endpoint own = world_address(world, host, 0), peer = world_address(world, local, port);
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(&peer, &name);
    int fd = world_socket(&own);

    require(connect(fd, (struct sockaddr *)&name, size) == 0, "connect");
    return fd;
}

int world_client(struct world *world, uint8_t host)
{
    return world_client_at(world, host, 1, world->port);
}

void world_turn(struct world *world)
{
    for (int i = 0; i < 8; i++)
        uv_run(&world->loop, UV_RUN_NOWAIT);
}

bool world_wait(struct world *world, bool (*is)(void *arg), void *arg, uint32_t limit_ms)
{
    uint64_t end = clock_now_ms() + limit_ms;

    while (!is(arg)) {
        if (clock_now_ms() >= end)
            return false;
        uv_run(&world->loop, UV_RUN_ONCE);
    }
    return true;
}

static bool is_readable(void *arg)
{
    struct pollfd look = {.fd = *(int *)arg, .events = POLLIN};

    return poll(&look, 1, 0) > 0;
}

ssize_t world_receive(struct world *world, int fd, void *data, size_t size, struct hp_endpoint *from)
{
    struct sockaddr_storage name = {0};
    socklen_t name_size = sizeof name;
    ssize_t got;

    if (!world_wait(world, is_readable, &fd, WAIT_MS))
        return -1;
    got = recvfrom(fd, data, size, 0, (struct sockaddr *)&name, &name_size);
    if (got >= 0 && from != NULL)
        endpoint_from_sockaddr(from, (struct sockaddr *)&name, name_size);
    return got;
}

bool world_silent(struct world *world, int fd)
{
    world_turn(world);
    return !is_readable(&fd);
}

uint16_t world_say(struct world *world, int client, int server, const char *text)
{
    char data[256];
    struct hp_endpoint from = {0};
    ssize_t size;

    require(send(client, text, strlen(text), 0) == (ssize_t)strlen(text), "send");
    size = world_receive(world, server, data, sizeof data, &from);
    if (size != (ssize_t)strlen(text) || memcmp(data, text, strlen(text)) != 0)
        return 0;
    return from.port;
}

bool world_answer(struct world *world, int server, uint16_t to_port, int client, const char *text)
{
    /* The relay's own address towards 127.x is 127.0.0.1: the route's choice. */
    struct hp_endpoint to = {.address = {127, 0, 0, 1}, .family = 4, .port = to_port};
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(&to, &name);
    char data[256];
    ssize_t got;

    if (sendto(server, text, strlen(text), 0, (struct sockaddr *)&name, size) < 0)
        return false;
    got = world_receive(world, client, data, sizeof data, NULL);
    return got == (ssize_t)strlen(text) && memcmp(data, text, strlen(text)) == 0;
}

uint64_t world_count(const struct world *world, enum counter counter)
{
    return counter_total(world->segment, counter);
}

struct session_row *world_row(const struct world *world, uint32_t number)
{
    uint32_t rows = world->segment->rows_per_lane * world->segment->lane_count;

    for (uint32_t i = 0; i < rows; i++)
        if (session_is_live(&world->segment->rows[i]) && number-- == 0)
            return &world->segment->rows[i];
    return NULL;
}

uint32_t world_live(const struct world *world)
{
    uint32_t live = 0;

    while (world_row(world, live) != NULL)
        live++;
    return live;
}

uint32_t world_server_slot(const struct world *world, uint32_t server)
{
    return server_find(world->segment, server_names[server]);
}

bool world_move_record(struct world *world, uint32_t number, uint32_t server)
{
    struct record_ref ref = {.index = atomic_load(&world_row(world, number)->record)};

    ref.value = record_value(world->segment, ref.index);
    return record_move(world->segment, &ref, world_server_slot(world, server), (uint32_t)clock_now_s());
}
