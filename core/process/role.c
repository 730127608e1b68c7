/* SPDX-License-Identifier: Apache-2.0 */
#include "process/role.h"

#include "base/clock.h"
#include "process/check.h"
#include "process/process.h"
#include "process/sandbox.h"
#include "process/source.h"
#include "process/spawn.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void on_turn(uv_prepare_t *handle)
{
    struct role *role = handle->data;

    atomic_store_explicit(&role->self->loop_ms, clock_now_ms(), memory_order_relaxed);
}

static void on_second(uv_timer_t *handle)
{
    struct role *role = handle->data;

    if (role->on_second != NULL)
        role->on_second(role);
}

static int read_config(struct role *role, const char *path, struct error *error)
{
    struct diagnostics *findings;
    int status = source_map(SPAWN_CONFIG, &role->text, &role->text_size, error);

    if (status < 0)
        return status;
    if (diagnostics_open(&findings, path, role->text, role->text_size) < 0)
        return error_set(error, -ENOMEM, "no memory for the configuration");
    /* Checked a moment ago by the check child: an error here means that the two disagree. */
    if (config_read(&role->config, path, role->text, role->text_size, findings) < 0)
        status = error_set(error, -EINVAL, "the configuration passed the check, but not here");
    diagnostics_close(findings);
    return status;
}

/* Who connects holds the master's lock: the last one is dead, and what it has said lies in the old channel. A lane that
 * it let us give is no longer ours to hold. */
static void on_next_master(void *arg, int connection)
{
    struct role *role = arg;
    struct message hello = {.kind = MESSAGE_HELLO, .count = 0, .listeners = {role->kind}, .lanes = {role->number}};
    struct channel *last = role->channel;
    struct error error = {0};

    channel_drain(last);
    if (role->channel != last || channel_open(&role->channel, &role->loop, connection, &role->events, &error) < 0) {
        close(connection); /* it has come to its end meanwhile */
        return;
    }
    channel_close(last);
    role->masterless = false;
    channel_send(role->channel, &hello, NULL, 0);
    role->on_next_master(role);
    role_say(role, MESSAGE_READY, 0);
}

static int open_all(struct role *role, char **argv, struct error *error)
{
    uid_t master = geteuid();
    uint32_t uid = (uint32_t)strtoul(argv[4], NULL, 10), gid = (uint32_t)strtoul(argv[5], NULL, 10);
    pid_t parent = (pid_t)strtol(argv[6], NULL, 10);
    int status = segment_map(&role->segment, SPAWN_SEGMENT, error);

    if (status < 0)
        return status;
    close(role->segment->fd); /* the mapping is enough: a plugin that cuts the file would kill everybody */
    role->segment->fd = -1;
    role->self = &role->segment->processes[role->slot % SEGMENT_PROCESSES];
    last_words_install(role->self);
    status = next_master_open(&role->next_master, &role->loop, SPAWN_NEXT, master, on_next_master, role, error);
    if (status == 0)
        status = sandbox_enter(uid, gid, strcmp(argv[8], ROLE_TRANSPARENT) == 0, parent, error);
    if (status == 0)
        status = read_config(role, argv[7], error);
    if (status < 0)
        return status;
    role->log.level = role->config->log_level;
    role->log.format = role->config->log_format;
    return topology_open(&role->topology, role->config, role->segment, error);
}

int role_open(struct role *role, char **argv, const char *name, const struct channel_events *events)
{
    struct error error = {0};
    int status;

    memset(role, 0, sizeof *role);
    role->events = *events;
    role->kind = strcmp(argv[1], "_monitor") == 0 ? PROCESS_MONITOR : PROCESS_WORKER;
    role->slot = (uint32_t)strtoul(argv[2], NULL, 10);
    role->number = (uint32_t)strtoul(argv[3], NULL, 10);
    role->root = geteuid() == 0;
    log_init(&role->log, name);
    sandbox_signals();
    uv_loop_init(&role->loop);
    uv_prepare_init(&role->loop, &role->turn);
    uv_timer_init(&role->loop, &role->second);
    role->turn.data = role->second.data = role;
    status = channel_open(&role->channel, &role->loop, SPAWN_CHANNEL, events, &error);
    if (status < 0)
        return status;
    status = open_all(role, argv, &error);
    if (status < 0)
        role_failed(role, &error);
    return status;
}

void role_outlive(struct role *role)
{
    role->masterless = true;
    log_write(&role->log, LOG_WARNING, "the master has gone: serving on; the next start goes on with this process");
}

void role_failed(struct role *role, const struct error *error)
{
    struct message message = {.kind = MESSAGE_FAILED};

    error_line(error, message.text, sizeof message.text);
    channel_send(role->channel, &message, NULL, 0);
}

void role_say(struct role *role, enum message_kind kind, uint32_t lane)
{
    struct message message = {.kind = kind, .count = 1, .lanes = {lane}};

    channel_send(role->channel, &message, NULL, 0);
}

void role_run(struct role *role)
{
    uv_prepare_start(&role->turn, on_turn);
    uv_timer_start(&role->second, on_second, 1000, 1000);
    sandbox_untie(); /* from here on the channel's end tells, behind the last messages: TAKE may be among them */
    role_say(role, MESSAGE_READY, 0);
    uv_run(&role->loop, UV_RUN_DEFAULT);
}

void role_stop(struct role *role)
{
    if (uv_is_closing((uv_handle_t *)&role->second))
        return;
    uv_close((uv_handle_t *)&role->turn, NULL);
    uv_close((uv_handle_t *)&role->second, NULL);
    next_master_close(role->next_master);
    channel_close(role->channel);
    role->next_master = NULL;
    role->channel = NULL;
}

void role_close(struct role *role)
{
    topology_close(role->topology);
    config_free(role->config);
    if (role->text_size > 0)
        munmap((void *)role->text, role->text_size);
    segment_close(role->segment);
    role_stop(role);
    uv_run(&role->loop, UV_RUN_DEFAULT);
    uv_loop_close(&role->loop);
}

int process_role_main(int argc, char **argv)
{
    if (argc < 2)
        return -1;
    if (strcmp(argv[1], "_check") == 0)
        return check_main(argc, argv);
    if (strcmp(argv[1], "_worker") == 0)
        return argc == ROLE_ARGUMENTS ? worker_main(argv) : 2;
    if (strcmp(argv[1], "_monitor") == 0)
        return argc == ROLE_ARGUMENTS ? monitor_main(argv) : 2;
    return -1;
}
