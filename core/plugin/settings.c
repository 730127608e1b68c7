/* SPDX-License-Identifier: Apache-2.0 */
/* Has a reload changed what a live session was decided by? Most have not: another weight, a server more. Then 50,000
 * sessions need no decision each.
 *
 * Two halves, both needed. The settings: plugin file and option values, as one number that a session's row keeps; they
 * decide how long a record lives and what extends it. The key: derive_key's, compared with that of the session's
 * record; so a map that create() reads, or another service of the profile, is noticed as well. */
#include "plugin/host.h"

#include "base/hash.h"

#include <string.h>

static const uint8_t settings_key[16] = "homeport setting";

static uint64_t fold(uint64_t so_far, const void *data, size_t size)
{
    uint8_t key[16];

    memcpy(key, settings_key, sizeof key);
    memcpy(key, &so_far, sizeof so_far);
    return hash_64(key, data, size);
}

static uint64_t fold_value(uint64_t so_far, const struct hp_value *value)
{
    if (value->kind == HP_OPTION_STRING)
        return fold(so_far, value->as.text, strlen(value->as.text) + 1);
    if (value->kind == HP_OPTION_MASK4 || value->kind == HP_OPTION_MASK6)
        return fold(so_far, value->as.mask, value->kind == HP_OPTION_MASK4 ? 4 : 16);
    return fold(so_far, &value->as.integer, sizeof value->as.integer);
}

uint64_t decider_settings(const struct decider *decider, uint32_t service)
{
    const struct instance *instance = instance_of_service(decider, service);
    const struct hp_value *values;
    uint64_t settings;

    if (instance == NULL || instance->plugin->descriptor.derive_key == NULL)
        return 0;
    settings = fold(instance->plugin->file, &instance->identity, sizeof instance->identity);
    values = instance->values->view.services[instance->values->ids[service]]->values;
    for (uint32_t i = 0; i < instance->plugin->descriptor.option_count; i++)
        settings = fold_value(settings, &values[i]);
    return settings;
}

bool decider_record_is(struct decider *decider, const struct decision_request *request, uint32_t record)
{
    const struct instance *instance = instance_of_service(decider, request->service);
    uint8_t text[HP_KEY_MAX];
    struct record_key key;
    int32_t size = decider_explain(decider, request->service, request->client, request->local, text);

    if (instance == NULL || size <= 0)
        return false;
    record_key_make(&key, decider->segment, instance->identity, 0, text, (uint32_t)size);
    return record_has_key(decider->segment, record, &key);
}
