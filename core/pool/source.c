/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: a client's first flow begins; its record has no source for this decision yet; of the service's addresses
 * the one with the fewest clients not yet proven is counted one up and written into the record, each by one CAS. Its
 * other flows, in whatever process, find it there.
 *
 * Another worker counts at the same moment: looked at anew, so that twelve that come at once are spread evenly. It
 * chooses at the same moment: its choice; our count is one too many until the next recount. The address has gone from
 * this machine: chosen anew, as is one that the service does not list (any more) once none of the client's sessions
 * can live. The server refuses clients from some: the others; from all of them: as if from none. No record: by a hash
 * over the client's address. */
#include "segment/source.h"

#include "base/hash.h"
#include "pool/topology.h"
#include "segment/record.h"

#define TRIES 16u

static const uint8_t source_key[16] = "homeport source1"; /* no secret: the same in all workers */

static uint32_t family_of(const struct topology *topology, uint32_t server)
{
    return topology->segment->servers[server % SEGMENT_SERVERS].address.family;
}

static bool refuses(const struct topology *topology, const struct topology_service *service, uint32_t server,
                    uint32_t source)
{
    return service->config->ike && !service->config->transparent &&
           source_refuses_ms(topology->segment, server, source, NULL) > 0;
}

bool topology_refuses(const struct topology *topology, const struct topology_service *service, uint32_t slot)
{
    for (uint32_t i = 0; i < service->source_count; i++)
        if (source_usable(topology->segment, service->sources[i], family_of(topology, slot)) &&
            !refuses(topology, service, slot, service->sources[i]))
            return false;
    return true;
}

bool topology_has_source(const struct topology *topology, const struct topology_service *service, uint32_t slot)
{
    for (uint32_t i = 0; i < service->source_count; i++)
        if (source_usable(topology->segment, service->sources[i], family_of(topology, slot)))
            return true;
    return false;
}

static bool is_listed(const struct topology_service *service, uint32_t source)
{
    for (uint32_t i = 0; i < service->source_count; i++)
        if (service->sources[i] == source)
            return true;
    return false;
}

/* One look; *seen: what it is counted up from. */
static uint32_t least_of(const struct topology *topology, const struct topology_service *service, uint32_t server,
                         uint32_t *seen)
{
    uint32_t best = SEGMENT_NO_INDEX, best_clients = 0;
    bool best_refuses = false;

    for (uint32_t i = 0; i < service->source_count; i++) {
        uint32_t source = service->sources[i], added, clients;
        bool refused;

        if (!source_usable(topology->segment, source, family_of(topology, server)))
            continue;
        clients = source_unproven(topology->segment, server, source, &added);
        refused = refuses(topology, service, server, source);
        if (best != SEGMENT_NO_INDEX && (refused != best_refuses ? refused : clients >= best_clients))
            continue;
        best = source;
        best_clients = clients;
        best_refuses = refused;
        *seen = added;
    }
    return best;
}

static uint32_t pick_least(const struct topology *topology, const struct topology_service *service, uint32_t server)
{
    uint32_t source = SEGMENT_NO_INDEX, seen = 0;

    for (uint32_t i = 0; i < TRIES; i++) {
        source = least_of(topology, service, server, &seen);
        if (source == SEGMENT_NO_INDEX || source_count(topology->segment, server, source, seen))
            break;
    }
    return source;
}

static uint32_t pick_by_hash(const struct topology *topology, const struct topology_service *service, uint32_t server,
                             const struct hp_endpoint *client)
{
    uint64_t hash = hash_64(source_key, client->address, sizeof client->address);

    for (uint32_t i = 0; i < service->source_count; i++) {
        uint32_t source = service->sources[(hash + i) % service->source_count];

        if (source_usable(topology->segment, source, family_of(topology, server)))
            return source;
    }
    return SEGMENT_NO_INDEX;
}

static bool is_preferred(const struct topology *topology, const struct topology_source_question *question)
{
    return question->prefer >= 0 &&
           source_usable(topology->segment, (uint32_t)question->prefer, family_of(topology, question->server));
}

uint32_t topology_source(struct topology *topology, const struct topology_service *service,
                         const struct topology_source_question *question)
{
    bool preferred = is_preferred(topology, question);
    uint32_t source = SEGMENT_NO_INDEX;
    struct record_source seen;

    for (uint32_t i = 0; question->record != SEGMENT_NO_INDEX && i < TRIES; i++) {
        if (!record_source(topology->segment, question->record, question->watch, &seen))
            break;
        if (seen.chosen && source_usable(topology->segment, seen.source, family_of(topology, question->server)) &&
            (question->heard || is_listed(service, seen.source)))
            return seen.source;
        if (source == SEGMENT_NO_INDEX)
            source = preferred ? (uint32_t)question->prefer : pick_least(topology, service, question->server);
        if (source == SEGMENT_NO_INDEX ||
            record_source_choose(topology->segment, question->record, question->watch, &seen, source))
            return source;
    }
    return preferred ? (uint32_t)question->prefer : pick_by_hash(topology, service, question->server, question->client);
}
