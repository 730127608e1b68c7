/* SPDX-License-Identifier: Apache-2.0 */
/* The socket of one listener and lane. The order in which a listener's sockets are bound is the order of its lanes, and
 * the kernel's choice among them depends on nothing else. */
#include "base/endpoint.h"
#include "relay/private.h"
#include "relay/relay.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#define TCP_FLAGS_AT 13
#define TCP_SYN 0x02
#define TCP_ACK 0x10

static void buffer_set(int fd, int forced, int asked)
{
    int size = (int)LISTENER_BUFFER;

    if (setsockopt(fd, SOL_SOCKET, forced, &size, sizeof size) < 0)
        (void)setsockopt(fd, SOL_SOCKET, asked, &size, sizeof size); /* as far as rmem_max or wmem_max let us */
}

static int option_on(int fd, int level, int option)
{
    int on = 1;

    return setsockopt(fd, level, option, &on, sizeof on);
}

/* Accepted connections inherit what is set here: who dies with one of them resets it, and no client takes that for the
 * end of what it was sent (stream.c). Predecessors that still close do not keep the port. */
static int options_set_tcp(int fd, const struct hp_endpoint *address)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0)
        return -errno;
    if (option_on(fd, SOL_SOCKET, SO_REUSEADDR) < 0 || option_on(fd, SOL_SOCKET, SO_REUSEPORT) < 0 ||
        option_on(fd, IPPROTO_IP, IP_FREEBIND) < 0 || option_on(fd, IPPROTO_TCP, TCP_NODELAY) < 0)
        return -errno;
    return address->family != 4 && option_on(fd, IPPROTO_IPV6, IPV6_V6ONLY) < 0 ? -errno : 0;
}

static int options_set(int fd, const struct hp_endpoint *address)
{
    int discover = IP_PMTUDISC_DONT, discover6 = IPV6_PMTUDISC_DONT;

    buffer_set(fd, SO_RCVBUFFORCE, SO_RCVBUF);
    buffer_set(fd, SO_SNDBUFFORCE, SO_SNDBUF); /* all replies of the lane leave here */
    if (option_on(fd, SOL_SOCKET, SO_REUSEPORT) < 0 || option_on(fd, SOL_SOCKET, SO_RXQ_OVFL) < 0 ||
        option_on(fd, IPPROTO_IP, IP_FREEBIND) < 0 || batch_ask_marks(fd, address->family) < 0)
        return -errno;
    if (address->family == 4) {
        (void)setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &discover, sizeof discover);
        return endpoint_is_any(address) && option_on(fd, IPPROTO_IP, IP_PKTINFO) < 0 ? -errno : 0;
    }
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &discover6, sizeof discover6);
    if (option_on(fd, IPPROTO_IPV6, IPV6_V6ONLY) < 0)
        return -errno;
    return endpoint_is_any(address) && option_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO) < 0 ? -errno : 0;
}

static int bind_failed(int code, const struct hp_endpoint *address, bool tcp, struct error *error)
{
    char text[ENDPOINT_TEXT];

    error_set(error, code, "cannot bind %s: %s", endpoint_format(address, text), strerror(-code));
    if (code == -EADDRINUSE)
        return error_next(error, "see who has it: ss -l%cnp 'sport = :%u'; or change `listen` of this service",
                          tcp ? 't' : 'u', address->port);
    if (code == -EACCES)
        return error_next(error, "ports below 1024 need CAP_NET_BIND_SERVICE (root has it; container: "
                                 "--cap-add=NET_BIND_SERVICE), or a lower sysctl net.ipv4.ip_unprivileged_port_start");
    if (code == -ENODEV)
        return error_next(error, "the interface of its zone is not there: see ip link");
    return code;
}

/* A socket filter that takes nothing. */
static int deafen(int fd)
{
    struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {.len = 1, .filter = &nothing};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

/* A socket filter that takes no SYN; it sees the TCP header first. Handshakes that have begun are finished. */
static int deafen_to_syn(int fd)
{
    struct sock_filter but_syn[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS_AT),
                                    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TCP_SYN | TCP_ACK),
                                    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TCP_SYN, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
                                    BPF_STMT(BPF_RET | BPF_K, UINT32_MAX)};
    struct sock_fprog program = {.len = sizeof but_syn / sizeof *but_syn, .filter = but_syn};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

int listener_share(int fd)
{
    return option_on(fd, SOL_SOCKET, SO_REUSEADDR) < 0 ? -errno : 0;
}

static bool is_stream(int fd)
{
    int type = 0;
    socklen_t size = sizeof type;

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

void listener_hear(int fd)
{
    int none = 0;

    if (is_stream(fd))
        (void)listen(fd, SOMAXCONN);
    else
        (void)setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof none);
}

/* A socket that is connected, here to itself, gets nothing from others. One that listens hears no SYN any more: who has
 * sent one sends it again, when nobody is there but those others. */
void listener_retire(int fd, const struct hp_endpoint *address)
{
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(address, &name);

    if (is_stream(fd))
        (void)deafen_to_syn(fd);
    else
        (void)connect(fd, (const struct sockaddr *)&name, size);
}

bool listener_retired(int fd)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer, filter = 0;

    if (is_stream(fd))
        return getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &filter) == 0 && filter > 0;
    return getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &peer, &size) == 0;
}

int listener_socket(int *out, const struct hp_endpoint *address, uint32_t protocol, bool deaf, bool shares,
                    struct error *error)
{
    struct sockaddr_storage name;
    socklen_t size = endpoint_to_sockaddr(address, &name);
    char text[ENDPOINT_TEXT];
    bool tcp = protocol == IPPROTO_TCP;
    int fd = socket(name.ss_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), status;

    if (fd < 0) {
        status = error_set(error, -errno, "cannot open a socket for %s: %s", endpoint_format(address, text),
                           strerror(errno));
        if (status == -EAFNOSUPPORT)
            (void)error_next(error, "this kernel runs without IPv6 (ipv6.disable on its command line); turn it on, or "
                                    "take the address out of `listen`");
        return status;
    }
    status = tcp ? options_set_tcp(fd, address) : options_set(fd, address);
    if (status == 0 && shares)
        status = listener_share(fd);
    if (status == 0 && !tcp && deaf && deafen(fd) < 0)
        status = -errno;
    if (status < 0) {
        error_set(error, status, "cannot prepare a socket for %s: %s", endpoint_format(address, text),
                  strerror(-status));
        goto fail;
    }
    if (bind(fd, (const struct sockaddr *)&name, size) < 0) {
        status = bind_failed(-errno, address, tcp, error);
        goto fail;
    }
    if (tcp && !deaf)
        listener_hear(fd);
    *out = fd;
    return 0;

fail:
    close(fd);
    return status;
}

uint32_t listener_buffer(int fd)
{
    int doubled = 0; /* socket(7): twice what was asked for */
    socklen_t size = sizeof doubled;

    (void)getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &doubled, &size);
    return (uint32_t)doubled / 2;
}

uint32_t listener_drops(int fd)
{
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof memory;

    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) < 0)
        return 0;
    return memory[SK_MEMINFO_DROPS];
}

void listener_count_drops(struct listener *listener, uint32_t drops)
{
    if ((int32_t)(drops - listener->drops) <= 0)
        return;
    lane_lose(listener->lane, LOSS_dropped_socket_queue, drops - listener->drops);
    listener->drops = drops;
}
