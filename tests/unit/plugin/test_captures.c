/* SPDX-License-Identifier: Apache-2.0 */
/* Real IKE, replayed through the wire reader and ike_spi in the real host, as the relay asks: every message of an
 * IKE_SA and all ESP of an SPI get one server. Captures of our own bed ($HOMEPORT_CAPTURES, in the tree) and of others
 * ($HOMEPORT_PCAPS, where that is set). */
#include "capture.h"
#include "deciding.h"

#include "base/endpoint.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLOWS 256u
#define NAMES 256u
#define SERVERS 16u

struct flow {
    struct hp_endpoint client;
    uint16_t port; /* of the service */
    int32_t server;
    bool proven;
    uint32_t esp_spi;
};
struct name { /* an initiator SPI or an ESP SPI, and where its first message went */
    uint8_t spi[8];
    bool is_esp;
    int32_t server;
};

struct replay {
    struct deciding *deciding;
    struct hp_endpoint servers[SERVERS]; /* as the capture has them; which is all one to ike_spi */
    uint32_t server_count;
    struct flow flows[FLOWS];
    uint32_t flow_count;
    struct name names[NAMES];
    uint32_t name_count;
    uint32_t messages, splits;
};

static struct deciding deciding;

static struct flow *flow_find(struct replay *self, const struct hp_endpoint *client, uint16_t port)
{
    for (uint32_t i = 0; i < self->flow_count; i++)
        if (self->flows[i].port == port && endpoint_equal(&self->flows[i].client, client))
            return &self->flows[i];
    return NULL;
}

static struct flow *flow_add(struct replay *self, const struct hp_endpoint *client, uint16_t port)
{
    struct flow *flow = &self->flows[self->flow_count++];

    cr_assert_leq(self->flow_count, FLOWS);
    *flow = (struct flow){.client = *client, .port = port};
    return flow;
}

/* What the datagram names must be at this server as before. */
static void name_holds(struct replay *self, const struct ike_datagram *ike, int32_t server)
{
    struct name name = {.is_esp = ike->kind == IKE_ESP, .server = server};

    if (ike->kind != IKE_ESP && ike->kind != IKE_MESSAGE)
        return;
    memcpy(name.spi, ike->kind == IKE_ESP ? ike->data : ike->header.initiator_spi, ike->kind == IKE_ESP ? 4 : 8);
    self->messages++;
    for (uint32_t i = 0; i < self->name_count; i++)
        if (self->names[i].is_esp == name.is_esp && memcmp(self->names[i].spi, name.spi, sizeof name.spi) == 0) {
            self->splits += self->names[i].server != server;
            return;
        }
    cr_assert_lt(self->name_count, NAMES);
    self->names[self->name_count++] = name;
}

static int32_t decide_on(struct replay *self, const struct captured *datagram, const struct ike_datagram *ike,
                         const struct flow *flow)
{
    const struct decision_request request = {.service = datagram->to.port == 500 ? 0 : 1,
                                             .client = &datagram->from,
                                             .local = &datagram->to,
                                             .datagram = ike,
                                             .data = datagram->data,
                                             .size = (uint32_t)datagram->size,
                                             .own_server = flow != NULL ? flow->server : -1,
                                             .proven = flow != NULL && flow->proven,
                                             .now_s = self->deciding->now_s};
    struct decision decision;

    decide(self->deciding->deciders[datagram->from.port % 2], &request, &decision);
    return decision.server;
}

static void from_client(struct replay *self, const struct captured *datagram, const struct ike_datagram *ike)
{
    struct flow *flow = flow_find(self, &datagram->from, datagram->to.port);
    bool asked = flow == NULL || ike->kind == IKE_MESSAGE || (ike->kind == IKE_ESP && ike->esp_spi != flow->esp_spi);
    int32_t server = asked ? decide_on(self, datagram, ike, flow) : flow->server;

    if (server < 0) {
        cr_assert_eq(ike->kind, IKE_KEEPALIVE, "nothing else is refused");
        return;
    }
    if (flow == NULL)
        flow = flow_add(self, &datagram->from, datagram->to.port);
    else if (server != flow->server)
        flow->proven = false;
    flow->server = server;
    flow->esp_spi = ike->esp_spi != 0 ? ike->esp_spi : flow->esp_spi;
    name_holds(self, ike, server);
}

static void from_server(struct replay *self, const struct captured *datagram, const struct ike_datagram *ike)
{
    struct flow *flow = flow_find(self, &datagram->to, datagram->from.port);

    if (flow == NULL)
        return;
    if (!flow->proven && ike_is_proof(ike)) {
        flow->proven = true;
        flow->esp_spi = 0;
    }
    if (ike->kind == IKE_MESSAGE)
        name_holds(self, ike, flow->server);
}

static bool is_server(const struct replay *self, const struct hp_endpoint *endpoint)
{
    for (uint32_t i = 0; i < self->server_count; i++)
        if (endpoint_same_address(&self->servers[i], endpoint))
            return true;
    return false;
}

/* Who is spoken to first is a server. */
static void replay_datagram(void *arg, const struct captured *datagram)
{
    struct replay *self = arg;
    uint16_t to = datagram->to.port;
    struct ike_datagram ike;

    if (is_server(self, &datagram->from)) {
        ike_read(&ike, datagram->data, datagram->size, datagram->from.port);
        from_server(self, datagram, &ike);
    } else if (to == 500 || to == 4500) {
        if (!is_server(self, &datagram->to)) {
            cr_assert_lt(self->server_count, SERVERS);
            self->servers[self->server_count++] = datagram->to;
        }
        ike_read(&ike, datagram->data, datagram->size, to);
        from_client(self, datagram, &ike);
    }
}

struct total {
    const char *plugin;
    uint32_t captures, messages, splits, names;
};

static void replay_capture(void *arg, const char *path)
{
    struct total *total = arg;
    struct replay *replay = calloc(1, sizeof *replay);
    char yaml[2048], module[64];

    snprintf(module, sizeof module, "../../../plugins/%s/%s", total->plugin, total->plugin);
    deciding_open_yaml(&deciding, deciding_yaml(yaml, module, "", ""), 1600);
    replay->deciding = &deciding;
    capture_read(path, replay_datagram, replay);
    total->captures++;
    total->messages += replay->messages;
    total->names += replay->name_count;
    total->splits += replay->splits;
    if (strcmp(total->plugin, "ike_spi") == 0)
        cr_expect_eq(replay->splits, 0, "%s: %u of %u messages elsewhere", path, replay->splits, replay->messages);
    deciding_close(&deciding);
    free(replay);
}

Test(captures, every_message_of_an_ike_sa_gets_one_server)
{
    struct total total = {.plugin = "ike_spi"};
    const char *others = getenv("HOMEPORT_PCAPS");

    captures_find(getenv("HOMEPORT_CAPTURES"), replay_capture, &total);
    cr_assert_geq(total.captures, 4);
    cr_assert_geq(total.messages, 100);
    if (others != NULL)
        captures_find(others, replay_capture, &total);
    printf("# %u captures, %u names, %u messages, %u splits\n", total.captures, total.names, total.messages,
           total.splits);
}

/* What they are measured against; else the test above could not fail. */
Test(captures, source_address_splits_some)
{
    struct total total = {.plugin = "source_address"};

    captures_find(getenv("HOMEPORT_CAPTURES"), replay_capture, &total);
    cr_assert_gt(total.splits, 0);
}
