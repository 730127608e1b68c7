/* SPDX-License-Identifier: Apache-2.0 */
/* What the verb servers tells of own addresses: per server and address the clients, and whether new ones are refused.
 */
#include "monitor/control/requests.h"

#include "base/endpoint.h"
#include "monitor/sources.h"
#include "segment/source.h"

/* Some service reaches the server from it, or some client still does. */
static bool concerns(const struct topology *topology, uint32_t slot, uint32_t source)
{
    const struct segment *segment = topology->segment;

    if (atomic_load(&source_load(segment, slot, source)->clients) > 0)
        return true;
    if (source != SOURCE_ROUTE && segment->sources[source].address.family != segment->servers[slot].address.family)
        return false;
    for (uint32_t i = 0; i < topology->service_count; i++) {
        const struct topology_service *service = &topology->services[i];

        for (uint32_t j = 0; j < service->source_count && topology_member(service, slot) != NULL; j++)
            if (service->sources[j] == source)
                return true;
    }
    return false;
}

static json_t *refusal_object(uint64_t left_ms, uint32_t unanswered)
{
    if (left_ms == 0)
        return json_null();
    return json_pack("{s:I, s:o}", "left_ms", (json_int_t)left_ms, "reason",
                     json_sprintf("%u of the last %u IKE_SA_INITs not answered within %u s", unanswered, SOURCE_LAST,
                                  SOURCE_ANSWER_MS / 1000));
}

json_t *sources_array(const struct control_sources *sources, uint32_t slot)
{
    const struct segment *segment = sources->context->segment;
    json_t *array = json_array();

    for (uint32_t i = 0; i < SEGMENT_SOURCES; i++) {
        uint32_t added, unanswered, unproven;
        uint64_t left_ms;

        if (!concerns(sources->context->topology, slot, i))
            continue;
        unproven = source_unproven(segment, slot, i, &added);
        left_ms = source_refuses_ms(segment, slot, i, &unanswered);
        json_array_append_new(array,
                              json_pack("{s:o, s:b, s:i, s:i, s:o}", "address",
                                        i == SOURCE_ROUTE ? json_null() : json_address(&segment->sources[i].address),
                                        "here", atomic_load(&segment->sources[i].absent) == 0, "clients",
                                        (int)atomic_load(&source_load(segment, slot, i)->clients), "unproven",
                                        (int)unproven, "refuses", refusal_object(left_ms, unanswered)));
    }
    return array;
}

void sources_add_notes(const struct control_sources *sources, uint32_t slot, json_t *notes)
{
    const struct segment *segment = sources->context->segment;
    char name[SEGMENT_NAME + 1] = {0}, text[ENDPOINT_TEXT];

    for (uint32_t i = 0; i < SEGMENT_NAME; i++)
        name[i] = segment->servers[slot].name[i];
    for (uint32_t i = 0; i < SEGMENT_SOURCES; i++) {
        uint32_t unanswered;
        uint64_t left_ms = source_refuses_ms(segment, slot, i, &unanswered);

        if (left_ms > 0 && concerns(sources->context->topology, slot, i))
            json_array_append_new(
                notes, json_sprintf("server %s refuses clients from %s: %u of the last %u IKE_SA_INITs were not "
                                    "answered within %u s; no new client goes there from it for %u s",
                                    name, source_text(segment, i, text), unanswered, SOURCE_LAST,
                                    SOURCE_ANSWER_MS / 1000, (unsigned)((left_ms + 999) / 1000)));
    }
}
