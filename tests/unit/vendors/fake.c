/* SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake *fake_of(const struct hp_host *host)
{
    return (struct fake *)(uintptr_t)host;
}

static void host_problem(const struct hp_host *host, uint32_t service, uint32_t option, const char *text)
{
    struct fake *fake = fake_of(host);
    struct fake_problem *problem = &fake->problems[fake->problem_count++];

    cr_assert_leq(fake->problem_count, FAKE_PROBLEMS);
    problem->service = service;
    problem->option = option;
    problem->warning = strncmp(text, "warning: ", 9) == 0;
    strncpy(problem->text, text, sizeof problem->text - 1);
}

static void host_log(const struct hp_host *host, int level, const char *text)
{
    (void)host, (void)level, (void)text;
}

static void host_count(const struct hp_host *host, uint32_t counter, uint64_t by)
{
    cr_assert_lt(counter, fake_of(host)->plugin->counter_count);
    fake_of(host)->counted[counter] += by;
}

static uint64_t host_now_ms(const struct hp_host *host)
{
    (void)host;
    return 1000;
}

static struct fake_record *find(struct fake *fake, uint32_t table, const void *key, uint32_t size)
{
    cr_assert_lt(table, fake->plugin->table_count);
    cr_assert(size > 0 && size <= HP_KEY_MAX);
    for (uint32_t i = 0; i < fake->record_count; i++)
        if (fake->records[i].size == size && memcmp(fake->records[i].key, key, size) == 0)
            return &fake->records[i];
    return NULL;
}

static int32_t host_get(const struct hp_host *host, uint32_t table, const void *key, uint32_t size,
                        struct hp_record *out)
{
    const struct fake_record *record = find(fake_of(host), table, key, size);

    cr_assert_null(out, "no vendor's way looks at it");
    return record == NULL ? HP_NOTHING : record->server;
}

static int32_t host_claim(const struct hp_host *host, const struct hp_flow *flow, const struct hp_claim *claim)
{
    struct fake *fake = fake_of(host);
    struct fake_record *record = find(fake, claim->table, claim->key, claim->key_size);

    cr_assert_not_null(flow);
    cr_assert_eq(claim->size, sizeof *claim);
    cr_assert_eq(claim->reserved, 0);
    fake->claims++;
    fake->claim = *claim;
    memcpy(fake->claim_key, claim->key, claim->key_size);
    fake->claim.key = fake->claim_key;
    if (record != NULL)
        return record->server;
    if (fake->next_server < 0)
        return fake->next_server;
    cr_assert_lt(fake->record_count, FAKE_RECORDS);
    record = &fake->records[fake->record_count++];
    memcpy(record->key, claim->key, claim->key_size);
    record->size = claim->key_size;
    record->server = fake->next_server++;
    return record->server;
}

static const struct hp_host host_functions = {
    .size = sizeof(struct hp_host),
    .abi_minor = HP_ABI_MINOR,
    .version = "fake",
    .problem = host_problem,
    .log = host_log,
    .count = host_count,
    .now_ms = host_now_ms,
    .claim = host_claim,
    .get = host_get, /* the rest is NULL: a vendor's way that needs more says so by crashing here */
};

struct fake *fake_open(const char *name)
{
    struct fake *fake = calloc(1, sizeof *fake);
    char path[1024];
    void *library;

    snprintf(path, sizeof path, "%s/%s/%s.so", PLUGIN_FOLDER, name, name);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library, "%s", dlerror());
    fake->plugin = dlsym(library, "hp_plugin_v1");
    cr_assert_not_null(fake->plugin, "%s exports no hp_plugin_v1", path);
    cr_assert_leq(fake->plugin->option_count, FAKE_OPTIONS);
    fake->host = host_functions;
    fake->profile = (struct hp_profile){.size = sizeof fake->profile, .name = "test", .services = fake->by_id};
    fake->profile.values = fake->values[FAKE_SERVICES];
    for (uint32_t i = 0; i < fake->plugin->option_count; i++) {
        const struct hp_option *option = &fake->plugin->options[i];
        struct hp_value value = {.kind = option->kind};
        if (option->fallback != NULL)
            value = fake_value(option, option->fallback, 1);
        for (uint32_t row = 0; row <= FAKE_SERVICES; row++)
            fake->values[row][i] = value;
    }
    return fake;
}

void fake_close(struct fake *fake)
{
    if (fake->self != NULL && fake->plugin->destroy != NULL)
        fake->plugin->destroy(fake->self);
    free(fake); /* the plugin stays mapped, as in the real host */
}

uint32_t fake_service(struct fake *fake, const char *name, uint64_t listen, uint64_t servers)
{
    uint32_t id = fake->profile.service_count++;
    struct hp_service *service = &fake->services[id];

    cr_assert_lt(id, FAKE_SERVICES);
    *service = (struct hp_service){.size = sizeof *service, .id = id, .name = name, .protocol = 17, .port = 500};
    for (const char *c = name; *c != '\0'; c++)
        service->identity = service->identity * 131 + (uint8_t)*c;
    service->listen_identity = listen;
    service->servers_identity = servers;
    service->pool_identity = servers;
    service->values = fake->values[id];
    fake->by_id[id] = service;
    return id;
}

uint32_t fake_option(const struct fake *fake, const char *name)
{
    for (uint32_t i = 0; i < fake->plugin->option_count; i++)
        if (strcmp(fake->plugin->options[i].name, name) == 0)
            return i;
    cr_assert_fail("%s has no option %s", fake->plugin->name, name);
    return 0;
}

static void parse_mask(struct hp_value *value, const char *text, uint32_t bits)
{
    long length = strtol(text, NULL, 10);

    if (strchr(text, '.') != NULL) {
        cr_assert_eq(inet_pton(AF_INET, text, value->as.mask), 1);
        return;
    }
    cr_assert(length >= 0 && length <= (long)bits);
    for (long i = 0; i < length; i++)
        value->as.mask[i / 8] |= (uint8_t)(0x80u >> (i % 8));
}

static int64_t choice(const char *range, const char *text)
{
    size_t size = strlen(text);

    for (int64_t position = 0; range != NULL; position++) {
        if (strncmp(range, text, size) == 0 && (range[size] == '|' || range[size] == '\0'))
            return position;
        range = strchr(range, '|');
        range = range == NULL ? NULL : range + 1;
    }
    cr_assert_fail("%s is no choice", text);
    return -1;
}

static int64_t duration_ms(const char *text)
{
    char *unit;
    long number = strtol(text, &unit, 10);

    if (strcmp(text, "never") == 0)
        return INT64_MAX;
    if (strcmp(unit, "s") == 0)
        return number * 1000;
    if (strcmp(unit, "m") == 0)
        return number * 60000;
    cr_assert_str_eq(unit, "h");
    return number * 3600000;
}

struct hp_value fake_value(const struct hp_option *option, const char *text, uint32_t given)
{
    struct hp_value value = {.kind = option->kind, .given = given};

    switch (option->kind) {
    case HP_OPTION_BOOL:
        value.as.integer = strcmp(text, "true") == 0;
        break;
    case HP_OPTION_DURATION:
        value.as.integer = duration_ms(text);
        break;
    case HP_OPTION_CHOICE:
        value.as.integer = choice(option->range, text);
        break;
    case HP_OPTION_MASK4:
        parse_mask(&value, text, 32);
        break;
    case HP_OPTION_MASK6:
        parse_mask(&value, text, 128);
        break;
    default:
        cr_assert_fail("option %s is of kind %u", option->name, option->kind);
    }
    return value;
}

void fake_set(struct fake *fake, const char *option, const char *text)
{
    uint32_t position = fake_option(fake, option);
    struct hp_value value = fake_value(&fake->plugin->options[position], text, 2);

    for (uint32_t row = 0; row <= FAKE_SERVICES; row++)
        fake->values[row][position] = value;
}

void fake_follow(struct fake *fake, uint32_t service, uint32_t other)
{
    struct hp_value *value = &fake->values[service][fake_option(fake, "follow")];

    value->given = 2;
    value->as.integer = other;
}

int fake_check(struct fake *fake)
{
    return fake->plugin->check == NULL ? 0 : fake->plugin->check(&fake->host, &fake->profile);
}

uint32_t fake_warnings(const struct fake *fake)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < fake->problem_count; i++)
        count += fake->problems[i].warning;
    return count;
}

uint32_t fake_errors(const struct fake *fake)
{
    return fake->problem_count - fake_warnings(fake);
}

static struct hp_flow flow_of(struct fake *fake, uint32_t service, const char *client)
{
    struct hp_flow flow = {.size = sizeof flow, .service = &fake->services[service]};
    bool six = strchr(client, ':') != NULL;

    flow.client.family = six ? 6 : 4;
    flow.client.port = (uint16_t)(20000 + fake->claims); /* each flow from another port, as behind a NAT */
    cr_assert_eq(inet_pton(six ? AF_INET6 : AF_INET, client, flow.client.address), 1);
    if (fake->self == NULL)
        fake->self = fake->plugin->create != NULL ? fake->plugin->create(&fake->host, &fake->profile)
                                                  : (void *)(uintptr_t)&fake->profile;
    cr_assert_not_null(fake->self);
    return flow;
}

int32_t fake_explain(struct fake *fake, uint32_t service, const char *client, uint8_t key[HP_KEY_MAX])
{
    struct hp_flow flow = flow_of(fake, service, client);

    return fake->plugin->derive_key(fake->self, &flow, key);
}

int32_t fake_decide(struct fake *fake, uint32_t service, const char *client)
{
    struct hp_flow flow = flow_of(fake, service, client);
    uint8_t key[HP_KEY_MAX];
    struct hp_claim claim = {.size = sizeof claim, .key = key, .prefer = HP_NOTHING};
    int32_t size;

    if (fake->plugin->select != NULL)
        return fake->plugin->select(fake->self, &flow);
    size = fake->plugin->derive_key(fake->self, &flow, key);
    if (size < 0)
        return size;
    claim.key_size = (uint32_t)size;
    return fake->host.claim(&fake->host, &flow, &claim);
}
