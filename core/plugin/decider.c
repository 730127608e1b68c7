/* SPDX-License-Identifier: Apache-2.0 */
/* The life of the plugins in a process: loaded and created once, before the sandbox closes; told of sights, ends and
 * ticks; destroyed at the end. Fails to open when a plugin cannot be loaded, its options are wrong, or create() says
 * no: `check` has tried all but create() already. A profile in quarantine is not even loaded. */
#include "base/clock.h"
#include "base/hash.h"
#include "plugin/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int instance_load(struct instance *self, struct decider *decider, struct error *error)
{
    const struct config *config = decider->config;
    int status;

    instance_enter(self, PLUGIN_LOAD, NULL);
    status = plugin_load(&self->plugin, self->config->plugin, (const char *const *)config->plugin_path,
                         config->plugin_path_count, decider->root, error);
    instance_leave(self);
    if (status == 0 && self->plugin->needs_note[0] != '\0' && decider->log != NULL)
        log_write(decider->log, LOG_INFO, "%s", self->plugin->needs_note);
    return status;
}

static int instance_read_values(struct instance *self, uint32_t profile, struct error *error)
{
    const struct config *config = self->decider->config;
    struct diagnostics *diagnostics;
    int status = diagnostics_open(&diagnostics, config->path, "", 0);

    if (status < 0)
        return error_set(error, status, "no memory for the options");
    instance_enter(self, PLUGIN_CHECK, NULL);
    status = profile_values_open(&self->owned_values, self->plugin, config, profile, diagnostics);
    instance_leave(self);
    diagnostics_close(diagnostics);
    self->values = self->owned_values;
    if (status == -ENOMEM)
        return error_set(error, status, "no memory for the options");
    if (status == 0)
        return 0;
    error_set(error, status, "its options have errors");
    return error_next(error, "homeport check %s", config->path);
}

/* The process's own entries, found or taken. More counters than there is room: those are not counted. */
static bool instance_find_counters(struct instance *self)
{
    const struct hp_plugin *descriptor = &self->plugin->descriptor;
    struct plugin_counter *entries = self->decider->process->plugin_counters;

    self->counters = calloc(descriptor->counter_count + 1u, sizeof *self->counters);
    if (self->counters == NULL)
        return false;
    for (uint32_t i = 0; i < descriptor->counter_count; i++) {
        char name[SEGMENT_NAME + 128];
        uint64_t identity, present;
        uint32_t entry = 0;

        snprintf(name, sizeof name, "%s/%s", self->config->name, descriptor->counters[i].name);
        identity = hash_identity("counter", name);
        for (; entry < SEGMENT_PLUGIN_COUNTERS; entry++) {
            present = atomic_load_explicit(&entries[entry].identity, memory_order_relaxed);
            if (present == 0 || present == identity)
                break;
        }
        self->counters[i] = entry < SEGMENT_PLUGIN_COUNTERS ? entry : SEGMENT_NO_INDEX;
        if (entry < SEGMENT_PLUGIN_COUNTERS)
            atomic_store_explicit(&entries[entry].identity, identity, memory_order_relaxed);
    }
    return true;
}

static int instance_create(struct instance *self, struct error *error)
{
    const struct hp_plugin *descriptor = &self->plugin->descriptor;
    struct hp_profile *view = &self->owned_values->view;

    if (descriptor->create == NULL) {
        self->self = view;
        return 0;
    }
    instance_enter(self, PLUGIN_CREATE, NULL);
    self->self = descriptor->create(&self->host, view);
    instance_leave(self);
    self->created = self->self != NULL;
    if (self->created)
        return 0;
    return error_set(error, -ECANCELED, "%s:%u:%u: plugin %s cannot begin: %s", self->decider->config->path,
                     self->problem_at.line, self->problem_at.column, descriptor->name,
                     self->problem_text[0] != '\0' ? self->problem_text : "it does not say why");
}

static int instance_open(struct instance *self, struct decider *decider, uint32_t profile, struct error *error)
{
    int status;

    instance_init(self, NULL, NULL);
    self->decider = decider;
    self->config = &decider->config->profiles[profile];
    self->problem_at = self->config->at;
    self->identity = hash_identity("profile", self->config->name);
    self->slot = decider->segment != NULL ? profile_find(decider->segment, self->config->name) : 0;
    if (decider->segment != NULL && self->slot < SEGMENT_PROFILES &&
        atomic_load_explicit(&decider->segment->profiles[self->slot].quarantined, memory_order_relaxed) != 0)
        return 0;
    status = instance_load(self, decider, error);
    if (status == 0)
        status = instance_read_values(self, profile, error);
    if (status == 0 && !instance_find_counters(self))
        status = error_set(error, -ENOMEM, "no memory for the plugin's counters");
    if (status == 0)
        status = instance_create(self, error);
    return status < 0 ? error_under(error, "profile %s", self->config->name) : 0;
}

static void instance_close(struct instance *self)
{
    if (self->created && self->plugin->descriptor.destroy != NULL && !instance_quarantined(self)) {
        instance_enter(self, PLUGIN_DESTROY, NULL);
        self->plugin->descriptor.destroy(self->self);
        instance_leave(self);
    }
    free(self->counters);
    profile_values_close(self->owned_values);
    plugin_free(self->plugin);
}

static bool decider_allocate(struct decider *self)
{
    self->instances = calloc(self->config->profile_count + 1u, sizeof *self->instances);
    if (self->segment == NULL)
        self->private_process = aligned_alloc(_Alignof(struct process_slot), sizeof *self->private_process);
    if (self->private_process != NULL)
        memset((void *)self->private_process, 0, sizeof *self->private_process);
    self->process = self->segment != NULL ? &self->segment->processes[self->self] : self->private_process;
    return self->instances != NULL && self->process != NULL;
}

int decider_open(struct decider **out, const struct config *config, struct topology *topology, struct segment *segment,
                 uint32_t self, bool root, struct log *log, struct error *error)
{
    struct decider *decider = calloc(1, sizeof *decider);
    int status = 0;

    if (decider == NULL)
        return error_set(error, -ENOMEM, "no memory for the plugins");
    decider->config = config;
    decider->topology = topology;
    decider->segment = segment;
    decider->self = self;
    decider->root = root;
    decider->log = log;
    if (!decider_allocate(decider))
        status = error_set(error, -ENOMEM, "no memory for the plugins");
    for (uint32_t i = 0; status == 0 && i < config->profile_count; i++) {
        decider->instance_count = i + 1;
        status = instance_open(&decider->instances[i], decider, i, error);
    }
    if (status < 0) {
        decider_close(decider);
        return status;
    }
    *out = decider;
    return 0;
}

void decider_close(struct decider *decider)
{
    if (decider == NULL)
        return;
    for (uint32_t i = 0; i < decider->instance_count; i++)
        instance_close(&decider->instances[i]);
    free(decider->instances);
    free(decider->private_process);
    free(decider);
}

struct instance *instance_of_service(const struct decider *decider, uint32_t service)
{
    int32_t profile = decider->config->services[service].profile;
    struct instance *instance = profile >= 0 ? &decider->instances[profile] : NULL;

    return instance != NULL && !instance_quarantined(instance) ? instance : NULL;
}

int32_t decider_explain(struct decider *decider, uint32_t service, const struct hp_endpoint *client,
                        const struct hp_endpoint *local, uint8_t key[HP_KEY_MAX])
{
    struct instance *instance = instance_of_service(decider, service);
    const struct decision_request request = {.service = service, .client = client, .local = local, .own_server = -1};
    struct call call;
    int32_t size;

    if (decider->config->services[service].profile < 0)
        return HP_NOTHING;
    if (instance == NULL)
        return HP_FAILED;
    if (instance->plugin->descriptor.derive_key == NULL)
        return HP_NOTHING;
    call_begin(&call, decider, instance, &request);
    instance_enter(instance, PLUGIN_DERIVE_KEY, NULL);
    size = instance->plugin->descriptor.derive_key(instance->self, &call.flow, key);
    instance_leave(instance);
    if (size == HP_NOTHING)
        return size;
    return size > 0 && size <= (int32_t)HP_KEY_MAX ? size : HP_FAILED;
}

uint32_t decider_decides(const struct decider *decider, uint32_t service)
{
    const struct instance *instance = instance_of_service(decider, service);

    return instance != NULL ? instance->plugin->descriptor.decides : 0;
}

bool decider_observes(const struct decider *decider, uint32_t service, uint32_t what)
{
    const struct instance *instance = instance_of_service(decider, service);

    return instance != NULL && instance->plugin->descriptor.observe != NULL &&
           (instance->plugin->descriptor.observes & what) != 0;
}

void decider_observe(struct decider *decider, const struct decision_request *request, uint32_t what, int32_t server,
                     uint32_t number)
{
    struct instance *instance = instance_of_service(decider, request->service);
    struct call call;
    struct hp_sight sight = {
        .size = sizeof sight, .what = what, .flow = &call.flow, .server = server, .number = number};

    if (!decider_observes(decider, request->service, what))
        return;
    if (instance->plugin->descriptor.observe_first != 0 && number > instance->plugin->descriptor.observe_first)
        return;
    call_begin(&call, decider, instance, request);
    instance_enter(instance, PLUGIN_OBSERVE, &call);
    instance->plugin->descriptor.observe(instance->self, &sight);
    instance_leave(instance);
}

void decider_session_end(struct decider *decider, uint32_t service, const struct hp_endpoint *client,
                         const struct hp_endpoint *local, int32_t server)
{
    struct instance *instance = instance_of_service(decider, service);
    struct decision_request request = {.service = service, .client = client, .local = local, .own_server = server};
    struct call call;

    if (instance == NULL || instance->plugin->descriptor.session_end == NULL)
        return;
    request.now_s = (uint32_t)clock_now_s();
    call_begin(&call, decider, instance, &request);
    instance_enter(instance, PLUGIN_SESSION_END, &call);
    instance->plugin->descriptor.session_end(instance->self, &call.flow, server);
    instance_leave(instance);
}

void decider_tick(struct decider *decider, uint64_t now_ms)
{
    for (uint32_t i = 0; i < decider->instance_count; i++) {
        struct instance *instance = &decider->instances[i];
        const struct hp_plugin *descriptor;

        if (instance_quarantined(instance) || instance->plugin->descriptor.tick == NULL)
            continue;
        descriptor = &instance->plugin->descriptor;
        if (descriptor->tick_ms == 0 || now_ms < instance->tick_at_ms)
            continue;
        instance->tick_at_ms = now_ms + descriptor->tick_ms;
        instance_enter(instance, PLUGIN_TICK, NULL);
        descriptor->tick(instance->self);
        instance_leave(instance);
    }
}
