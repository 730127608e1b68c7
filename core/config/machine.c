/* SPDX-License-Identifier: Apache-2.0 */
#include "config/machine.h"

#include "base/endpoint.h"
#include "config/config.h"
#include "config/routes.h"
#include <ctype.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_RANGE "/proc/sys/net/ipv4/ip_local_port_range"
#define RESERVED_PORTS "/proc/sys/net/ipv4/ip_local_reserved_ports"
#define CPUS_MAX 4096 /* as far as a mask is followed */

/* The first (size - 1) octets of a file as text, without the line's end; "" when it cannot be read. */
static const char *read_file(char *text, size_t size, const char *path)
{
    FILE *file = fopen(path, "re");
    size_t length = file != NULL ? fread(text, 1, size - 1, file) : 0;

    if (file != NULL)
        fclose(file);
    text[length] = '\0';
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    return text;
}

static uint32_t share(long long quota, long long period)
{
    if (quota <= 0 || period <= 0 || quota / period >= UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)((quota + period - 1) / period);
}

/* Version 2 has one file "QUOTA PERIOD" ("max": none), version 1 two. */
static uint32_t folder_cpus(const char *folder)
{
    char path[PATH_MAX + 32], text[64];
    long long quota = -1, period = 0;

    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (sscanf(read_file(text, sizeof text, path), "%lld %lld", &quota, &period) == 2)
        return share(quota, period);
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    quota = atoll(read_file(text, sizeof text, path));
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    return share(quota, atoll(read_file(text, sizeof text, path)));
}

/* The group itself and all above it, up to the mount: the tightest counts. In a container, the path of the group may
 * not be there below the mount: then the mount's own files are the container's. */
static uint32_t branch_cpus(const char *mount, const char *group)
{
    char folder[PATH_MAX];
    size_t floor = strlen(mount);
    uint32_t least = UINT32_MAX, cpus;
    char *slash;

    if ((size_t)snprintf(folder, sizeof folder, "%s%s", mount, group) >= sizeof folder)
        return UINT32_MAX;
    while ((slash = strrchr(folder, '/')) != NULL && (size_t)(slash - folder) >= floor) {
        cpus = folder_cpus(folder);
        least = cpus < least ? cpus : least;
        *slash = '\0';
    }
    cpus = folder_cpus(mount);
    return cpus < least ? cpus : least;
}

/* "cpu" among "cpu,cpuacct" */
static bool names_cpu(char *controllers)
{
    char *rest = NULL;

    for (char *name = strtok_r(controllers, ",", &rest); name != NULL; name = strtok_r(NULL, ",", &rest))
        if (strcmp(name, "cpu") == 0)
            return true;
    return false;
}

uint32_t machine_cgroup_cpus(const char *root, const char *groups)
{
    char mount[PATH_MAX], controllers[256], group[1024];
    uint32_t least = UINT32_MAX, cpus = UINT32_MAX;

    for (const char *line = groups; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (sscanf(line, "0::%1023[^\n]", group) == 1) {
            cpus = branch_cpus(root, group);
        } else if (sscanf(line, "%*u:%255[^:\n]:%1023[^\n]", controllers, group) == 2 && names_cpu(controllers)) {
            snprintf(mount, sizeof mount, "%s/cpu", root);
            cpus = branch_cpus(mount, group);
        }
        least = cpus < least ? cpus : least;
    }
    return least;
}

static uint32_t affinity_cpus(void)
{
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
    int count = 0;

    if (set != NULL && sched_getaffinity(0, size, set) == 0)
        count = CPU_COUNT_S(size, set);
    CPU_FREE(set);
    return count > 0 ? (uint32_t)count : 1;
}

uint32_t machine_cpus(void)
{
    char groups[4096];
    uint32_t cpus = affinity_cpus();
    uint32_t limit = machine_cgroup_cpus("/sys/fs/cgroup", read_file(groups, sizeof groups, "/proc/self/cgroup"));

    return cpus < limit ? cpus : limit;
}

/* Takes "8080" or "9148-9200" off the text. false: no more. */
static bool next_ports(const char **text, unsigned *first, unsigned *last)
{
    int length = 0;

    if (sscanf(*text, "%u-%u%n", first, last, &length) < 2) {
        if (sscanf(*text, "%u%n", first, &length) < 1)
            return false;
        *last = *first;
    }
    *text += length;
    *text += **text == ',';
    return true;
}

bool machine_ports_shared(const char *range, const char *reserved, uint16_t first, uint16_t last)
{
    unsigned low, high, kept_first, kept_last;
    uint32_t shared;

    if (sscanf(range, "%u %u", &low, &high) != 2)
        return false;
    low = low > first ? low : first;
    high = high < last ? high : last;
    shared = low <= high ? high - low + 1 : 0;
    /* The kernel prints its reserved ports in order and without overlaps. */
    while (shared > 0 && next_ports(&reserved, &kept_first, &kept_last)) {
        kept_first = kept_first > low ? kept_first : low;
        kept_last = kept_last < high ? kept_last : high;
        if (kept_first <= kept_last)
            shared -= kept_last - kept_first + 1 < shared ? kept_last - kept_first + 1 : shared;
    }
    return shared > 0;
}

static void check_ports(const struct config *config, struct diagnostics *diagnostics)
{
    char range[64], reserved[1024];
    unsigned first = config->port_first, last = config->port_last;

    read_file(range, sizeof range, PORT_RANGE);
    read_file(reserved, sizeof reserved, RESERVED_PORTS);
    if (!machine_ports_shared(range, reserved, config->port_first, config->port_last))
        return;
    for (char *c = range; *c != '\0'; c++)
        *c = isspace((unsigned char)*c) ? '-' : *c;
    diagnostics_add(diagnostics, SEVERITY_WARNING, config->ports_at,
                    "the kernel gives ports of the own source ports %u-%u to other programs too (its range is %s): "
                    "reserve them with sysctl net.ipv4.ip_local_reserved_ports=%s%s%u-%u",
                    first, last, range, reserved, *reserved != '\0' ? "," : "", first, last);
}

static bool is_own(const struct ifaddrs *interfaces, const struct hp_endpoint *endpoint)
{
    struct hp_endpoint own;

    for (; interfaces != NULL; interfaces = interfaces->ifa_next) {
        socklen_t size = sizeof(struct sockaddr_in6);

        if (interfaces->ifa_addr == NULL)
            continue;
        if (interfaces->ifa_addr->sa_family == AF_INET)
            size = sizeof(struct sockaddr_in);
        if (endpoint_from_sockaddr(&own, interfaces->ifa_addr, size) && endpoint_same_address(&own, endpoint))
            return true;
    }
    return false;
}

/* All of 127.0.0.0/8 is at home on every machine; ::1 only where there is IPv6. */
static bool is_here(const struct ifaddrs *interfaces, const struct hp_endpoint *endpoint)
{
    return endpoint_is_any(endpoint) || (endpoint->family == 4 && endpoint_is_loopback(endpoint)) ||
           is_own(interfaces, endpoint);
}

/* false: reported. */
static bool check_zone(const struct hp_endpoint *endpoint, struct position at, struct diagnostics *diagnostics)
{
    char name[IF_NAMESIZE], text[ENDPOINT_TEXT];
    struct hp_endpoint address = *endpoint;

    if (!endpoint_is_link_local(endpoint) || (endpoint->scope != 0 && if_indextoname(endpoint->scope, name) != NULL))
        return true;
    address.port = address.scope = 0;
    diagnostics_add(diagnostics, SEVERITY_ERROR, at,
                    "the zone of %s is no interface of this machine: write the name of one that is (ip link), as in "
                    "%s%%eth0",
                    endpoint_format(&address, text), text);
    return false;
}

/* One that comes later, as keepalived's does, is taken as soon as it is here: no error. */
static void check_source(const struct ifaddrs *interfaces, const struct config_source *source,
                         struct diagnostics *diagnostics)
{
    char text[ENDPOINT_TEXT];

    for (uint32_t i = 0; i < source->count; i++)
        if (check_zone(&source->addresses[i], source->addresses_at[i], diagnostics) &&
            !is_here(interfaces, &source->addresses[i]))
            diagnostics_add(diagnostics, SEVERITY_WARNING, source->addresses_at[i],
                            "%s is not an address of this machine now: no client leaves from it until it is (ip "
                            "address add %s/%u dev INTERFACE)",
                            endpoint_format(&source->addresses[i], text), text,
                            source->addresses[i].family == 4 ? 32 : 128);
}

static void check_address(const struct ifaddrs *interfaces, const struct hp_endpoint *endpoint, struct position at,
                          struct diagnostics *diagnostics)
{
    char text[ENDPOINT_TEXT];
    struct hp_endpoint address = *endpoint;

    address.port = 0;
    if (check_zone(endpoint, at, diagnostics) && !is_here(interfaces, endpoint))
        diagnostics_add(diagnostics, SEVERITY_WARNING, at,
                        "%s is not an address of this machine now: nothing arrives there until it is (ip address add)",
                        endpoint_format(&address, text));
}

/* A server on this very machine, on a port where we listen on all addresses: each datagram would come back to us. Of
 * loopback config_read has said so. */
static void check_loop(const struct ifaddrs *interfaces, const struct config *config,
                       const struct config_service *service, struct diagnostics *diagnostics)
{
    const struct config_pool *pool = &config->pools[service->pool];

    for (uint32_t i = 0; i < service->listen_count; i++)
        for (uint32_t j = 0; j < pool->server_count && endpoint_is_any(&service->listen[i]); j++) {
            const struct config_server *server = &config->servers[pool->servers[j]];

            if (service->listen[i].port == service->server_port &&
                service->listen[i].family == server->address.family && is_own(interfaces, &server->address))
                diagnostics_add(diagnostics, SEVERITY_ERROR, service->listen_at[i],
                                "`%s` would send to itself: it listens on all addresses, and that of its server `%s` "
                                "is one of this machine: name the address to listen on",
                                service->name, server->name);
        }
}

static void check_addresses(const struct config *config, struct diagnostics *diagnostics)
{
    struct ifaddrs *interfaces = NULL;

    if (getifaddrs(&interfaces) < 0)
        return;
    for (uint32_t i = 0; i < config->service_count; i++)
        check_loop(interfaces, config, &config->services[i], diagnostics);
    for (uint32_t i = 0; i < config->service_count; i++)
        for (uint32_t j = 0; j < config->services[i].listen_count; j++)
            check_address(interfaces, &config->services[i].listen[j], config->services[i].listen_at[j], diagnostics);
    for (uint32_t i = 0; i < config->pool_count; i++)
        if (config->pools[i].health.source.family != 0)
            check_address(interfaces, &config->pools[i].health.source, config->pools[i].health.source_at, diagnostics);
    for (uint32_t i = 0; i < config->pool_count; i++)
        check_source(interfaces, &config->pools[i].source, diagnostics);
    for (uint32_t i = 0; i < config->service_count; i++)
        check_source(interfaces, &config->services[i].source, diagnostics);
    freeifaddrs(interfaces);
    for (uint32_t i = 0; i < config->server_count; i++)
        (void)check_zone(&config->servers[i].address, config->servers[i].at, diagnostics);
}

void config_check_machine(const struct config *config, struct diagnostics *diagnostics)
{
    check_ports(config, diagnostics);
    check_addresses(config, diagnostics);
    routes_check(config, diagnostics);
}
