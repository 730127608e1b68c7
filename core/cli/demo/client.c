/* SPDX-License-Identifier: Apache-2.0 */
/* A client, as Windows does it: IKE_SA_INIT from port 500 to port 500 -> answer with SPIr -> think for a moment (the
 * Diffie-Hellman and the signature that we do not have) -> IKE_AUTH from port 4500 to port 4500 -> answer: connected.
 * While it stays: a keepalive (RFC 3948) and an INFORMATIONAL request each second, answered by who has its IKE_SA.
 * Fails: no answer                  -> the same message again after 0.25, 0.75 and 1.75 s, after 2.75 s error 809
 *        an answer of another IKE_SA, or not from the balancer -> ignored
 *        the socket refuses to send -> as lost on the way
 *        while it stays, three requests in a row without an answer -> connects anew with a new SPIi, again and again */
#include "cli/demo/client.h"
#include "base/hash.h"
#include "cli/demo/wire.h"
#include "ike/ike.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { START_WITHIN_MS = 800, THINK_WITHIN_MS = 200, HEARTBEAT_MS = 1000 };
enum { ALONE = 3 /* requests in a row without an answer */ };
enum { IKE, NAT_T }; /* a client's sockets */

/* Windows waits 1, 2 and 4 seconds; a demo is in a hurry. */
static const uint32_t patience_ms[] = {250, 500, 1000, 1000};
#define TRIES (sizeof patience_ms / sizeof patience_ms[0])

enum client_state { CLIENT_WAITING, CLIENT_SA_INIT, CLIENT_THINKING, CLIENT_AUTH, CLIENT_CONNECTED, CLIENT_FAILED };

struct client {
    struct clients *all;
    uint32_t number;
    enum client_state state;
    struct wire_spis spis;
    uint32_t tries; /* of the message that waits for its answer */
    uint32_t start_ms, think_ms;
    uint32_t message_id; /* of the next request */
    uint32_t unanswered; /* requests since the server last answered its IKE_SA */
    int sockets[2];
    uv_poll_t watchers[2];
    uv_timer_t timer;
};

struct clients {
    uv_loop_t *loop;
    const struct place *place;
    bool stay;
    uint32_t open; /* handles that the loop still has */
    struct clients_count count;
    void (*changed)(void *arg);
    void *arg;
    struct client client[DEMO_CLIENTS + 1]; /* [0] is nobody */
};

static void on_timer(uv_timer_t *timer);

static void send_to_service(struct client *self, int way, const uint8_t *data, size_t size)
{
    struct sockaddr_in to = place_service(way == IKE ? self->all->place->ike : self->all->place->nat_t);

    (void)sendto(self->sockets[way], data, size, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to);
}

static void enter(struct client *self, enum client_state state)
{
    struct clients *all = self->all;

    all->count.connected += (state == CLIENT_CONNECTED) - (self->state == CLIENT_CONNECTED);
    all->count.failed += (state == CLIENT_FAILED) - (self->state == CLIENT_FAILED);
    self->state = state;
    self->tries = 0;
    if (state == CLIENT_CONNECTED || state == CLIENT_FAILED)
        all->changed(all->arg);
}

static void wait_for(struct client *self, uint32_t ms)
{
    uv_timer_start(&self->timer, on_timer, ms, 0);
}

/* Sends the message of its state, for the first time or again. */
static void speak(struct client *self)
{
    uint8_t data[WIRE_SIZE];

    if (self->tries == TRIES) { /* error 809 */
        enter(self, CLIENT_FAILED);
        if (self->all->stay)
            wait_for(self, HEARTBEAT_MS);
        return;
    }
    if (self->state == CLIENT_SA_INIT)
        send_to_service(self, IKE, data, wire_sa_init(data, &self->spis, false));
    else
        send_to_service(self, NAT_T, data, wire_encrypted(data, &self->spis, IKE_AUTH, false, 1, true));
    wait_for(self, patience_ms[self->tries++]);
}

static void begin(struct client *self)
{
    self->spis = (struct wire_spis){.responder = {0}};
    wire_client_spi(self->spis.initiator, self->number);
    enter(self, CLIENT_SA_INIT);
    speak(self);
}

static void heartbeat(struct client *self)
{
    static const uint8_t keepalive = 0xff;
    uint8_t data[WIRE_SIZE];

    if (self->unanswered == ALONE) {
        begin(self);
        return;
    }
    self->unanswered++;
    send_to_service(self, NAT_T, &keepalive, sizeof keepalive);
    send_to_service(self, NAT_T, data,
                    wire_encrypted(data, &self->spis, IKE_INFORMATIONAL, false, self->message_id++, true));
    wait_for(self, HEARTBEAT_MS);
}

static void on_timer(uv_timer_t *timer)
{
    struct client *self = timer->data;

    switch (self->state) {
    case CLIENT_WAITING:
    case CLIENT_FAILED:
        begin(self);
        break;
    case CLIENT_THINKING:
        enter(self, CLIENT_AUTH);
        speak(self);
        break;
    case CLIENT_SA_INIT:
    case CLIENT_AUTH:
        speak(self);
        break;
    case CLIENT_CONNECTED:
        heartbeat(self);
        break;
    }
}

static void connected(struct client *self)
{
    self->unanswered = 0;
    self->message_id = 2;
    uv_timer_stop(&self->timer);
    enter(self, CLIENT_CONNECTED);
    if (self->all->stay)
        wait_for(self, HEARTBEAT_MS);
}

static void hear_answer(struct client *self, const struct hp_ike *header)
{
    bool same_sa = memcmp(header->responder_spi, self->spis.responder, 8) == 0;

    if (self->state == CLIENT_SA_INIT && header->exchange == IKE_SA_INIT) {
        memcpy(self->spis.responder, header->responder_spi, 8);
        enter(self, CLIENT_THINKING);
        wait_for(self, self->think_ms);
    } else if (self->state == CLIENT_AUTH && header->exchange == IKE_AUTH && same_sa) {
        connected(self);
    } else if (self->state == CLIENT_CONNECTED && header->exchange == IKE_INFORMATIONAL && same_sa) {
        self->unanswered = 0;
    }
}

static void hear(struct client *self, int way, const uint8_t *data, size_t size)
{
    struct ike_datagram datagram;

    ike_read(&datagram, data, size, way == IKE ? 500 : 4500);
    if (datagram.kind != IKE_MESSAGE || (datagram.header.flags & IKE_FLAG_RESPONSE) == 0)
        return;
    if (memcmp(datagram.header.initiator_spi, self->spis.initiator, 8) == 0)
        hear_answer(self, &datagram.header);
}

static void on_readable(uv_poll_t *watcher, int status, int events)
{
    struct client *self = watcher->data;
    int way = watcher == &self->watchers[IKE] ? IKE : NAT_T;
    struct sockaddr_in from, service = place_service(way == IKE ? self->all->place->ike : self->all->place->nat_t);
    uint8_t data[2048];

    (void)status, (void)events;
    for (;;) {
        socklen_t from_size = sizeof from;
        ssize_t size =
            recvfrom(self->sockets[way], data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &from_size);
        if (size < 0)
            return;
        if (from.sin_addr.s_addr == service.sin_addr.s_addr && from.sin_port == service.sin_port)
            hear(self, way, data, (size_t)size);
    }
}

/* The sockets stay unconnected: nothing that comes back by ICMP stops the watcher. */
static int open_way(struct client *self, int way, struct error *error)
{
    const struct place *place = self->all->place;
    struct sockaddr_in at = place_client(self->number, way == IKE ? place->ike : place->nat_t);
    int fd = place_bind(&at, error), status;

    if (fd < 0)
        return fd;
    status = uv_poll_init(self->all->loop, &self->watchers[way], fd);
    if (status < 0) {
        close(fd);
        return error_set(error, status, "cannot watch a client's socket: %s", uv_strerror(status));
    }
    self->sockets[way] = fd;
    self->watchers[way].data = self;
    self->all->open++;
    uv_poll_start(&self->watchers[way], UV_READABLE, on_readable);
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;

    client->all->open--;
}

static int client_open(struct client *self, struct clients *all, uint32_t number, struct error *error)
{
    int status;

    self->all = all;
    self->number = number;
    uv_timer_init(all->loop, &self->timer);
    self->timer.data = self;
    all->open++;
    status = open_way(self, IKE, error);
    return status < 0 ? status : open_way(self, NAT_T, error);
}

static void client_close(struct client *self)
{
    if (self->all == NULL)
        return;
    uv_close((uv_handle_t *)&self->timer, on_closed);
    for (int way = IKE; way <= NAT_T; way++) {
        if (self->sockets[way] < 0)
            continue;
        uv_close((uv_handle_t *)&self->watchers[way], on_closed);
        close(self->sockets[way]);
    }
}

/* splitmix64: small, and the same everywhere, so that a seed repeats. */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int clients_open(struct clients **out, uv_loop_t *loop, const struct place *place, uint64_t seed,
                 void (*changed)(void *arg), void *arg, struct error *error)
{
    struct clients *self = calloc(1, sizeof *self);

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory for the clients");
    self->loop = loop;
    self->place = place;
    self->changed = changed;
    self->arg = arg;
    for (uint32_t i = 1; i <= DEMO_CLIENTS; i++) {
        self->client[i].sockets[IKE] = self->client[i].sockets[NAT_T] = -1;
        self->client[i].start_ms = (uint32_t)(draw(&seed) % START_WITHIN_MS);
        self->client[i].think_ms = (uint32_t)(draw(&seed) % THINK_WITHIN_MS);
    }
    for (uint32_t i = 1; i <= DEMO_CLIENTS; i++) {
        int status = client_open(&self->client[i], self, i, error);
        if (status < 0) {
            clients_close(self);
            return status;
        }
    }
    *out = self;
    return 0;
}

void clients_close(struct clients *self)
{
    if (self == NULL)
        return;
    for (uint32_t i = 1; i <= DEMO_CLIENTS; i++)
        client_close(&self->client[i]);
    while (self->open > 0)
        uv_run(self->loop, UV_RUN_ONCE);
    free(self);
}

void clients_connect(struct clients *self)
{
    uv_update_time(self->loop);
    for (uint32_t i = 1; i <= DEMO_CLIENTS; i++)
        wait_for(&self->client[i], self->client[i].start_ms);
}

void clients_stay(struct clients *self)
{
    self->stay = true;
    for (uint32_t i = 1; i <= DEMO_CLIENTS; i++)
        wait_for(&self->client[i], self->client[i].start_ms);
}

struct clients_count clients_count(const struct clients *self)
{
    return self->count;
}

bool clients_connected(const struct clients *self, uint32_t client)
{
    return self->client[client].state == CLIENT_CONNECTED;
}

bool clients_at_home(const struct clients *self, uint32_t client)
{
    return clients_connected(self, client) && self->client[client].unanswered < ALONE;
}
