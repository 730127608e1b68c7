/* SPDX-License-Identifier: Apache-2.0 */
#include "frames.h"

#include <arpa/inet.h>
#include <err.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RING_BLOCKS = 64, RING_BLOCK = 1 << 18, RING_FRAMES = RING_BLOCKS * (RING_BLOCK / (int)FRAMES_OCTETS) };
#define SPIN 0.005 /* seconds */
#define IP_AT ((uint32_t)ETH_HLEN)
#define UDP_AT (IP_AT + (uint32_t)sizeof(struct iphdr))
#define DATA_AT (UDP_AT + (uint32_t)sizeof(struct udphdr))

struct frames {
    int fd;
    uint8_t hardware[6];
    uint8_t *ring;
    uint32_t next, held; /* the ring's next frame, and how many before it the kernel has not got back */
    uint32_t count;      /* of frames to send */
    struct mmsghdr headers[FRAMES_VECTOR];
    struct iovec vectors[FRAMES_VECTOR];
    uint8_t own[FRAMES_VECTOR][FRAMES_OCTETS];
};

static void open_ring(struct frames *self)
{
    struct tpacket_req request = {.tp_block_size = RING_BLOCK,
                                  .tp_block_nr = RING_BLOCKS,
                                  .tp_frame_size = FRAMES_OCTETS,
                                  .tp_frame_nr = RING_FRAMES};
    int version = TPACKET_V2;

    if (setsockopt(self->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) < 0 ||
        setsockopt(self->fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request) < 0)
        err(1, "packet ring");
    self->ring = mmap(NULL, (size_t)RING_BLOCKS * RING_BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
    if (self->ring == MAP_FAILED)
        err(1, "mmap");
}

struct frames *frames_open(const char *device, const uint8_t hardware[6])
{
    struct frames *self = calloc(1, sizeof *self);
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
    int on = 1;

    if (self == NULL)
        err(1, "calloc");
    memcpy(self->hardware, hardware, sizeof self->hardware);
    memset(self->own, 0x45, sizeof self->own);
    at.sll_ifindex = (int)if_nametoindex(device);
    self->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (self->fd < 0 || at.sll_ifindex == 0)
        err(1, "packet socket on %s", device);
    open_ring(self);
    if (setsockopt(self->fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) < 0 ||
        setsockopt(self->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) < 0)
        err(1, "setsockopt");
    if (bind(self->fd, (struct sockaddr *)&at, sizeof at) < 0)
        err(1, "bind to %s", device);
    return self;
}

void frames_close(struct frames *self)
{
    munmap(self->ring, (size_t)RING_BLOCKS * RING_BLOCK);
    close(self->fd);
    free(self);
}

static struct tpacket2_hdr *ring_frame(struct frames *self, uint32_t at)
{
    return (struct tpacket2_hdr *)(void *)(self->ring + (size_t)(at % RING_FRAMES) * FRAMES_OCTETS);
}

/* False: not UDP over IPv4 without options, or not whole. */
static bool parse(struct datagram *datagram, uint8_t *frame, uint32_t size)
{
    struct iphdr ip;
    struct udphdr udp;

    if (size < DATA_AT)
        return false;
    memcpy(&ip, frame + IP_AT, sizeof ip);
    memcpy(&udp, frame + UDP_AT, sizeof udp);
    if (ip.version != 4 || ip.ihl != 5 || ip.protocol != IPPROTO_UDP || IP_AT + ntohs(ip.tot_len) > size ||
        ntohs(ip.tot_len) < DATA_AT - IP_AT)
        return false;
    *datagram = (struct datagram){
        .source = ntohl(ip.saddr),
        .destination = ntohl(ip.daddr),
        .source_port = ntohs(udp.source),
        .destination_port = ntohs(udp.dest),
        .size = ntohs(ip.tot_len) - (DATA_AT - IP_AT),
        .data = frame + DATA_AT,
        .frame = frame,
        .frame_size = IP_AT + ntohs(ip.tot_len),
    };
    return true;
}

bool frames_receive(struct frames *self, struct datagram *datagram)
{
    while (self->held < FRAMES_VECTOR) {
        struct tpacket2_hdr *header = ring_frame(self, self->next);
        if ((__atomic_load_n(&header->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) == 0)
            return false;
        self->next++;
        self->held++;
        if (!parse(datagram, (uint8_t *)header + header->tp_mac, header->tp_snaplen))
            continue;
        datagram->time_ns = header->tp_sec * 1000000000ull + header->tp_nsec;
        return true;
    }
    return false;
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Who sleeps is woken by whoever sends: for as long as something may come soon, nobody has to. */
void frames_wait(struct frames *self, double within)
{
    struct pollfd watched = {.fd = self->fd, .events = POLLIN};
    double begin = now(), spin = within < SPIN ? within : SPIN;

    while (now() - begin < spin) {
        if ((__atomic_load_n(&ring_frame(self, self->next)->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) != 0)
            return;
        sched_yield();
    }
    if (within > SPIN)
        (void)poll(&watched, 1, (int)((within - SPIN) * 1000) + 1);
}

static uint16_t ip_checksum(const struct iphdr *ip)
{
    uint16_t words[sizeof *ip / 2];
    uint32_t sum = 0;

    memcpy(words, ip, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        sum += words[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

static void append(struct frames *self, uint8_t *frame, uint32_t size)
{
    struct mmsghdr *header = &self->headers[self->count];

    self->vectors[self->count] = (struct iovec){.iov_base = frame, .iov_len = size};
    *header = (struct mmsghdr){.msg_hdr = {.msg_iov = &self->vectors[self->count], .msg_iovlen = 1}};
    self->count++;
}

static void write_headers(const struct frames *self, const struct datagram *datagram, uint8_t *frame)
{
    struct ethhdr ethernet = {.h_proto = htons(ETH_P_IP), .h_source = {2, 0, 0, 0, 0, 0xff}};
    struct udphdr udp = {.source = htons(datagram->source_port),
                         .dest = htons(datagram->destination_port),
                         .len = htons((uint16_t)(datagram->size + sizeof udp))};
    struct iphdr ip = {.version = 4,
                       .ihl = 5,
                       .tot_len = htons((uint16_t)(datagram->size + DATA_AT - IP_AT)),
                       .frag_off = htons(IP_DF),
                       .ttl = 64,
                       .protocol = IPPROTO_UDP,
                       .saddr = htonl(datagram->source),
                       .daddr = htonl(datagram->destination)};

    memcpy(ethernet.h_dest, self->hardware, sizeof ethernet.h_dest);
    ip.check = ip_checksum(&ip);
    memcpy(frame, &ethernet, sizeof ethernet);
    memcpy(frame + IP_AT, &ip, sizeof ip);
    memcpy(frame + UDP_AT, &udp, sizeof udp);
}

uint8_t *frames_add(struct frames *self, const struct datagram *datagram)
{
    uint8_t *frame;

    if (self->count == FRAMES_VECTOR)
        frames_send(self);
    frame = self->own[self->count];
    write_headers(self, datagram, frame);
    append(self, frame, datagram->size + DATA_AT);
    return frame + DATA_AT;
}

void frames_return(struct frames *self, const struct datagram *received)
{
    struct datagram turned = *received;

    turned.source = received->destination;
    turned.source_port = received->destination_port;
    turned.destination = received->source;
    turned.destination_port = received->source_port;
    write_headers(self, &turned, received->frame);
    append(self, received->frame, received->frame_size);
}

void frames_send(struct frames *self)
{
    for (uint32_t sent = 0; sent < self->count;) {
        int status = sendmmsg(self->fd, self->headers + sent, self->count - sent, 0);
        sent += status > 0 ? (uint32_t)status : 1;
    }
    self->count = 0;
    for (; self->held > 0; self->held--)
        __atomic_store_n(&ring_frame(self, self->next - self->held)->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
}
