/* SPDX-License-Identifier: Apache-2.0 */
/* Pools, services and profiles: slots that are found again by name. Written by the master before the processes that use
 * them are born, so a name and its identity need no order between them. */
#include "base/hash.h"
#include "segment/segment.h"
#include "segment/tables.h"
#include <string.h>

uint32_t segment_identity_find(const uint64_t *identity, size_t stride, uint32_t count, uint64_t wanted)
{
    const char *at = (const void *)identity;

    for (uint32_t i = 0; i < count; i++, at += stride) {
        const uint64_t *present = (const void *)at;

        if (*present == wanted)
            return i;
    }
    return SEGMENT_NO_INDEX;
}

void segment_name_write(char out[SEGMENT_NAME], const char *name)
{
    memset(out, 0, SEGMENT_NAME);
    memcpy(out, name, strnlen(name, SEGMENT_NAME - 1));
}

/* The slot of the identity, or a free one; *fresh tells which. */
static uint32_t find_or_free(const uint64_t *identity, size_t stride, uint32_t count, uint64_t wanted, bool *fresh)
{
    uint32_t index = segment_identity_find(identity, stride, count, wanted);

    *fresh = index == SEGMENT_NO_INDEX;
    return *fresh ? segment_identity_find(identity, stride, count, 0) : index;
}

uint32_t pool_find(const struct segment *segment, const char *name)
{
    return segment_identity_find(&segment->pools->identity, sizeof *segment->pools, SEGMENT_POOLS,
                                 hash_identity("pool", name));
}

uint32_t service_find(const struct segment *segment, const char *name)
{
    return segment_identity_find(&segment->services->identity, sizeof *segment->services, SEGMENT_SERVICES,
                                 hash_identity("service", name));
}

uint32_t profile_find(const struct segment *segment, const char *name)
{
    return segment_identity_find(&segment->profiles->identity, sizeof *segment->profiles, SEGMENT_PROFILES,
                                 hash_identity("profile", name));
}

uint32_t pool_assign(struct segment *segment, const char *name)
{
    uint64_t identity = hash_identity("pool", name);
    bool fresh;
    uint32_t index = find_or_free(&segment->pools->identity, sizeof *segment->pools, SEGMENT_POOLS, identity, &fresh);

    if (index == SEGMENT_NO_INDEX || !fresh)
        return index;
    atomic_store_explicit(&segment->pools[index].cursor, 0, memory_order_relaxed);
    segment->pools[index].identity = identity;
    return index;
}

uint32_t service_assign(struct segment *segment, const char *name)
{
    uint64_t identity = hash_identity("service", name);
    bool fresh;
    uint32_t index =
        find_or_free(&segment->services->identity, sizeof *segment->services, SEGMENT_SERVICES, identity, &fresh);
    struct service_slot *slot = &segment->services[index % SEGMENT_SERVICES];

    if (index == SEGMENT_NO_INDEX || !fresh)
        return index;
    memset((void *)slot, 0, sizeof *slot);
    segment_name_write(slot->name, name);
    slot->identity = identity;
    return index;
}

uint32_t profile_assign(struct segment *segment, const char *name)
{
    uint64_t identity = hash_identity("profile", name);
    bool fresh;
    uint32_t index =
        find_or_free(&segment->profiles->identity, sizeof *segment->profiles, SEGMENT_PROFILES, identity, &fresh);
    struct profile_slot *slot = &segment->profiles[index % SEGMENT_PROFILES];

    if (index == SEGMENT_NO_INDEX || !fresh)
        return index;
    memset((void *)slot, 0, sizeof *slot);
    segment_name_write(slot->name, name);
    slot->identity = identity;
    return index;
}

static bool is_among(uint64_t identity, const uint64_t *kept, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (kept[i] == identity)
            return true;
    return false;
}

void names_free_others(struct segment *segment, const uint64_t *kept, size_t count)
{
    for (uint32_t i = 0; i < SEGMENT_POOLS; i++)
        if (!is_among(segment->pools[i].identity, kept, count))
            segment->pools[i].identity = 0;
    for (uint32_t i = 0; i < SEGMENT_SERVICES; i++)
        if (!is_among(segment->services[i].identity, kept, count))
            segment->services[i].identity = 0;
    for (uint32_t i = 0; i < SEGMENT_PROFILES; i++)
        if (!is_among(segment->profiles[i].identity, kept, count))
            segment->profiles[i].identity = 0;
}
