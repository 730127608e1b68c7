/* SPDX-License-Identifier: Apache-2.0 */
/* homeport/plugin_util.h - what most plugins need besides plugin.h: a key from the client's address, a record's time to
 * live, messages with a format. Header only, C11 and C++11; nothing here is part of the ABI, so it may be copied and
 * changed. */
#ifndef HOMEPORT_PLUGIN_UTIL_H
#define HOMEPORT_PLUGIN_UTIL_H
#include <homeport/plugin.h>
#include <stdarg.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HP_SOURCE_KEY_MAX 25u    /* octets that hp_source_key writes at most; less than HP_KEY_MAX */
#define HP_NO_SERVICE UINT32_MAX /* hp_problem: about no single service */
#define HP_NO_OPTION UINT32_MAX  /* hp_problem: about no single option */

/* Writes the key of a client within a scope and returns its size. scope is an identity (of a service, of the listening
 * addresses) or 0 for the whole profile. The family comes first, so that no IPv4 client is ever an IPv6 client; then
 * the scope, most significant octet first, so that the key is the same on every machine; then the address under its
 * family's mask. */
static inline uint32_t hp_source_key(uint8_t *key, uint64_t scope, const struct hp_endpoint *client,
                                     const struct hp_value *mask4, const struct hp_value *mask6)
{
    const uint8_t *mask = client->family == 6 ? mask6->as.mask : mask4->as.mask;
    size_t address_size = client->family == 6 ? 16u : 4u;
    size_t i;

    *key++ = (uint8_t)client->family;
    for (i = 0; i < 8u; i++)
        *key++ = (uint8_t)(scope >> (56u - 8u * i));
    for (i = 0; i < address_size; i++)
        *key++ = (uint8_t)(client->address[i] & mask[i]);
    return (uint32_t)(9u + address_size);
}

/* A duration option as hp_claim.ttl_ms; `never` is UINT64_MAX there and the largest or a negative number in a value. */
static inline uint64_t hp_ttl(const struct hp_value *duration)
{
    return duration->as.integer < 0 || duration->as.integer == INT64_MAX ? UINT64_MAX : (uint64_t)duration->as.integer;
}

/* The user wrote this option (a fallback does not count). */
static inline int hp_written(const struct hp_value *value)
{
    return value->given == 2u;
}

/* host->problem with a format. A text that begins with "warning: " is a warning, anything else an error. */
static inline void hp_problem(const struct hp_host *host, uint32_t service, uint32_t option, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static inline void hp_problem(const struct hp_host *host, uint32_t service, uint32_t option, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    host->problem(host, service, option, text);
}

#ifdef __cplusplus
}
#endif
#endif
