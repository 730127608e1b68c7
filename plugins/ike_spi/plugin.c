/* SPDX-License-Identifier: Apache-2.0 */
/* ike_spi: a client is an IKE_SA. Its names are the initiator's SPI (RFC 7296 section 3.1: chosen at random, the same
 * in every message of the IKE_SA, on 500 and on 4500, from whatever address) and, for ESP that comes first after a
 * change of address or port, the SPIs of the ESP that its server receives.
 *
 * An IKE_SA_INIT makes a record of its SPI. Every later IKE message and every new ESP SPI is looked up, and goes to the
 * server of its record. What a proven session brings that nobody knows is a new name of the same client.
 * Fails: an IKE_SA_INIT's SPI is known from elsewhere -> SPI and address together are its name; the other one's record
 *                                                        is not touched, whoever of the two is the impostor
 *        an ESP SPI is another client's as well       -> likewise, once that is plain: servers choose their own
 *        an unproven session brings an unknown name   -> nothing is learnt: it may be at the wrong server
 *        no record, no beginning, no known flow       -> `fallback`, and no record of the SPI: it would name a server
 *                                                        that has no such IKE_SA
 *        a keepalive from nobody                      -> refused: it asks for nothing */
#include <homeport/plugin.h>
#include <homeport/plugin_util.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT, FALLBACK, OPTIONS };
enum { SOURCE_IP, SCHEDULER }; /* fallback */
enum { IKE_SAS, ESP_SPIS, ADDRESSES, TABLES };

/* RFC 7296 section 3.1; 38: RFC 5723, 43: RFC 9242 */
enum { IKE_SA_INIT = 34, IKE_AUTH = 35, IKE_SESSION_RESUME = 38, IKE_INTERMEDIATE = 43, RESPONSE = 0x20 };

static const struct hp_option options[OPTIONS] = {
    [TIMEOUT] = {"timeout", HP_OPTION_DURATION, 0, "180s", "1s..4000h",
                 "How long a record outlives its traffic; `never` is possible."},
    [FALLBACK] = {"fallback", HP_OPTION_CHOICE, 0, "source_ip", "source_ip|scheduler",
                  "What decides on a new flow that neither begins an IKE_SA nor bears a known SPI."},
};
static const char *const tables[TABLES] = {"ike_sas", "esp_spis", "addresses"};

struct ike_spi {
    const struct hp_host *host;
    const struct hp_profile *profile;
};

struct key {
    uint32_t table, size;
    uint8_t octets[HP_KEY_MAX];
};

struct name {                  /* that a datagram calls its client by */
    struct key anywhere, here; /* here: together with the client's address */
    struct key on_flow;        /* and its port */
    bool is_ike, init;         /* init: the client has just chosen it */
    bool begins;               /* the IKE_SA is not established yet */
};

static void key_append(struct key *key, const void *octets, uint32_t size)
{
    memcpy(key->octets + key->size, octets, size);
    key->size += size;
}

static void key_append_address(struct key *key, const struct hp_endpoint *client)
{
    const uint8_t family = (uint8_t)client->family;

    key_append(key, &family, 1);
    key_append(key, client->address, family == 4 ? 4 : 16);
}

static void name_read(struct name *name, const struct hp_flow *flow)
{
    static const uint8_t none[8];
    const struct hp_ike *ike = flow->ike;

    memset(name, 0, sizeof *name);
    if (ike == NULL) {
        const uint8_t spi[4] = {(uint8_t)(flow->esp_spi >> 24), (uint8_t)(flow->esp_spi >> 16),
                                (uint8_t)(flow->esp_spi >> 8), (uint8_t)flow->esp_spi};
        name->anywhere.table = ESP_SPIS;
        key_append(&name->anywhere, spi, sizeof spi);
    } else {
        name->is_ike = true;
        name->anywhere.table = IKE_SAS;
        key_append(&name->anywhere, ike->initiator_spi, sizeof ike->initiator_spi);
        name->begins = ike->exchange == IKE_SA_INIT || ike->exchange == IKE_AUTH ||
                       ike->exchange == IKE_SESSION_RESUME || ike->exchange == IKE_INTERMEDIATE;
        name->init = name->begins && (ike->flags & RESPONSE) == 0 && memcmp(ike->responder_spi, none, sizeof none) == 0;
    }
    name->here = name->anywhere;
    key_append_address(&name->here, &flow->client);
    name->on_flow = name->here;
    key_append(&name->on_flow, &flow->client.port, sizeof flow->client.port);
}

static int32_t get(const struct ike_spi *self, const struct key *key, struct hp_record *record)
{
    return self->host->get(self->host, key->table, key->octets, key->size, record);
}

/* But for who begins anew, no other server than the record's could serve: whatever its limit says. */
static int32_t claim(const struct ike_spi *self, const struct hp_flow *flow, const struct key *key)
{
    const bool anew = flow->ike != NULL && flow->ike->exchange == IKE_SA_INIT;
    const struct hp_claim claim = {.size = sizeof claim,
                                   .table = key->table,
                                   .key_size = key->size,
                                   .flags = anew || key->table == ADDRESSES ? 0 : HP_CLAIM_OVER_LIMIT,
                                   .key = key->octets,
                                   .ttl_ms = hp_ttl(&self->profile->values[TIMEOUT]),
                                   .prefer = HP_NOTHING}; /* a live session's own server comes first by itself */

    return self->host->claim(self->host, flow, &claim);
}

static bool made_here(const struct hp_record *record, const struct hp_flow *flow)
{
    return record->client.family == flow->client.family &&
           memcmp(record->client.address, flow->client.address, sizeof record->client.address) == 0;
}

/* Neither a new IKE_SA nor a name that is known. */
static int32_t fall_back(const struct ike_spi *self, const struct hp_flow *flow)
{
    struct key key = {.table = ADDRESSES};
    int32_t server;

    if (self->profile->values[FALLBACK].as.integer == SCHEDULER)
        return flow->server;
    key_append_address(&key, &flow->client);
    if (flow->server >= 0) { /* stays where it is; its record may have to be put back */
        server = get(self, &key, NULL);
        if (flow->ike != NULL || flow->esp_spi != 0 || (server >= 0 && server != flow->server))
            return flow->server;
    }
    return claim(self, flow, &key);
}

/* A name without a record. */
static int32_t select_for_new(const struct ike_spi *self, const struct hp_flow *flow, const struct name *name)
{
    struct hp_record record = {.size = sizeof record};
    int32_t server;

    if (!name->begins && (flow->server < 0 || !flow->proven))
        return fall_back(self, flow);
    server = claim(self, flow, &name->anywhere);
    /* Another worker may have claimed it for another address at this very moment. */
    if (server >= 0 && name->init && get(self, &name->anywhere, &record) >= 0 && !made_here(&record, flow))
        server = claim(self, flow, &name->here);
    return server;
}

/* ESP on a proven session, and its SPI leads to another server. Either the flow is another client's now, because a NAT
 * has given its port away; or two servers have chosen one SPI. It follows once. If IKE has brought the flow back since,
 * it was the second. */
static int32_t select_for_stray_esp(const struct ike_spi *self, const struct hp_flow *flow, const struct name *name)
{
    const struct key *followed = &name->on_flow;

    if (get(self, followed, NULL) == flow->server)
        return claim(self, flow, &name->here);
    (void)self->host->put(self->host, followed->table, followed->octets, followed->size, flow->server,
                          hp_ttl(&self->profile->values[TIMEOUT]));
    return claim(self, flow, &name->anywhere);
}

/* A proven session brings a message of an IKE_SA that is at home elsewhere. It follows a client that is proven, and one
 * that has begun at this very address; nobody else, because whoever can forge its address may have sent it. */
static bool follows(const struct hp_flow *flow, const struct name *name, const struct hp_record *record)
{
    return record->proven || (name->begins && made_here(record, flow));
}

static int32_t select_by_name(const struct ike_spi *self, const struct hp_flow *flow)
{
    struct hp_record record = {.size = sizeof record};
    struct name name;
    int32_t server;

    name_read(&name, flow);
    server = get(self, &name.anywhere, &record);
    if (flow->proven && server == flow->server && !name.init)
        return claim(self, flow, &name.anywhere);
    if (get(self, &name.here, NULL) >= 0)
        return claim(self, flow, &name.here);
    if (server < 0)
        return select_for_new(self, flow, &name);
    if (name.init && !made_here(&record, flow))
        return claim(self, flow, &name.here);
    if (!flow->proven || server == flow->server)
        return claim(self, flow, &name.anywhere);
    if (!name.is_ike)
        return select_for_stray_esp(self, flow, &name);
    return follows(flow, &name, &record) ? claim(self, flow, &name.anywhere) : flow->server;
}

/* RFC 3948 section 2.3: one octet, for the NAT and not for the server. */
static bool is_keepalive(const struct hp_flow *flow)
{
    return flow->data != NULL && flow->data_size == 1 && flow->data[0] == 0xff;
}

static int32_t select_server(void *context, const struct hp_flow *flow)
{
    const struct ike_spi *self = context;

    if (flow->attempt > 0) /* its own server may not serve any more */
        return HP_NOTHING;
    if (flow->ike != NULL || flow->esp_spi != 0)
        return select_by_name(self, flow);
    if (is_keepalive(flow))
        return flow->server >= 0 ? flow->server : HP_REFUSE;
    return fall_back(self, flow);
}

static int check(const struct hp_host *host, const struct hp_profile *profile)
{
    for (uint32_t i = 0; i < profile->service_count; i++) {
        const struct hp_service *service = profile->services[i];

        if (!service->is_ike)
            hp_problem(host, service->id, HP_NO_OPTION,
                       "warning: %s is not read as IKE, so all its clients are left to `fallback`: give its pool "
                       "`health: { check: ike }`",
                       service->name);
        if (service->servers_identity != profile->services[0]->servers_identity)
            hp_problem(host, service->id, HP_NO_OPTION,
                       "warning: %s and %s share records but not their servers: a client whose server is in one pool "
                       "alone is split; give both the same servers",
                       service->name, profile->services[0]->name);
    }
    return 0;
}

static void *ike_spi_create(const struct hp_host *host, const struct hp_profile *profile)
{
    struct ike_spi *self = malloc(sizeof *self);

    if (self == NULL) {
        hp_problem(host, HP_NO_SERVICE, HP_NO_OPTION, "no memory");
        return NULL;
    }
    self->host = host;
    self->profile = profile;
    return self;
}

const struct hp_plugin hp_plugin_v1 = {
    .abi_major = HP_ABI_MAJOR,
    .abi_minor = HP_ABI_MINOR,
    .size = sizeof hp_plugin_v1,
    .name = "ike_spi",
    .version = "1.0",
    .summary = "The IKE_SA itself: many clients behind one NAT spread, and one that changes its address stays at home.",
    .author = "homeport",
    .options = options,
    .option_count = OPTIONS,
    .option_size = sizeof(struct hp_option),
    .tables = tables,
    .table_count = TABLES,
    .ttl_option = TIMEOUT,
    .check = check,
    .create = ike_spi_create,
    .destroy = free,
    .select = select_server,
    .decides = HP_DECIDE_IKE | HP_DECIDE_ESP_SPI,
};
