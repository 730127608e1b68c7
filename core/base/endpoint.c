/* SPDX-License-Identifier: Apache-2.0 */
#include "base/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DISCARD 9u /* a port; nothing is sent */

bool endpoint_from_sockaddr(struct hp_endpoint *out, const struct sockaddr *address, socklen_t size)
{
    struct hp_endpoint endpoint = {0};

    if (size >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        memcpy(endpoint.address, &in.sin_addr, 4);
        endpoint.port = ntohs(in.sin_port);
        endpoint.family = 4;
    } else if (size >= sizeof(struct sockaddr_in6) && address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof in6);
        memcpy(endpoint.address, &in6.sin6_addr, 16);
        endpoint.port = ntohs(in6.sin6_port);
        endpoint.scope = in6.sin6_scope_id;
        endpoint.family = 6;
    } else {
        return false;
    }
    *out = endpoint;
    return true;
}

socklen_t endpoint_to_sockaddr(const struct hp_endpoint *endpoint, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (endpoint->family == 4) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(endpoint->port)};
        memcpy(&in.sin_addr, endpoint->address, 4);
        memcpy(out, &in, sizeof in);
        return sizeof in;
    }
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(endpoint->port), .sin6_scope_id = endpoint->scope};
    memcpy(&in6.sin6_addr, endpoint->address, 16);
    memcpy(out, &in6, sizeof in6);
    return sizeof in6;
}

/* Decimal digits alone, the whole text, up to limit: strtoul would take blanks and signs. */
static bool number_parse(uint32_t *out, const char *text, uint32_t limit)
{
    uint64_t number = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        number = number * 10 + (uint64_t)(*text - '0');
        if (number > limit)
            return false;
    }
    *out = (uint32_t)number;
    return true;
}

static bool port_parse(struct hp_endpoint *endpoint, const char *text)
{
    uint32_t port;

    if (!number_parse(&port, text, UINT16_MAX) || port == 0)
        return false;
    endpoint->port = (uint16_t)port;
    return true;
}

/* A name, or a number as endpoint_format writes it. */
static bool zone_parse(struct hp_endpoint *endpoint, const char *text)
{
    if (text[strspn(text, "0123456789")] == '\0')
        return number_parse(&endpoint->scope, text, UINT32_MAX) && endpoint->scope != 0;
    endpoint->scope = if_nametoindex(text);
    return strlen(text) < IF_NAMESIZE;
}

static bool address6_parse(struct hp_endpoint *endpoint, char *text, bool *has_zone)
{
    char *zone = strchr(text, '%');

    if (zone != NULL) {
        *zone = '\0';
        *has_zone = true;
        if (!zone_parse(endpoint, zone + 1))
            return false;
    }
    endpoint->family = 6;
    return inet_pton(AF_INET6, text, endpoint->address) == 1;
}

bool endpoint_parse_anywhere(struct hp_endpoint *out, bool *has_zone, const char *text)
{
    struct hp_endpoint endpoint = {0};
    char copy[ENDPOINT_TEXT + IF_NAMESIZE];
    char *colon, *bracket;
    size_t size = strlen(text);

    *has_zone = false;
    if (size >= sizeof copy)
        return false;
    memcpy(copy, text, size + 1);
    colon = strchr(copy, ':');
    if (copy[0] == '[') {
        bracket = strchr(copy, ']');
        if (bracket == NULL || bracket[1] != ':')
            return false;
        *bracket = '\0';
        if (!address6_parse(&endpoint, copy + 1, has_zone) || !port_parse(&endpoint, bracket + 2))
            return false;
    } else if (colon != NULL && strchr(colon + 1, ':') != NULL) {
        if (!address6_parse(&endpoint, copy, has_zone))
            return false;
    } else {
        if (colon != NULL)
            *colon = '\0';
        endpoint.family = 4;
        if (inet_pton(AF_INET, copy, endpoint.address) != 1 || (colon != NULL && !port_parse(&endpoint, colon + 1)))
            return false;
    }
    *out = endpoint;
    return true;
}

bool endpoint_parse(struct hp_endpoint *out, const char *text)
{
    struct hp_endpoint endpoint;
    bool has_zone;

    if (!endpoint_parse_anywhere(&endpoint, &has_zone, text) || (has_zone && endpoint.scope == 0))
        return false;
    *out = endpoint;
    return true;
}

const char *endpoint_format(const struct hp_endpoint *endpoint, char *text)
{
    char host[INET6_ADDRSTRLEN + 16] = "?";
    size_t size;

    inet_ntop(endpoint->family == 4 ? AF_INET : AF_INET6, endpoint->address, host, INET6_ADDRSTRLEN);
    size = strlen(host);
    if (endpoint->family != 4 && endpoint->scope != 0)
        snprintf(host + size, sizeof host - size, "%%%u", endpoint->scope);
    /* At most 39 octets of IPv6 address, 11 of scope, 8 of brackets and port: ENDPOINT_TEXT is enough. */
    if (endpoint->port == 0)
        snprintf(text, ENDPOINT_TEXT, "%s", host);
    else if (endpoint->family == 4)
        snprintf(text, ENDPOINT_TEXT, "%.15s:%u", host, endpoint->port);
    else
        snprintf(text, ENDPOINT_TEXT, "[%.50s]:%u", host, endpoint->port);
    return text;
}

bool endpoint_same_address(const struct hp_endpoint *a, const struct hp_endpoint *b)
{
    return a->family == b->family && a->scope == b->scope && memcmp(a->address, b->address, sizeof a->address) == 0;
}

bool endpoint_names(const struct hp_endpoint *name, const struct hp_endpoint *address)
{
    struct hp_endpoint same = *name;

    if (name->scope == 0 || address->scope == 0)
        same.scope = address->scope;
    return endpoint_same_address(&same, address);
}

bool endpoint_equal(const struct hp_endpoint *a, const struct hp_endpoint *b)
{
    return a->port == b->port && endpoint_same_address(a, b);
}

bool endpoint_is_any(const struct hp_endpoint *endpoint)
{
    static const uint8_t any[16];

    return memcmp(endpoint->address, any, sizeof any) == 0;
}

bool endpoint_is_loopback(const struct hp_endpoint *endpoint)
{
    static const uint8_t one[16] = {[15] = 1};

    return endpoint->family == 4 ? endpoint->address[0] == 127 : memcmp(endpoint->address, one, sizeof one) == 0;
}

bool endpoint_is_link_local(const struct hp_endpoint *endpoint)
{
    return endpoint->family == 6 && endpoint->address[0] == 0xfe && (endpoint->address[1] & 0xc0) == 0x80;
}

/* With net.ipv4.ip_nonlocal_bind any address can be bound: only our own leads to itself. */
int endpoint_look_for(const struct hp_endpoint *address)
{
    struct hp_endpoint own = *address;
    struct sockaddr_storage name;
    socklen_t size;
    int fd = socket(own.family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), status;

    if (fd < 0)
        return -errno;
    own.port = 0;
    size = endpoint_to_sockaddr(&own, &name);
    status = bind(fd, (const struct sockaddr *)&name, size) < 0 ? errno : 0;
    own.port = DISCARD;
    size = endpoint_to_sockaddr(&own, &name);
    if (status == 0 && connect(fd, (const struct sockaddr *)&name, size) < 0)
        status = errno;
    close(fd);
    if (status == EADDRNOTAVAIL || status == EINVAL || status == ENODEV || status == ENETUNREACH ||
        status == EHOSTUNREACH)
        return 0;
    return status == 0 ? 1 : -status;
}
