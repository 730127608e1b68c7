/* SPDX-License-Identifier: Apache-2.0 */
/* The table of verbs, and those that are answered in a few lines. */
#include "monitor/control/requests.h"

#include "base/endpoint.h"

#include <string.h>

static const struct {
    const char *name;
    void (*answer)(struct connection *connection, const json_t *request);
} verbs[] = {
    {"status", answer_status},     {"servers", answer_servers}, {"sessions", answer_sessions},
    {"affinity", answer_affinity}, {"record", answer_record},   {"drop", answer_drop},
    {"trace", answer_trace},       {"reload", answer_reload},
};

void request_answer(struct connection *connection, const char *line, size_t size)
{
    json_error_t where;
    json_t *request = json_loadb(line, size, JSON_REJECT_DUPLICATES, &where);
    const char *verb = json_string_value(json_object_get(request, "verb"));

    for (size_t i = 0; verb != NULL && i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verbs[i].name, verb) == 0) {
            verbs[i].answer(connection, request);
            json_decref(request);
            return;
        }
    json_decref(request);
    if (request == NULL)
        connection_refuse(connection, "the request is not JSON", "send one object on one line: {\"verb\":\"status\"}");
    else if (verb == NULL)
        connection_refuse(connection, "the request names no verb",
                          "send one object on one line: {\"verb\":\"status\"}");
    else
        connection_refuse(connection, "this daemon does not know the verb",
                          "is the homeport command of another version than the daemon? see homeport version");
}

enum client_given request_client(struct connection *connection, const json_t *request, struct hp_endpoint *client)
{
    const json_t *value = json_object_get(request, "client");
    const char *text = json_string_value(value);

    if (value == NULL)
        return CLIENT_ABSENT;
    if (text != NULL && endpoint_parse(client, text)) {
        client->port = 0;
        return CLIENT_GIVEN;
    }
    connection_refuse(connection, "the client is no address", "write an address: 198.51.100.7 or 2001:db8::7");
    return CLIENT_WRONG;
}

void answer_reload(struct connection *connection, const json_t *request)
{
    const struct monitor_host *host = connection->sources->host;
    int copy;

    (void)request;
    if (host == NULL || host->reload == NULL) {
        connection_refuse(connection, "this process cannot reload", "send SIGHUP to the master");
        return;
    }
    copy = connection_give_away(connection);
    if (copy >= 0)
        host->reload(host->arg, copy);
}

/* Judged in a copy of our own: what lies in the segment may change between check and use. */
json_t *json_name(const char name[SEGMENT_NAME])
{
    char text[SEGMENT_NAME];
    size_t size = 0;

    memcpy(text, name, sizeof text);
    for (; size < sizeof text && text[size] != '\0'; size++)
        if (text[size] < 0x20 || text[size] >= 0x7f)
            text[size] = '?';
    return json_stringn(text, size);
}

json_t *json_server(const struct segment *segment, uint32_t server)
{
    if (server >= SEGMENT_SERVERS || segment->servers[server].identity == 0)
        return json_null();
    return json_name(segment->servers[server].name);
}

json_t *json_address(const struct hp_endpoint *endpoint)
{
    struct hp_endpoint copy = *endpoint; /* it may lie in the segment */
    char text[ENDPOINT_TEXT];

    return copy.family == 4 || copy.family == 6 ? json_string(endpoint_format(&copy, text)) : json_null();
}
