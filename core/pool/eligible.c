/* SPDX-License-Identifier: Apache-2.0 */
/* Who may serve whom: the server states of config.md, group health, limits. One load of the server's word, and for
 * limits the monitor's last recount. The table, rule by rule; "moves" means elsewhere, and the record with it:
 *
 *   state              no record   record, not heard       record, live session       datagrams of the session
 *   enabled            may pick    honoured                honoured                   pass
 *   drain              elsewhere   honoured, extended      honoured                   pass
 *   offline            elsewhere   moves                   honoured, not extended     pass
 *   down, IKE          elsewhere   IKE_SA_INIT moves,      the same                   the same
 *                                  else honoured
 *   down, other UDP    elsewhere   moves                   moves                      decided anew
 *   down, TCP          elsewhere   record stays            the same                   pass
 *   disabled           elsewhere   moves                   moves                      decided anew; IKE: dropped
 *                                                                                     but for IKE_SA_INIT
 *   taken out of pool  elsewhere   as drain                as drain                   pass
 *   never in the pool  elsewhere   record stays            the same                   pass
 *   refuses clients    elsewhere   honoured                honoured                   pass */
#include "pool/scheduler.h"

#include <string.h>

#define PROTOCOL_TCP 6u

static uint64_t word_of(const struct topology *topology, uint32_t slot)
{
    return server_word(topology->segment, slot);
}

static bool is_enabled(uint64_t word)
{
    return (word & SERVER_CONFIGURED) != 0 && server_word_state(word) == SERVER_ENABLED;
}

/* What this process has added is in the recount now: forgotten. */
static void recount_notice(struct topology *topology)
{
    uint64_t recount = atomic_load_explicit(&topology->segment->header->recount, memory_order_acquire);

    if (recount == topology->recount_seen)
        return;
    topology->recount_seen = recount;
    memset(topology->added_servers, 0, SEGMENT_SERVERS * sizeof *topology->added_servers);
    memset(topology->added_services, 0, SEGMENT_SERVICES * sizeof *topology->added_services);
}

uint32_t server_clients(struct topology *topology, uint32_t slot)
{
    recount_notice(topology);
    return atomic_load_explicit(&topology->segment->servers[slot].clients, memory_order_relaxed) +
           topology->added_servers[slot];
}

void topology_count_client(struct topology *topology, const struct topology_service *service, uint32_t slot)
{
    recount_notice(topology);
    if (slot < SEGMENT_SERVERS)
        topology->added_servers[slot]++;
    topology->added_services[service->slot]++;
}

bool topology_is_up(const struct topology *topology, const struct member *member)
{
    return (word_of(topology, member->slot) & member->down_mask) == 0;
}

bool topology_all_down(const struct topology *topology, const struct topology_service *service)
{
    for (uint32_t i = 0; i < service->member_count; i++) {
        uint64_t word = word_of(topology, service->members[i].slot);

        if (is_enabled(word) && (word & service->members[i].down_mask) == 0)
            return false;
    }
    return true;
}

/* When every probe fails, the probe may be what is broken. */
static bool serves_all_down(const struct topology *topology, const struct topology_service *service)
{
    return service->pool->all_down == ALL_DOWN_SERVE && topology_all_down(topology, service);
}

static bool counts_as_up(const struct topology *topology, const struct topology_service *service,
                         const struct member *member)
{
    return topology_is_up(topology, member) || serves_all_down(topology, service);
}

bool topology_all_refuse(const struct topology *topology, const struct topology_service *service)
{
    bool some = false;

    for (uint32_t i = 0; i < service->member_count; i++) {
        const struct member *member = &service->members[i];

        if (!is_enabled(word_of(topology, member->slot)) || !topology_is_up(topology, member))
            continue;
        if (!topology_refuses(topology, service, member->slot))
            return false;
        some = true;
    }
    return some;
}

/* The servers that are up are silent to new IKE_SAs, all of them: it may be our counting that is broken. */
static bool serves_all_refuse(const struct topology *topology, const struct topology_service *service)
{
    return service->pool->all_down == ALL_DOWN_SERVE && topology_all_refuse(topology, service);
}

bool topology_is_full(struct topology *topology, const struct member *member)
{
    return member->max_clients != 0 && server_clients(topology, member->slot) >= member->max_clients;
}

bool topology_service_full(struct topology *topology, const struct topology_service *service)
{
    uint32_t clients;

    if (service->config->max_clients == 0)
        return false;
    recount_notice(topology);
    clients = atomic_load_explicit(&topology->segment->services[service->slot].clients, memory_order_relaxed);
    return clients + topology->added_services[service->slot] >= service->config->max_clients;
}

bool topology_takes_new(struct topology *topology, const struct topology_service *service, const struct member *member)
{
    return is_enabled(word_of(topology, member->slot)) && counts_as_up(topology, service, member) &&
           !topology_is_full(topology, member) &&
           (!topology_refuses(topology, service, member->slot) || serves_all_refuse(topology, service));
}

void candidates_collect(struct topology *topology, const struct topology_service *service, struct candidates *out)
{
    bool all_up = serves_all_down(topology, service), all_take = serves_all_refuse(topology, service);

    out->count = 0;
    for (uint32_t i = 0; i < service->member_count; i++) {
        const struct member *member = &service->members[i];

        if (is_enabled(word_of(topology, member->slot)) && (all_up || topology_is_up(topology, member)) &&
            !topology_is_full(topology, member) && (all_take || !topology_refuses(topology, service, member->slot)))
            out->positions[out->count++] = (uint16_t)i;
    }
}

/* A server that is down: who must stay all the same? */
static enum topology_answer ask_down(const struct topology_service *service, const struct topology_question *question)
{
    if (service->config->protocol == PROTOCOL_TCP)
        return TOPOLOGY_FOREIGN; /* its own port alone is down: the record stays for the others */
    if (service->config->ike && !question->new_sa)
        return TOPOLOGY_HONOUR; /* no other server has its IKE_SA */
    return TOPOLOGY_MOVE;
}

/* By state and health; limits come after. member NULL: no pool names the server any more, so nobody probes it. */
static enum topology_answer ask_state(const struct topology *topology, const struct topology_service *service,
                                      uint32_t slot, const struct member *member,
                                      const struct topology_question *question)
{
    enum topology_answer answer = TOPOLOGY_HONOUR;

    if (member != NULL && !counts_as_up(topology, service, member))
        answer = ask_down(service, question);
    switch (server_word_state(word_of(topology, slot))) {
    case SERVER_ENABLED:
    case SERVER_DRAIN:
        return answer;
    case SERVER_OFFLINE:
        if (!question->heard)
            return TOPOLOGY_MOVE;
        return answer == TOPOLOGY_HONOUR ? TOPOLOGY_HONOUR_STILL : answer;
    case SERVER_DISABLED:
        return TOPOLOGY_MOVE;
    }
    return answer;
}

enum topology_answer topology_ask(struct topology *topology, const struct topology_service *service, uint32_t slot,
                                  const struct topology_question *question)
{
    const struct member *member = topology_member(service, slot);
    enum topology_answer answer;

    if (slot >= SEGMENT_SERVERS)
        return TOPOLOGY_MOVE;
    if (member == NULL) {
        member = topology_member_anywhere(topology, service, slot);
        if (!question->taken_out && !(question->any_pool && member != NULL))
            return TOPOLOGY_FOREIGN;
    }
    answer = ask_state(topology, service, slot, member, question);
    if (answer != TOPOLOGY_HONOUR || question->heard || question->over_limit || member == NULL)
        return answer;
    return topology_is_full(topology, member) ? TOPOLOGY_FULL : TOPOLOGY_HONOUR;
}

enum topology_pass topology_datagram(const struct topology *topology, const struct topology_service *service,
                                     const struct member *member, bool new_sa)
{
    const struct config_service *config = service->config;
    uint64_t word;

    if (member == NULL)
        return TOPOLOGY_PASS;
    word = word_of(topology, member->slot);
    if (server_word_state(word) == SERVER_DISABLED)
        return config->ike && !new_sa ? TOPOLOGY_DROP : TOPOLOGY_DECIDE_ANEW;
    if ((word & member->down_mask) == 0 || config->protocol == PROTOCOL_TCP || (config->ike && !new_sa))
        return TOPOLOGY_PASS;
    return serves_all_down(topology, service) ? TOPOLOGY_PASS : TOPOLOGY_DECIDE_ANEW;
}
