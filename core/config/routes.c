/* SPDX-License-Identifier: Apache-2.0 */
/* Would a server's answer to a client's own address come to us? The kernel is asked as if one had just arrived: from
 * the server, on the interface that leads to it, for an address that is not ours. That takes no traffic, no privilege,
 * and is known before the first client suffers.
 * Not seen: a route that only packets with a firewall's mark take. So it is a warning.
 * The kernel does not answer (a sandbox), or has no route to the server at all -> nothing is said about that server */
#include "config/routes.h"

#include "base/endpoint.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SAID 16u   /* sets of commands that are said in one go */
#define TABLE 500u /* of the commands; any number that is free does */

struct request {
    struct nlmsghdr header;
    struct rtmsg route;
    char attributes[128];
};
struct answer {
    uint32_t type; /* RTN_ */
    uint32_t interface;
};
struct way { /* that answers take, and what is needed for it */
    uint32_t interface, family, protocol;
    uint16_t port;
};

static void attribute_add(struct request *request, unsigned short type, const void *data, size_t size)
{
    struct rtattr *attribute = (struct rtattr *)(void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));

    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), data, size);
    request->header.nlmsg_len = (uint32_t)(NLMSG_ALIGN(request->header.nlmsg_len) + RTA_LENGTH(size));
}

static void address_add(struct request *request, unsigned short type, const struct hp_endpoint *address)
{
    attribute_add(request, type, address->address, address->family == 4 ? 4 : 16);
}

static void request_begin(struct request *request, const struct hp_endpoint *to)
{
    *request = (struct request){
        .header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)),
                   .nlmsg_type = RTM_GETROUTE,
                   .nlmsg_flags = NLM_F_REQUEST},
        .route = {.rtm_family = to->family == 4 ? AF_INET : AF_INET6, .rtm_dst_len = to->family == 4 ? 32 : 128}};
    address_add(request, RTA_DST, to);
}

static void answer_read(struct answer *out, const struct nlmsghdr *header)
{
    const struct rtmsg *route = NLMSG_DATA(header);
    const char *octets = (const char *)header;
    struct rtattr one;

    *out = (struct answer){.type = route->rtm_type};
    for (size_t at = NLMSG_SPACE(sizeof *route); at + sizeof one <= header->nlmsg_len; at += RTA_ALIGN(one.rta_len)) {
        memcpy(&one, octets + at, sizeof one);
        if (one.rta_len < sizeof one || at + one.rta_len > header->nlmsg_len)
            return;
        if (one.rta_type == RTA_OIF && one.rta_len == RTA_LENGTH(sizeof out->interface))
            memcpy(&out->interface, octets + at + RTA_LENGTH(0), sizeof out->interface);
    }
}

/* 0, the kernel's own no (-ENETUNREACH, -EHOSTUNREACH, ...), or -EPROTO: it has not answered. */
static int route_ask(int fd, const struct request *request, struct answer *out)
{
    _Alignas(struct nlmsghdr) char reply[4096];
    const struct nlmsghdr *header = (const struct nlmsghdr *)(const void *)reply;
    const struct nlmsgerr *no;
    ssize_t size;

    if (send(fd, request, request->header.nlmsg_len, 0) < 0)
        return -EPROTO;
    size = recv(fd, reply, sizeof reply, MSG_DONTWAIT); /* it has answered before send() returns */
    if (size < 0 || !NLMSG_OK(header, (size_t)size))
        return -EPROTO;
    if (header->nlmsg_type == NLMSG_ERROR && header->nlmsg_len >= NLMSG_LENGTH(sizeof *no)) {
        no = NLMSG_DATA(header);
        return no->error < 0 ? no->error : -EPROTO;
    }
    if (header->nlmsg_type != RTM_NEWROUTE || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtmsg)))
        return -EPROTO;
    answer_read(out, header);
    return 0;
}

/* The interface that leads to a server; 0: none, or it is this machine itself. */
static uint32_t interface_to(int fd, const struct hp_endpoint *server)
{
    struct request request;
    struct answer answer = {0};

    if (server->scope != 0)
        return server->scope;
    request_begin(&request, server);
    return route_ask(fd, &request, &answer) == 0 && answer.type == RTN_UNICAST ? answer.interface : 0;
}

/* A stranger's address, which nobody has: RFC 5737, RFC 3849. */
static struct hp_endpoint somebody(uint32_t family)
{
    struct hp_endpoint client = {.family = family};

    inet_pton(family == 4 ? AF_INET : AF_INET6, family == 4 ? "198.51.100.7" : "2001:db8::7", client.address);
    return client;
}

static bool comes_back(int fd, const struct hp_endpoint *server, const struct way *way)
{
    struct hp_endpoint client = somebody(way->family);
    uint16_t port = htons(way->port);
    uint8_t protocol = (uint8_t)way->protocol;
    struct answer answer = {0};
    struct request request;
    int status;

    request_begin(&request, &client);
    address_add(&request, RTA_SRC, server);
    request.route.rtm_src_len = request.route.rtm_dst_len;
    attribute_add(&request, RTA_IIF, &way->interface, sizeof way->interface);
    attribute_add(&request, RTA_IP_PROTO, &protocol, sizeof protocol);
    attribute_add(&request, RTA_SPORT, &port, sizeof port);
    attribute_add(&request, RTA_DPORT, &port, sizeof port);
    status = route_ask(fd, &request, &answer);
    return status == -EPROTO || (status == 0 && answer.type == RTN_LOCAL);
}

static bool was_said(const struct way *said, uint32_t count, const struct way *way)
{
    for (uint32_t i = 0; i < count; i++)
        if (said[i].interface == way->interface && said[i].family == way->family && said[i].protocol == way->protocol &&
            (way->protocol == IPPROTO_UDP || said[i].port == way->port))
            return true;
    return false;
}

static void say(const struct config_service *service, const struct config_server *server, const struct way *way,
                struct diagnostics *diagnostics)
{
    char interface[IF_NAMESIZE] = "INTERFACE", port[16] = "";
    const char *ip = way->family == 4 ? "ip" : "ip -6";

    (void)if_indextoname(way->interface, interface);
    if (way->protocol == IPPROTO_TCP)
        snprintf(port, sizeof port, " sport %u", way->port);
    diagnostics_add(
        diagnostics, SEVERITY_WARNING, service->at,
        "`%s` is transparent, but what `%s` answers to its clients' addresses does not come to this machine "
        "when it arrives on %s. These two commands see to that: `%s rule add iif %s ipproto %s%s lookup "
        "%u` and `%s route add local default dev lo table %u`. (If a mark of your firewall does it, all is "
        "well: marks are not seen here.)",
        service->name, server->name, interface, ip, interface, way->protocol == IPPROTO_TCP ? "tcp" : "udp", port,
        TABLE, ip, TABLE);
}

void routes_check(const struct config *config, struct diagnostics *diagnostics)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct way said[SAID];
    uint32_t count = 0;

    for (uint32_t i = 0; fd >= 0 && i < config->service_count; i++) {
        const struct config_service *service = &config->services[i];
        const struct config_pool *pool = &config->pools[service->pool];

        for (uint32_t j = 0; service->transparent && j < pool->server_count; j++) {
            const struct config_server *server = &config->servers[pool->servers[j]];
            struct way way = {.interface = interface_to(fd, &server->address),
                              .family = server->address.family,
                              .protocol = service->protocol,
                              .port = service->server_port};

            if (way.interface == 0 || was_said(said, count, &way) || comes_back(fd, &server->address, &way))
                continue;
            say(service, server, &way, diagnostics);
            if (count < SAID)
                said[count++] = way;
        }
    }
    if (fd >= 0)
        close(fd);
}
