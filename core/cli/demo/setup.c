/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/demo.h"
#include "cli/demo/plugins.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void on_signal(uv_signal_t *handle, int number)
{
    struct demo *self = handle->data;
    int server;

    if (number != SIGCHLD) {
        self->interrupted = true;
        return;
    }
    if (self->daemon != NULL)
        daemon_reap(self->daemon);
    while (self->responders != NULL && (server = responders_reap(self->responders)) >= 0) {
        if (self->stay != NULL)
            stay_lost(self->stay, (uint32_t)server);
    }
}

static int open_loop(struct demo *self, struct error *error)
{
    static const int numbers[DEMO_SIGNALS] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD};
    int status = uv_loop_init(&self->loop);

    if (status < 0)
        return error_set(error, status, "cannot make an event loop: %s", uv_strerror(status));
    uv_timer_init(&self->loop, &self->timer);
    self->timer.data = self;
    self->open++;
    for (int i = 0; i < DEMO_SIGNALS; i++) {
        uv_signal_init(&self->loop, &self->signals[i]);
        self->signals[i].data = self;
        self->open++;
        uv_signal_start(&self->signals[i], on_signal, numbers[i]);
    }
    return 0;
}

static bool has_configs(const struct demo *self)
{
    char file[PATH_MAX + 32];

    snprintf(file, sizeof file, "%s/source_address.yaml", self->configs);
    return access(file, R_OK) == 0;
}

/* Beside the build tree (build/core/homeport), beside an installation (PREFIX/bin), or where packages put them. */
static int find_configs(struct demo *self, struct error *error)
{
    static const char *const places[] = {"/../../configs", "/../share/homeport/configs"};
    ssize_t size = readlink("/proc/self/exe", self->self, sizeof self->self - 1);
    int folder;

    if (size < 0)
        return error_set(error, -errno, "cannot read /proc/self/exe: %s", strerror(errno));
    self->self[size] = '\0';
    folder = (int)(strrchr(self->self, '/') - self->self);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(self->configs, sizeof self->configs, "%.*s%s", folder, self->self, places[i]);
        if (has_configs(self))
            return 0;
    }
    snprintf(self->configs, sizeof self->configs, "/usr/share/homeport/configs");
    if (has_configs(self))
        return 0;
    error_set(error, -ENOENT, "no configs/source_address.yaml beside %s", self->self);
    return error_next(error, "run the binary where it was built or installed");
}

static int make_folder(struct demo *self, struct error *error)
{
    const char *runtime = geteuid() == 0 ? NULL : getenv("XDG_RUNTIME_DIR");
    const char *base = runtime != NULL && strlen(runtime) < 32 && access(runtime, W_OK) == 0 ? runtime : "/tmp";
    char folder[sizeof self->folder];

    snprintf(folder, sizeof folder, "%s/homeport-demo-XXXXXX", base);
    if (mkdtemp(folder) == NULL)
        return error_set(error, -errno, "cannot make %s: %s", folder, strerror(errno));
    memcpy(self->folder, folder, sizeof self->folder);
    return 0;
}

/* Root's daemon loads them as a user of its own, who has to get to them. */
static int share_plugins(struct demo *self, struct error *error)
{
    char shared[sizeof self->folder + 16];
    int status;

    plugins_find(self->plugins, self->self);
    if (self->plugins[0] == '\0' || geteuid() != 0)
        return 0;
    if (chmod(self->folder, 0755) < 0)
        return error_set(error, -errno, "cannot open %s to all: %s", self->folder, strerror(errno));
    snprintf(shared, sizeof shared, "%s/plugins", self->folder);
    status = plugins_copy(self->plugins, shared, error);
    strcpy(self->plugins, shared);
    return status;
}

int demo_open(struct demo *self, struct error *error)
{
    int status = open_loop(self, error);

    if (status == 0)
        status = find_configs(self, error);
    if (status == 0)
        status = place_choose(&self->place, error);
    if (status == 0)
        status = make_folder(self, error);
    if (status == 0)
        status = share_plugins(self, error);
    return status;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status, (void)type, (void)at;
    (void)remove(path);
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct demo *self = handle->data;

    self->open--;
}

void demo_close(struct demo *self)
{
    if (self->folder[0] != '\0')
        (void)nftw(self->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    place_release(&self->place);
    if (self->open == 0)
        return;
    uv_close((uv_handle_t *)&self->timer, on_closed);
    for (int i = 0; i < DEMO_SIGNALS; i++)
        uv_close((uv_handle_t *)&self->signals[i], on_closed);
    while (self->open > 0)
        uv_run(&self->loop, UV_RUN_ONCE);
    uv_loop_close(&self->loop);
}
