/* SPDX-License-Identifier: Apache-2.0 */
/* Garbage for a balancer, and servers that answer with garbage.
 *
 *   homeport-garbage send SEED FIRST-SOURCE SOURCES ADDRESS:PORT...
 *       For each number on standard input so many datagrams go out, from SOURCES addresses on, to the listeners in turn
 *       by chance; then the number of all that have been sent so far is printed. Ends with standard input.
 *   homeport-garbage sink SEED ADDRESS:PORT...
 *       Receives; echoes half of it, answers a quarter with garbage. Ends with standard input.
 *
 * The same seed sends the same datagrams. Fails: an address that cannot be bound, a send that the kernel refuses other
 * than for want of room -> message, status 1. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DATAGRAM_MAX 65507u
#define SOCKETS_MAX 4096u
#define TARGETS_MAX 64u
#define RENEW_EVERY 1024u /* datagrams: then one source gets another port, which is another flow */

static const uint8_t marker[4] = {0};

struct garbage {
    uint64_t state; /* of the generator */
    uint8_t data[DATAGRAM_MAX];
    uint32_t size;
};

struct sender {
    struct garbage garbage;
    struct sockaddr_in targets[TARGETS_MAX];
    uint32_t target_count, source_count;
    in_addr_t first_source; /* host order */
    int sockets[SOCKETS_MAX];
    uint64_t sent;
};

/* xorshift64*: fast, and the same everywhere. */
static uint64_t draw(struct garbage *self)
{
    self->state ^= self->state >> 12;
    self->state ^= self->state << 25;
    self->state ^= self->state >> 27;
    return self->state * 0x2545f4914f6cdd1dull;
}

static uint32_t below(struct garbage *self, uint32_t limit)
{
    return (uint32_t)(draw(self) >> 33) % limit;
}

static void fill(struct garbage *self, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i += 8) {
        uint64_t random = draw(self);
        memcpy(self->data + i, &random, to - i < 8 ? to - i : 8);
    }
}

/* Most are small, some need fragments, a few are as long as can be. */
static uint32_t any_size(struct garbage *self)
{
    uint32_t chance = below(self, 1000);

    if (chance == 0)
        return DATAGRAM_MAX - below(self, 4);
    if (chance < 10)
        return below(self, 9000);
    return below(self, chance < 700 ? 120 : 1473);
}

static void put_u32(uint8_t *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, 4);
}

/* RFC 7296 section 3.1; version 0x20, or 0x10 for IKEv1. */
static void ike_header(struct garbage *self, uint8_t version, uint8_t exchange, uint32_t length)
{
    fill(self, 0, 28);
    if (below(self, 2) == 0)
        memset(self->data + 8, 0, 8); /* no responder yet */
    self->data[16] = (uint8_t)(33 + below(self, 20));
    self->data[17] = version;
    self->data[18] = exchange;
    self->data[19] = below(self, 2) == 0 ? 0x08 : (uint8_t)draw(self);
    put_u32(self->data + 20, below(self, 4));
    put_u32(self->data + 24, length);
}

/* A chain of payloads whose lengths add up, with random contents. */
static void ike_message(struct garbage *self)
{
    uint32_t at = 28, payloads = below(self, 6);

    for (uint32_t i = 0; i < payloads; i++) {
        uint32_t length = 4 + below(self, 200);
        fill(self, at, at + length);
        self->data[at] = (uint8_t)(i + 1 < payloads ? 33 + below(self, 20) : 0);
        self->data[at + 1] = 0;
        self->data[at + 2] = (uint8_t)(length >> 8);
        self->data[at + 3] = (uint8_t)length;
        at += length;
    }
    ike_header(self, 0x20, (uint8_t)(34 + below(self, 4)), at);
    self->size = at;
}

static void ike_broken(struct garbage *self)
{
    ike_message(self);
    switch (below(self, 4)) {
    case 0: /* truncated */
        self->size = below(self, self->size + 1);
        break;
    case 1: /* a length of its own */
        put_u32(self->data + 24, (uint32_t)draw(self));
        break;
    case 2: /* too short for itself */
        put_u32(self->data + 24, below(self, 28));
        break;
    default: /* some bits have turned */
        for (uint32_t i = below(self, 8) + 1; i > 0; i--)
            self->data[below(self, self->size)] ^= (uint8_t)(1u << below(self, 8));
    }
}

static void ike_version_1(struct garbage *self)
{
    self->size = 28 + below(self, 400);
    fill(self, 28, self->size);
    ike_header(self, 0x10, (uint8_t)(below(self, 2) == 0 ? 2 : 4), self->size);
}

static void esp(struct garbage *self)
{
    self->size = 8 + below(self, 1400);
    fill(self, 0, self->size);
    self->data[0] |= 1;
}

static void with_marker(struct garbage *self)
{
    if (self->size > DATAGRAM_MAX - sizeof marker)
        return;
    memmove(self->data + sizeof marker, self->data, self->size);
    memcpy(self->data, marker, sizeof marker);
    self->size += (uint32_t)sizeof marker;
}

static void next_datagram(struct garbage *self)
{
    switch (below(self, 8)) {
    case 0:
        self->size = any_size(self);
        fill(self, 0, self->size);
        break;
    case 1:
        ike_broken(self);
        break;
    case 2:
        ike_version_1(self);
        break;
    case 3: /* a keepalive, or almost one */
        self->size = below(self, 16) == 0 ? 2 : 1;
        memset(self->data, below(self, 16) == 0 ? 0xfe : 0xff, 2);
        break;
    case 4:
        self->size = 0;
        break;
    case 5:
        ike_message(self);
        break;
    case 6:
        esp(self);
        break;
    default: /* a part of a marker */
        self->size = below(self, 9);
        memset(self->data, 0, self->size);
    }
    if (below(self, 3) == 0)
        with_marker(self);
}

static int fail(const char *what)
{
    fprintf(stderr, "homeport-garbage: %s: %s\n", what, strerror(errno));
    return 1;
}

static bool address_read(struct sockaddr_in *out, const char *text)
{
    char address[32];
    const char *colon = strchr(text, ':');
    size_t length = colon != NULL ? (size_t)(colon - text) : strlen(text);

    if (length >= sizeof address)
        return false;
    memcpy(address, text, length);
    address[length] = '\0';
    *out = (struct sockaddr_in){.sin_family = AF_INET};
    if (colon != NULL)
        out->sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    return inet_pton(AF_INET, address, &out->sin_addr) == 1;
}

static int bound_socket(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && bind(fd, (const struct sockaddr *)address, sizeof *address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool source_open(struct sender *self, uint32_t position)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(self->first_source + position)};

    if (self->sockets[position] >= 0)
        close(self->sockets[position]);
    self->sockets[position] = bound_socket(&address);
    return self->sockets[position] >= 0;
}

/* The kernel may be short of room for a moment: that datagram was not sent, and goes once more. */
static bool send_one(struct sender *self)
{
    const struct sockaddr_in *target = &self->targets[below(&self->garbage, self->target_count)];
    int fd = self->sockets[below(&self->garbage, self->source_count)];

    next_datagram(&self->garbage);
    while (sendto(fd, self->garbage.data, self->garbage.size, 0, (const struct sockaddr *)target, sizeof *target) < 0) {
        if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
            return false;
        usleep(1000);
    }
    self->sent++;
    return true;
}

static int send_all(struct sender *self)
{
    char line[32];

    while (fgets(line, sizeof line, stdin) != NULL) {
        for (uint64_t left = strtoull(line, NULL, 10); left > 0; left--) {
            if (self->sent % RENEW_EVERY == 0 && !source_open(self, below(&self->garbage, self->source_count)))
                return fail("cannot open a socket for a source");
            if (!send_one(self))
                return fail("cannot send");
        }
        printf("%llu\n", (unsigned long long)self->sent);
        fflush(stdout);
    }
    return 0;
}

static int run_sender(int argc, char **argv)
{
    static struct sender self;
    struct sockaddr_in first;

    self.garbage.state = strtoull(argv[2], NULL, 10) | 1;
    self.source_count = (uint32_t)strtoul(argv[4], NULL, 10);
    self.target_count = (uint32_t)argc - 5;
    if (self.source_count == 0 || self.source_count > SOCKETS_MAX || self.target_count > TARGETS_MAX ||
        !address_read(&first, argv[3]))
        return 2;
    self.first_source = ntohl(first.sin_addr.s_addr);
    for (uint32_t i = 0; i < self.target_count; i++)
        if (!address_read(&self.targets[i], argv[5 + i]))
            return 2;
    for (uint32_t i = 0; i < self.source_count; i++) {
        self.sockets[i] = -1;
        if (!source_open(&self, i))
            return fail("cannot open a socket for a source");
    }
    return send_all(&self);
}

static void answer(struct garbage *self, int fd)
{
    static uint8_t data[DATAGRAM_MAX];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t size = recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
    uint32_t chance = below(self, 4);

    if (size < 0 || chance == 3)
        return;
    if (chance == 2) {
        next_datagram(self);
        (void)sendto(fd, self->data, self->size, MSG_DONTWAIT, (struct sockaddr *)&from, length);
    } else {
        (void)sendto(fd, data, (size_t)size, MSG_DONTWAIT, (struct sockaddr *)&from, length);
    }
}

static int run_sink(int argc, char **argv)
{
    static struct garbage self;
    struct pollfd ready[TARGETS_MAX + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    nfds_t count = 1;

    self.state = strtoull(argv[2], NULL, 10) | 1;
    for (int i = 3; i < argc && count <= TARGETS_MAX; i++, count++) {
        struct sockaddr_in address;

        if (!address_read(&address, argv[i]))
            return 2;
        ready[count] = (struct pollfd){.fd = bound_socket(&address), .events = POLLIN};
        if (ready[count].fd < 0)
            return fail(argv[i]);
    }
    puts("ready");
    fflush(stdout);
    while (poll(ready, count, -1) >= 0 && ready[0].revents == 0)
        for (nfds_t i = 1; i < count; i++)
            if (ready[i].revents != 0)
                answer(&self, ready[i].fd);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 5 && strcmp(argv[1], "send") == 0)
        return run_sender(argc, argv);
    if (argc > 3 && strcmp(argv[1], "sink") == 0)
        return run_sink(argc, argv);
    fputs("usage: homeport-garbage send SEED FIRST-SOURCE SOURCES ADDRESS:PORT...\n"
          "       homeport-garbage sink SEED ADDRESS:PORT...\n",
          stderr);
    return 2;
}
