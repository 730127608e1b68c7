/* SPDX-License-Identifier: Apache-2.0 */
#include "config/reader.h"

#include "base/endpoint.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUGGESTIONS_UNTIL 50u /* errors; a file of nothing but mistakes must not cost minutes */
#define LIST_TEXT 512u

_Static_assert(sizeof(enum config_scheduler) == sizeof(uint32_t), "read_choice writes enums as uint32_t");

void reader_error(struct reader *reader, const struct node *node, const char *format, ...)
{
    char text[640];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    diagnostics_add(reader->diagnostics, SEVERITY_ERROR,
                    node->kind == NODE_NOTHING && node->key != NULL ? node->key_at : node->at, "%s", text);
}

void reader_not_in_this_version(struct reader *reader, const struct node *node, const char *what)
{
    reader_error(reader, node, "`%s`: not in this version", what);
}

static const char *kind_name(const struct node *node)
{
    switch (node->kind) {
    case NODE_NOTHING:
    case NODE_BAD:
        return "nothing";
    case NODE_TEXT:
        return "a single value";
    case NODE_LIST:
        return "a list";
    case NODE_MAPPING:
        return "a mapping";
    }
    return "?";
}

bool reader_wants(struct reader *reader, const struct node *node, enum node_kind kind, const char *wanted)
{
    if (node->kind == kind)
        return true;
    if (node->kind != NODE_BAD)
        reader_error(reader, node, "%s%.64s%s wants %s, not %s", node->key != NULL ? "`" : "",
                     node->key != NULL ? node->key : "this place", node->key != NULL ? "`" : "", wanted,
                     kind_name(node));
    return false;
}

static const char *suggestion(const struct reader *reader, const char *name, const char *const *names, uint32_t count)
{
    return diagnostics_errors(reader->diagnostics) < SUGGESTIONS_UNTIL ? config_closest(name, names, count) : NULL;
}

/* "a, b or c" */
static const char *one_of(char text[static LIST_TEXT], const char *const *names, uint32_t count)
{
    size_t size = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < count && size < LIST_TEXT; i++)
        size += (size_t)snprintf(text + size, LIST_TEXT - size, "%s%s",
                                 i == 0           ? ""
                                 : i + 1 == count ? " or "
                                                  : ", ",
                                 names[i]);
    return text;
}

static void unknown_key(struct reader *reader, const struct node *entry, const struct key *keys)
{
    const char *names[32], *closest;
    char list[LIST_TEXT];
    uint32_t count = 0;

    while (keys[count].name != NULL && count < sizeof names / sizeof names[0]) {
        names[count] = keys[count].name;
        count++;
    }
    closest = suggestion(reader, entry->key, names, count);
    if (closest != NULL)
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, entry->key_at, "unknown key `%.64s`; did you mean `%s`?",
                        entry->key, closest);
    else
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, entry->key_at, "unknown key `%.64s`; here it can be %s",
                        entry->key, one_of(list, names, count));
}

static const struct key *find_key(const struct key *keys, const char *name)
{
    for (; keys->name != NULL; keys++)
        if (strcmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

static void read_key(struct reader *reader, const struct key *key, const struct node *node, void *target)
{
    if (key->read != NULL)
        key->read(reader, key, node, (char *)target + key->offset);
    else if (key->harmless == NULL || node->kind != NODE_TEXT || strcmp(node->text, key->harmless) != 0)
        reader_not_in_this_version(reader, node, key->name);
}

void reader_mapping(struct reader *reader, const struct node *node, const struct key *keys, void *target)
{
    const struct node *entry;

    if (!reader_wants(reader, node, NODE_MAPPING, "a mapping (key: value)"))
        return;
    for (entry = node->first; entry != NULL; entry = entry->next)
        if (find_key(keys, entry->key) == NULL)
            unknown_key(reader, entry, keys);
    for (; keys->name != NULL; keys++) {
        entry = node_child(node, keys->name);
        if (entry != NULL)
            read_key(reader, keys, entry, target);
        else if (keys->required)
            diagnostics_add(reader->diagnostics, SEVERITY_ERROR, node->key != NULL ? node->key_at : node->at,
                            "`%s` is missing%s%.64s%s", keys->name, node->key != NULL ? " in `" : "",
                            node->key != NULL ? node->key : "", node->key != NULL ? "`" : "");
    }
}

char *reader_copy(struct reader *reader, const char *text)
{
    char *copy = strdup(text);

    reader->out_of_memory |= copy == NULL;
    return copy;
}

void *reader_array(struct reader *reader, size_t count, size_t size)
{
    void *array = calloc(count, size);

    reader->out_of_memory |= array == NULL;
    return array;
}

uint32_t reader_names(struct reader *reader, const struct node *node, const char *things, uint32_t limit)
{
    const struct node *entry = node->first;

    if (!reader_wants(reader, node, NODE_MAPPING, "a mapping of names (NAME: { ... })"))
        return 0;
    if (node->count == 0)
        reader_error(reader, node, "no %s: at least one is needed", things);
    if (node->count <= limit)
        return node->count;
    for (uint32_t i = 0; i < limit; i++)
        entry = entry->next;
    diagnostics_add(reader->diagnostics, SEVERITY_ERROR, entry->key_at, "more than %u %s: from here on none is read",
                    limit, things);
    reader->names_cut = true;
    return limit;
}

/* Names go into logs, labels, command lines and tables: what needs no quoting anywhere. */
static bool name_is_plain(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@+";

    return *name != '\0' && *name != '-' && name[strspn(name, letters)] == '\0';
}

char *reader_name(struct reader *reader, const struct node *entry)
{
    if (strlen(entry->key) >= SEGMENT_NAME)
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, entry->key_at, "a name has at most %u octets, not %zu",
                        SEGMENT_NAME - 1, strlen(entry->key));
    else if (!name_is_plain(entry->key))
        diagnostics_add(reader->diagnostics, SEVERITY_ERROR, entry->key_at,
                        "`%s` is not a name: letters, digits and . _ - / : @ + make one, and - does not begin it",
                        entry->key);
    return reader_copy(reader, entry->key);
}

void reader_no_such(struct reader *reader, const struct node *node, const char *thing, const char *name,
                    const char *const *names, uint32_t count)
{
    const char *closest;

    if (reader->names_cut)
        return;
    closest = suggestion(reader, name, names, count);
    if (closest != NULL)
        reader_error(reader, node, "there is no %s `%.64s`; did you mean `%s`?", thing, name, closest);
    else
        reader_error(reader, node, "there is no %s `%.64s`", thing, name);
}

static void not_an_address(struct reader *reader, const struct node *node)
{
    const char *text = node->text;
    size_t size = strlen(text);

    if (text[0] == '[' && strchr(text, ':') != NULL && text[size - 1] == ']')
        reader_error(reader, node, "`%.64s` has brackets, but no port: write %.*s, or %.64s:500", text,
                     size < 64 ? (int)size - 2 : 62, text + 1, text);
    else
        reader_error(reader, node, "`%.64s` is not an address%s", text,
                     strchr(text, ':') != NULL ? " with a port from 1 to 65535" : " (names are not looked up)");
}

static bool is_one_machine(const struct hp_endpoint *endpoint)
{
    const uint8_t *octets = endpoint->address;

    if (endpoint_is_any(endpoint))
        return true;
    return endpoint->family == 4 ? octets[0] != 0 && octets[0] < 224 : octets[0] != 0xff;
}

/* Which interface a zone is, config_check_machine looks at. */
static bool check_address6(struct reader *reader, const struct node *node, const struct hp_endpoint *endpoint,
                           bool has_zone)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *octets = endpoint->address;

    if (memcmp(octets, mapped, sizeof mapped) == 0)
        reader_error(reader, node, "`%.64s` is an IPv4 address: write %u.%u.%u.%u", node->text, octets[12], octets[13],
                     octets[14], octets[15]);
    else if (endpoint_is_link_local(endpoint) && !has_zone)
        reader_error(reader, node, "`%.64s` is a link-local address: it wants its interface, as in fe80::1%%eth0",
                     node->text);
    else if (has_zone && !endpoint_is_link_local(endpoint))
        reader_error(reader, node,
                     "`%.64s`: only link-local addresses (fe80::) have a zone: leave it out, and the %% before it",
                     node->text);
    else
        return true;
    return false;
}

bool reader_address(struct reader *reader, const struct node *node, struct hp_endpoint *out)
{
    struct hp_endpoint endpoint;
    bool has_zone;

    if (!reader_wants(reader, node, NODE_TEXT, "an address"))
        return false;
    if (!endpoint_parse_anywhere(&endpoint, &has_zone, node->text)) {
        not_an_address(reader, node);
        return false;
    }
    if (!is_one_machine(&endpoint)) {
        reader_error(reader, node, "`%.64s` is not the address of one machine", node->text);
        return false;
    }
    if (endpoint.family == 6 && !check_address6(reader, node, &endpoint, has_zone))
        return false;
    *out = endpoint;
    return true;
}

void read_text(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    char **out = member, *copy;

    if (!reader_wants(reader, node, NODE_TEXT, "a text"))
        return;
    if (*node->text == '\0') {
        reader_error(reader, node, "`%s` is empty", key->name);
        return;
    }
    copy = reader_copy(reader, node->text);
    if (copy == NULL)
        return;
    free(*out); /* the default */
    *out = copy;
}

static bool number_from(uint64_t *out, const char *text)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 18 || text[digits] != '\0' || (digits > 1 && *text == '0'))
        return false;
    *out = strtoull(text, NULL, 10);
    return true;
}

static bool read_number(struct reader *reader, const struct key *key, const struct node *node, uint64_t *out)
{
    if (!reader_wants(reader, node, NODE_TEXT, "a number"))
        return false;
    if (node->quoted || !number_from(out, node->text))
        reader_error(reader, node, "`%s` wants a whole number, not %s%.64s%s", key->name, node->quoted ? "\"" : "`",
                     node->text, node->quoted ? "\" in quotes" : "`");
    else if (*out < key->low || *out > key->high)
        reader_error(reader, node, "`%s` must be from %llu to %llu, not %s", key->name, (unsigned long long)key->low,
                     (unsigned long long)key->high, node->text);
    else
        return true;
    return false;
}

void read_u16(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    uint16_t *out = member;
    uint64_t number;

    if (read_number(reader, key, node, &number))
        *out = (uint16_t)number;
}

void read_u32(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    uint32_t *out = member;
    uint64_t number;

    if (read_number(reader, key, node, &number))
        *out = (uint32_t)number;
}

void read_bool(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    if (!reader_wants(reader, node, NODE_TEXT, "on or off"))
        return;
    if (node->quoted || !config_bool(member, node->text))
        reader_error(reader, node, "`%s` wants on or off (yes or no, true or false), not `%.64s`%s", key->name,
                     node->text, node->quoted ? " in quotes" : "");
}

/* As a user writes it. */
static const char *duration_text(char text[static 32], uint64_t ms)
{
    if (ms % 3600000 == 0)
        snprintf(text, 32, "%lluh", (unsigned long long)ms / 3600000);
    else if (ms % 1000 == 0)
        snprintf(text, 32, "%llus", (unsigned long long)ms / 1000);
    else
        snprintf(text, 32, "%llums", (unsigned long long)ms);
    return text;
}

void read_duration(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    uint64_t *out = member, ms = 0;
    char low[32], high[32];
    const char *why;

    if (!reader_wants(reader, node, NODE_TEXT, "a duration such as 180s"))
        return;
    if (!config_duration(&ms, node->text, false, &why))
        reader_error(reader, node, "`%s`: `%.64s` %s", key->name, node->text, why);
    else if (ms < key->low || ms > key->high)
        reader_error(reader, node, "`%s` must be from %s to %s, not %.64s", key->name, duration_text(low, key->low),
                     duration_text(high, key->high), node->text);
    else
        *out = ms;
}

void read_choice(struct reader *reader, const struct key *key, const struct node *node, void *member)
{
    uint32_t *out = member, count = 0;
    const char *closest;
    char list[LIST_TEXT];

    while (key->choices[count] != NULL)
        count++;
    one_of(list, key->choices, count);
    if (!reader_wants(reader, node, NODE_TEXT, list))
        return;
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(node->text, key->choices[i]) == 0) {
            *out = i;
            return;
        }
    }
    closest = suggestion(reader, node->text, key->choices, count);
    if (closest != NULL)
        reader_error(reader, node, "`%s` cannot be `%.64s`; did you mean `%s`?", key->name, node->text, closest);
    else
        reader_error(reader, node, "`%s` cannot be `%.64s`; it is %s", key->name, node->text, list);
}
