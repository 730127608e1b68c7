/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: read the file, fork; the child loads each profile's plugin, makes an instance, asks derive_key for a flow
 * of this client without a datagram, and says what it got.
 * Fails: the file has errors                 -> said, with the advice to run check
 *        a plugin cannot be loaded or created -> a note at its services
 *        it decides by select alone           -> a note: nobody can say without the datagram
 *        it crashes or hangs                  -> child.h */
#include "cli/explain.h"

#include "base/clock.h"
#include "base/endpoint.h"
#include "cli/child.h"
#include "cli/settings.h"
#include "plugin/plugin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct explanation {
    const struct settings *settings;
    const char *path;
    struct hp_endpoint client;
};

struct instance { /* one profile's, in the child */
    struct plugin *plugin;
    struct profile_values *values;
    void *self;
    char note[256]; /* "": it is there */
};

struct quiet_host { /* host first: what a plugin is given is this */
    struct hp_host host;
    char *note;
};

static void host_problem(const struct hp_host *host, uint32_t service, uint32_t option, const char *text)
{
    const struct quiet_host *self = (const struct quiet_host *)(const void *)host;

    (void)service;
    (void)option;
    if (strncmp(text, "warning: ", 9) != 0)
        snprintf(self->note, sizeof((struct instance *)0)->note, "%s", text);
}

static void host_log(const struct hp_host *host, int level, const char *text)
{
    (void)host;
    (void)level;
    (void)text;
}

static void host_count(const struct hp_host *host, uint32_t counter, uint64_t by)
{
    (void)host;
    (void)counter;
    (void)by;
}

static uint64_t host_now_ms(const struct hp_host *host)
{
    (void)host;
    return clock_now_ms();
}

static int32_t host_claim(const struct hp_host *host, const struct hp_flow *flow, const struct hp_claim *claim)
{
    (void)host;
    (void)flow;
    (void)claim;
    return HP_REFUSE;
}

static int32_t host_get(const struct hp_host *host, uint32_t table, const void *key, uint32_t size,
                        struct hp_record *out)
{
    (void)out;
    (void)host;
    (void)table;
    (void)key;
    (void)size;
    return HP_NOTHING;
}

static int host_put(const struct hp_host *host, uint32_t table, const void *key, uint32_t size, int32_t server,
                    uint64_t ttl_ms)
{
    (void)host;
    (void)table;
    (void)key;
    (void)size;
    (void)server;
    (void)ttl_ms;
    return -1;
}

static int host_touch(const struct hp_host *host, uint32_t table, const void *key, uint32_t size, uint64_t ttl_ms)
{
    return host_put(host, table, key, size, HP_NOTHING, ttl_ms);
}

static int host_del(const struct hp_host *host, uint32_t table, const void *key, uint32_t size)
{
    return host_put(host, table, key, size, HP_NOTHING, 0);
}

static int32_t host_schedule(const struct hp_host *host, const struct hp_flow *flow)
{
    (void)host;
    (void)flow;
    return HP_REFUSE;
}

static uint32_t host_server_state(const struct hp_host *host, const struct hp_flow *flow, int32_t server)
{
    (void)host;
    (void)flow;
    (void)server;
    return 0;
}

static const void *host_extension(const struct hp_host *host, const char *name)
{
    (void)host;
    (void)name;
    return NULL;
}

static void quiet_host_init(struct quiet_host *self, struct instance *instance)
{
    self->host = (struct hp_host){.size = sizeof self->host,
                                  .abi_minor = HP_ABI_MINOR,
                                  .version = HOMEPORT_VERSION,
                                  .problem = host_problem,
                                  .log = host_log,
                                  .count = host_count,
                                  .now_ms = host_now_ms,
                                  .claim = host_claim,
                                  .get = host_get,
                                  .put = host_put,
                                  .touch = host_touch,
                                  .del = host_del,
                                  .schedule = host_schedule,
                                  .server_state = host_server_state,
                                  .extension = host_extension};
    self->note = instance->note;
}

/* [child] Makes the profile's instance; on failure its note says why. */
static void make_instance(struct instance *out, struct quiet_host *host, const struct explanation *what,
                          uint32_t profile)
{
    const struct config *config = what->settings->config;
    const struct hp_profile *view;
    struct diagnostics *findings;
    struct error error = {0};

    quiet_host_init(host, out);
    if (plugin_load(&out->plugin, config->profiles[profile].plugin, (const char *const *)config->plugin_path,
                    config->plugin_path_count, what->settings->root, &error) < 0) {
        snprintf(out->note, sizeof out->note, "%.250s", error.what);
        return;
    }
    if (diagnostics_open(&findings, what->path, what->settings->text, what->settings->size) < 0 ||
        profile_values_open(&out->values, out->plugin, config, profile, findings) < 0) {
        snprintf(out->note, sizeof out->note, "its options have errors: see homeport check");
        return;
    }
    if (out->plugin->descriptor.derive_key == NULL) {
        snprintf(out->note, sizeof out->note, "the plugin decides by each datagram and cannot be asked beforehand");
        return;
    }
    view = profile_values_view(out->values);
    out->self = (void *)(uintptr_t)view;
    if (out->plugin->descriptor.create != NULL)
        out->self = out->plugin->descriptor.create(&host->host, view);
    if (out->self == NULL && out->note[0] == '\0')
        snprintf(out->note, sizeof out->note, "the plugin could not be created");
}

/* What the scope of a key stands for: one of the identities that the plugin was given. */
static void scope_text(const struct hp_profile *view, uint64_t identity, char *text, size_t size)
{
    snprintf(text, size, "scope %016" PRIx64, identity);
    if (identity == 0)
        snprintf(text, size, "the whole profile");
    for (uint32_t i = view->service_count; i-- > 0;) {
        const struct hp_service *service = view->services[i];

        if (service->pool_identity == identity)
            snprintf(text, size, "the pool of service %s", service->name);
        if (service->servers_identity == identity)
            snprintf(text, size, "the servers of service %s", service->name);
        if (service->listen_identity == identity)
            snprintf(text, size, "the listening addresses of service %s", service->name);
        if (service->identity == identity)
            snprintf(text, size, "service %s", service->name);
    }
}

/* Keys of hp_source_key (plugin_util.h), which most plugins write: family, scope, masked address. Others: as text when
 * they are text. */
static json_t *readable_key(const struct hp_profile *view, const uint8_t *key, size_t size)
{
    struct hp_endpoint address = {.family = key[0]};
    char text[ENDPOINT_TEXT], scope[SEGMENT_NAME + 64];
    uint64_t identity = 0;
    size_t printable = 0;

    while (printable < size && key[printable] >= 0x20 && key[printable] < 0x7f)
        printable++;
    if (printable == size)
        return json_stringn((const char *)key, size);
    if (!(key[0] == 4 && size == 13) && !(key[0] == 6 && size == 25))
        return json_null();
    for (size_t i = 1; i < 9; i++)
        identity = identity << 8 | key[i];
    memcpy(address.address, key + 9, size - 9);
    scope_text(view, identity, scope, sizeof scope);
    return json_sprintf("%s in %s", endpoint_format(&address, text), scope);
}

/* [child] */
static void ask_key(json_t *object, const struct explanation *what, const struct instance *instance, uint32_t service)
{
    const struct config *config = what->settings->config;
    const struct hp_profile *view = profile_values_view(instance->values);
    int32_t position = profile_values_service(instance->values, service);
    struct hp_flow flow = {.size = sizeof flow, .client = what->client, .local = config->services[service].listen[0]};
    uint8_t key[HP_KEY_MAX];
    char hex[2 * HP_KEY_MAX + 1];
    int32_t size;

    if (position < 0)
        return;
    flow.service = view->services[position];
    size = instance->plugin->descriptor.derive_key(instance->self, &flow, key);
    if (size <= 0 || size > (int32_t)HP_KEY_MAX) {
        json_object_set_new(
            object, "note",
            json_string(size == HP_NOTHING ? "the plugin gives this client no key" : "the plugin failed"));
        return;
    }
    for (int32_t i = 0; i < size; i++)
        snprintf(hex + 2 * i, 3, "%02x", key[i]);
    json_object_set_new(object, "key", json_string(hex));
    json_object_set_new(object, "readable", readable_key(view, key, (size_t)size));
}

/* [child] Exits after it, so nothing is freed: two profiles of one plugin may share what create() made. */
static json_t *work(void *arg, char *doing, struct error *error)
{
    static struct instance instances[SEGMENT_PROFILES];
    static struct quiet_host hosts[SEGMENT_PROFILES];
    const struct explanation *what = arg;
    const struct config *config = what->settings->config;
    json_t *array = json_array();

    (void)error;
    for (uint32_t i = 0; i < config->profile_count && i < SEGMENT_PROFILES; i++) {
        snprintf(doing, 128, "plugin %.48s of profile %.48s", config->profiles[i].plugin, config->profiles[i].name);
        make_instance(&instances[i], &hosts[i], what, i);
    }
    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct config_service *service = &config->services[i];
        const struct config_profile *profile = service->profile < 0 ? NULL : &config->profiles[service->profile];
        char text[ENDPOINT_TEXT];
        json_t *object = json_pack(
            "{s:s, s:s, s:s?, s:s?}", "service", service->name, "listen", endpoint_format(&service->listen[0], text),
            "profile", profile != NULL ? profile->name : NULL, "plugin", profile != NULL ? profile->plugin : NULL);

        json_array_append_new(array, object);
        if (profile == NULL || service->profile >= (int32_t)SEGMENT_PROFILES)
            continue;
        snprintf(doing, 128, "plugin %.48s of profile %.48s", profile->plugin, profile->name);
        if (instances[service->profile].note[0] != '\0')
            json_object_set_new(object, "note", json_string(instances[service->profile].note));
        else
            ask_key(object, what, &instances[service->profile], i);
    }
    return array;
}

int explain_keys(json_t **out, const struct arguments *arguments, const char *client, struct error *error)
{
    struct settings settings;
    struct explanation what = {.settings = &settings, .path = arguments->config};
    int status;

    if (!endpoint_parse(&what.client, client)) {
        error_set(error, -EINVAL, "%s is no address", client);
        return error_next(error, "write the client's address: 198.51.100.7 or 2001:db8::7");
    }
    status = settings_read(&settings, arguments->config, error);
    if (status < 0)
        return status;
    if (settings.config == NULL) {
        settings_free(&settings);
        error_set(error, -EINVAL, "%s has errors", arguments->config);
        return error_next(error, "see homeport check %s", arguments->config);
    }
    status = child_run(out, work, &what, error);
    settings_free(&settings);
    return status;
}
