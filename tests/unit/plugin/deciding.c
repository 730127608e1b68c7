/* SPDX-License-Identifier: Apache-2.0 */
#include "deciding.h"

#include "base/hash.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void open_workers(struct deciding *self)
{
    struct error error = {0};

    for (int i = 0; i < 2; i++) {
        cr_assert_eq(topology_open(&self->topologies[i], self->world.config, self->world.segment, &error), 0);
        cr_assert_eq(decider_open(&self->deciders[i], self->world.config, self->topologies[i], self->world.segment,
                                  self->slots[i], geteuid() == 0, &self->world.log, &error),
                     0, "%s", error.what);
    }
}

static void close_workers(struct deciding *self)
{
    for (int i = 0; i < 2; i++) {
        decider_close(self->deciders[i]);
        topology_close(self->topologies[i]);
    }
}

const char *deciding_yaml(char text[2048], const char *module, const char *options, const char *extra)
{
    snprintf(text, 2048,
             "affinity: { capacity: 1600 }\n"
             "servers:\n"
             "  vpn1: { address: 192.0.2.11 }\n"
             "  vpn2: { address: 192.0.2.12 }\n"
             "  vpn3: { address: 192.0.2.13 }\n"
             "pools:\n"
             "  rras: { servers: [ vpn1, vpn2, vpn3 ] }\n"
             "persistence:\n"
             "  home: { plugin: " MODULES "/%s.so, options: { %s }%s }\n"
             "services:\n"
             "  ike:   { listen: \"127.0.0.1:500\",  protocol: udp, pool: rras, persistence: home }\n"
             "  nat-t: { listen: \"127.0.0.1:4500\", protocol: udp, pool: rras, persistence: home }\n"
             "  plain: { listen: \"127.0.0.1:501\",  protocol: udp, pool: rras }\n",
             module, options, extra);
    return text;
}

void deciding_open_yaml(struct deciding *self, const char *yaml, uint32_t records)
{
    memset((void *)self, 0, sizeof *self);
    self->now_s = START_S;
    world_open_with(&self->world, yaml, records);
    for (uint32_t i = 0; i < 2; i++)
        self->slots[i] = process_begin(self->world.segment, PROCESS_WORKER, i);
    open_workers(self);
}

void deciding_open(struct deciding *self, const char *module, const char *options)
{
    char yaml[2048];

    deciding_open_yaml(self, deciding_yaml(yaml, module, options, ""), 1600);
}

void deciding_reload(struct deciding *self, const char *yaml)
{
    close_workers(self);
    world_reload(&self->world, yaml);
    open_workers(self);
}

void deciding_close(struct deciding *self)
{
    close_workers(self);
    world_close(&self->world);
}

static uint32_t service_position(const struct deciding *self, const char *name)
{
    uint32_t i = 0;

    while (i < self->world.config->service_count && strcmp(self->world.config->services[i].name, name) != 0)
        i++;
    cr_assert_lt(i, self->world.config->service_count, "%s", name);
    return i;
}

static void datagram_fill(struct ike_datagram *out, enum datagram kind)
{
    static const uint8_t octets[64];

    *out = (struct ike_datagram){.kind = kind == NO_IKE ? IKE_OTHER : IKE_MESSAGE, .data = octets, .size = 64};
    if (kind == NO_IKE)
        return;
    out->header = (struct hp_ike){.size = sizeof out->header,
                                  .exchange = kind == INIT ? IKE_SA_INIT : IKE_INFORMATIONAL,
                                  .flags = IKE_FLAG_INITIATOR,
                                  .version = 0x20,
                                  .next_payload = 33,
                                  .initiator_spi = {1, 2, 3},
                                  .responder_spi = {kind == INIT ? 0 : 9},
                                  .message_id = kind == INIT ? 0 : 1,
                                  .length = 64};
}

void request_fill(struct deciding *self, struct decision_request *out, const char *service, uint32_t client,
                  int32_t own, enum datagram kind)
{
    static const struct hp_endpoint local = {.address = {127, 0, 0, 1}, .port = 500, .family = 4};
    static struct hp_endpoint from;
    static struct ike_datagram datagram;

    from =
        (struct hp_endpoint){.address = {198, 51, (uint8_t)(client >> 8), (uint8_t)client}, .port = 5000, .family = 4};
    datagram_fill(&datagram, kind);
    *out = (struct decision_request){.service = service_position(self, service),
                                     .client = &from,
                                     .local = &local,
                                     .datagram = &datagram,
                                     .data = datagram.data,
                                     .size = datagram.size,
                                     .own_server = own,
                                     .now_s = self->now_s};
}

struct decision ask(struct deciding *self, uint32_t worker, const char *service, uint32_t client, int32_t own,
                    enum datagram kind)
{
    struct decision_request request;
    struct decision decision;

    request_fill(self, &request, service, client, own, kind);
    decide(self->deciders[worker], &request, &decision);
    return decision;
}

struct decision ask_new(struct deciding *self, const char *service, uint32_t client)
{
    return ask(self, 0, service, client, -1, INIT);
}

int32_t server_named(const struct deciding *self, const char *name)
{
    return (int32_t)world_server(&self->world, name);
}

uint64_t counted(const struct deciding *self, enum counter counter)
{
    return counter_total(self->world.segment, counter);
}

uint64_t plugin_counted(const struct deciding *self, const char *counter)
{
    uint64_t identity, total = 0;
    char name[64];

    snprintf(name, sizeof name, "home/%s", counter);
    identity = hash_identity("counter", name);
    for (int i = 0; i < 2; i++)
        for (uint32_t j = 0; j < SEGMENT_PLUGIN_COUNTERS; j++) {
            struct plugin_counter *entry = &self->world.segment->processes[self->slots[i]].plugin_counters[j];

            if (atomic_load(&entry->identity) == identity)
                total += atomic_load(&entry->value);
        }
    return total;
}

uint32_t record_age(const struct deciding *self, const struct decision *decision)
{
    return record_age_s(record_value(self->world.segment, decision->record), self->now_s);
}

bool watch_holds(const struct deciding *self, const struct decision *decision)
{
    return decision->record != SEGMENT_NO_INDEX &&
           RECORD_DECISION(record_value(self->world.segment, decision->record)) == decision->watch;
}

void prove(struct deciding *self, const struct decision *decision)
{
    struct record_ref ref = {decision->record, record_value(self->world.segment, decision->record)};

    cr_assert(record_prove(self->world.segment, &ref));
}
