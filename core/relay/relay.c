/* SPDX-License-Identifier: Apache-2.0 */
/* The relay as a whole: what the loop watches, and who is called.
 *
 * A turn: the loop finds the lanes' epoll instances readable (nothing stands between: each instance more is a call more
 * for each datagram that comes alone), up to READY events of each are served (a listener reads its vector, a session's
 * socket its replies, a stream's what it holds), then the replies that have been collected leave. What sessions have
 * that displace others waits, and some of it leaves in each turn (backlog.c).
 * Forty times a second a slice of the rows is swept. Behind a hand-over an idle handle asks for the sessions' keys,
 * then it takes the sockets that came for them, or opens those that did not, some a turn. What ends during a turn is
 * buried first and freed at its end: an event in hand may still name it. */
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/hash.h"
#include "relay/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define READY 256

void relay_wake(struct relay *relay)
{
    relay->now_ms = clock_now_ms();
    relay->tracing = trace_is_on(relay->segment, relay->now_ms);
}

void relay_rest(struct relay *relay)
{
    while (relay->buried != NULL) {
        struct path *next = relay->buried->next;
        path_free(relay->buried);
        relay->buried = next;
    }
}

int relay_watch(int epoll, struct watched *watched)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watched};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, watched->fd, &event) < 0)
        return -errno;
    watched->on = true;
    return 0;
}

/* Said outright: closing is not enough when another process has the socket as well. */
void relay_unwatch(int epoll, struct watched *watched)
{
    if (watched->on)
        (void)epoll_ctl(epoll, EPOLL_CTL_DEL, watched->fd, NULL);
    watched->on = false;
}

static void lane_serve(const struct lane *lane)
{
    struct epoll_event ready[READY];
    int count = epoll_wait(lane->epoll, ready, READY, 0);

    for (int i = 0; i < count; i++) {
        struct watched *watched = ready[i].data.ptr;
        if (watched->fd < 0)
            continue;
        switch (watched->kind) {
        case WATCHED_LISTENER:
            udp_read((struct listener *)(void *)watched);
            break;
        case WATCHED_PATH:
            reply_read((struct path *)(void *)watched);
            break;
        case WATCHED_ACCEPTOR:
            (void)stream_accept((struct listener *)(void *)watched);
            break;
        case WATCHED_STREAM:
            stream_event((struct stream_side *)(void *)watched, ready[i].events);
            break;
        }
    }
}

struct look { /* at a lane's epoll instance; outlives the lane by as long as the loop has it */
    uv_poll_t poll;
    struct relay *relay;
    struct lane *lane;
};

static void on_ready(uv_poll_t *poll, int status, int events)
{
    const struct look *look = poll->data;
    struct relay *relay = look->relay;

    (void)status;
    (void)events;
    relay_wake(relay);
    lane_serve(look->lane);
    reply_flush(relay);
    relay_rest(relay);
}

static void on_look_closed(uv_handle_t *handle)
{
    struct look *look = handle->data;
    struct relay *relay = look->relay;

    free(look);
    relay_let_go(relay);
}

int relay_look_open(struct lane *lane)
{
    struct look *look = malloc(sizeof *look);
    int status = look == NULL ? -ENOMEM : uv_poll_init(lane->relay->loop, &look->poll, lane->epoll);

    if (status < 0) {
        free(look);
        return status;
    }
    look->poll.data = look;
    look->relay = lane->relay;
    look->lane = lane;
    lane->look = look;
    lane->relay->handles++;
    return 0;
}

void relay_look_at(struct lane *lane)
{
    uv_poll_start(&lane->look->poll, UV_READABLE, on_ready);
}

void relay_look_away(struct lane *lane)
{
    uv_poll_stop(&lane->look->poll);
}

void relay_look_close(struct lane *lane)
{
    if (lane->look != NULL)
        uv_close((uv_handle_t *)&lane->look->poll, on_look_closed);
    lane->look = NULL;
}

/* One lane a turn, so that what comes for the others is read between. */
static bool adopt_frozen(struct relay *relay)
{
    struct lane *lane = relay->lanes;

    while (lane != NULL && (!lane->frozen || lane->adopted))
        lane = lane->next;
    if (lane != NULL) {
        relay_wake(relay);
        lane_adopt(lane);
    }
    return lane != NULL;
}

static bool catch_up(struct relay *relay)
{
    bool more = false;

    for (struct lane *lane = relay->lanes; lane != NULL && !more; lane = lane->next)
        more = lane->state == LANE_HELD && lane_rekey(lane, RELAY_REKEY);
    for (struct lane *lane = relay->lanes; lane != NULL && !more; lane = lane->next)
        more = lane->state == LANE_HELD && lane->reopen_count > 0 && lane_reopen(lane, RELAY_REOPEN);
    return more;
}

/* Clients who wait for a transfer come first: until the last one has ended, a tick does what else is to be done. */
static void on_idle(uv_idle_t *idle)
{
    struct relay *relay = idle->data;
    bool more;

    if (relay->transfers != NULL) {
        more = adopt_frozen(relay);
    } else if (relay->first_things_first) { /* the loop looks at sockets behind this */
        relay->first_things_first = false;
        more = true;
    } else {
        relay_wake(relay);
        more = catch_up(relay);
    }
    if (!more)
        uv_idle_stop(idle);
}

static void on_tick(uv_timer_t *timer)
{
    struct relay *relay = timer->data;

    relay_wake(relay);
    for (struct lane *lane = relay->lanes; lane != NULL; lane = lane->next) {
        if (lane->state != LANE_HELD)
            continue;
        sweep_drops(lane);
        if (relay->ticks % RELAY_REST_TICKS == 0)
            stream_accept_again(lane);
        if (lane->reopen_count > 0 && relay->ticks < RELAY_TICKS) /* first things first, in our first second */
            continue;
        sweep_lane(lane, relay->ticks % RELAY_TICKS);
    }
    relay->ticks++;
    if (relay->transfers != NULL)
        (void)catch_up(relay);
    relay_rest(relay);
}

static int services_make(struct relay *relay)
{
    const struct config *config = relay->config;

    relay->services = calloc(config->service_count + 1u, sizeof *relay->services);
    if (relay->services == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < config->service_count; i++) {
        struct service *service = &relay->services[i];
        *service =
            (struct service){.config = &config->services[i], .topology = &relay->topology->services[i], .position = i};
        for (uint32_t what = HP_OBSERVE_IKE_CLIENT; what <= HP_OBSERVE_IKE_SERVER; what <<= 1)
            if (decider_observes(relay->decider, i, what))
                service->observes |= what;
        service->decides = decider_decides(relay->decider, i);
        service->settings = decider_settings(relay->decider, i);
    }
    return 0;
}

static void relay_free(struct relay *relay)
{
    batch_close(&relay->arrivals);
    batch_close(&relay->replies);
    free(relay->services);
    if (relay->spare >= 0)
        close(relay->spare);
    free(relay);
}

/* All that can fail. */
static int relay_prepare(struct relay *relay, struct error *error)
{
    int status = batch_open(&relay->arrivals, error);

    if (status == 0)
        status = batch_open(&relay->replies, error);
    if (status < 0)
        return status;
    if (services_make(relay) < 0)
        return error_set(error, -ENOMEM, "no memory for the services of the relay");
    relay->spare = stream_spare(relay);
    relay->stream_limit = stream_limit();
    return 0;
}

int relay_open(struct relay **out, uv_loop_t *loop, const struct config *config, struct topology *topology,
               struct decider *decider, struct segment *segment, struct keeper *keeper, uint32_t self, struct log *log,
               struct error *error)
{
    struct relay *relay = calloc(1, sizeof *relay);
    int status;

    if (relay == NULL)
        return error_set(error, -ENOMEM, "no memory for the relay");
    relay->loop = loop;
    relay->config = config;
    relay->topology = topology;
    relay->decider = decider;
    relay->segment = segment;
    relay->keeper = keeper;
    relay->slot = &segment->processes[self % SEGMENT_PROCESSES];
    relay->self = self;
    relay->log = log;
    relay->spare = -1;
    TAILQ_INIT(&relay->backlogs);
    hash_random(relay->secret, sizeof relay->secret);
    status = relay_prepare(relay, error);
    if (status < 0) {
        relay_free(relay);
        return status;
    }
    uv_timer_init(loop, &relay->tick);
    uv_idle_init(loop, &relay->catching_up);
    uv_idle_init(loop, &relay->backlog_turn);
    relay->handles = 3;
    relay->tick.data = relay->catching_up.data = relay->backlog_turn.data = relay;
    relay_wake(relay);
    uv_timer_start(&relay->tick, on_tick, RELAY_TICK_MS, RELAY_TICK_MS);
    *out = relay;
    return 0;
}

void relay_catch_up(struct relay *relay)
{
    relay->first_things_first = true;
    relay->ticks = 0;
    uv_idle_start(&relay->catching_up, on_idle);
}

void relay_let_go(struct relay *relay)
{
    void (*closed)(void *arg) = relay->closed;
    void *arg = relay->closed_arg;

    if (--relay->handles > 0 || !relay->closing)
        return;
    relay_free(relay);
    closed(arg);
}

static void on_handle_closed(uv_handle_t *handle)
{
    relay_let_go(handle->data);
}

void relay_close(struct relay *relay, void (*done)(void *arg), void *arg)
{
    relay->closing = true;
    relay->closed = done;
    relay->closed_arg = arg;
    transfer_abort_all(relay);
    while (relay->lanes != NULL) {
        struct lane *next = relay->lanes->next;
        backlog_send_lane(relay->lanes);
        lane_free(relay->lanes);
        relay->lanes = next;
    }
    relay_rest(relay);
    uv_close((uv_handle_t *)&relay->tick, on_handle_closed);
    uv_close((uv_handle_t *)&relay->catching_up, on_handle_closed);
    uv_close((uv_handle_t *)&relay->backlog_turn, on_handle_closed);
}

/* The number of a listener is its position in the list of all services' addresses. */
static bool listener_of(const struct relay *relay, uint32_t number, struct listener *listener)
{
    uint32_t position = number;

    for (uint32_t i = 0; i < relay->config->service_count; i++) {
        const struct config_service *config = &relay->config->services[i];
        if (position < config->listen_count) {
            listener->service = &relay->services[i];
            listener->address = config->listen[position];
            return true;
        }
        position -= config->listen_count;
    }
    return false;
}

int relay_add_listener(struct relay *relay, uint32_t number, uint32_t lane_number, int fd, struct error *error)
{
    struct lane *lane = lane_number < relay->segment->lane_count ? lane_find(relay, lane_number) : NULL;
    struct listener *listener = calloc(1, sizeof *listener);

    if (lane == NULL || listener == NULL || lane->state != LANE_IDLE || !listener_of(relay, number, listener)) {
        free(listener);
        close(fd);
        return error_set(error, -EINVAL, "listener %u of lane %u does not fit the configuration", number, lane_number);
    }
    listener->watched = (struct watched){
        .kind = listener->service->config->protocol == IPPROTO_TCP ? WATCHED_ACCEPTOR : WATCHED_LISTENER, .fd = fd};
    listener->lane = lane;
    listener->number = number;
    listener->wildcard = endpoint_is_any(&listener->address);
    listener->drops = listener_drops(fd);
    listener->reply_first = listener->reply_last = RELAY_NO_SLOT;
    listener->next = lane->listeners;
    lane->listeners = listener;
    return 0;
}

bool relay_holds_lanes(const struct relay *relay)
{
    for (const struct lane *lane = relay->lanes; lane != NULL; lane = lane->next)
        if (lane->state != LANE_IDLE)
            return true;
    return false;
}

void relay_describe(const struct relay *relay, const struct relay_view *view)
{
    for (const struct lane *lane = relay->lanes; lane != NULL; lane = lane->next)
        if (lane->state != LANE_IDLE && view->lane != NULL)
            view->lane(view->arg, lane->number, lane->state);
    for (const struct lane *lane = relay->lanes; lane != NULL; lane = lane->next)
        for (const struct listener *listener = lane->listeners; listener != NULL; listener = listener->next)
            if (lane->state != LANE_IDLE && view->listener != NULL)
                view->listener(view->arg, lane->number, listener->watched.fd);
}
