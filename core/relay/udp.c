/* SPDX-License-Identifier: Apache-2.0 */
/* From clients to servers. Happy path: a vector is read from a listener, each datagram finds its session by flow, the
 * session's record and server are as it knows them, and all datagrams of a session leave together.
 * Fails: from a server, for a client of `source: transparent` -> dropped and counted, no flow
 *        no session for the flow       -> decided; refused (and counted by whom refuses), or a session begins
 *        record or server have changed -> decided anew with the session's server as an offer: the same server keeps
 *                                         all, another one ends this session and begins the next
 *        its plugin decides on such datagrams (IKE, a new ESP SPI) -> asked before it goes out, as if the record had
 *                                         changed
 *        adopted, or no room for a record -> asked once more; it stays at its server all the same
 *        its server is disabled, IKE   -> dropped and counted, but for an IKE_SA_INIT
 *        its source address has gone   -> it goes on from another one (source.c)
 *        the socket is still closed    -> taken from the last holder, else opened on the same port; where that
 *                                         cannot be, on another
 *        one session displaces others  -> it waits for its turn (backlog.c)
 *        the kernel takes no more      -> dropped and counted (run.c has the rest) */
#include "base/endpoint.h"
#include "relay/private.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

/* A second and session, so that neither CHILD_SAs in turns nor forged datagrams make a decision each. */
#define ESP_ASKS 4u
#define IKE_ASKS 32u
#define SHARE 16u /* of a full vector, for one session */
#define ALONE 32u /* read of a listener where one session alone fills the vector while light ones speak elsewhere */
#define RECENT_MS 100u

/* The kernel's own counter of this socket, since it was made. A datagram bears what it was when it came: behind a
 * hand-over that is less than what has been counted already, for those that waited in the queue. */
static void note_queue_drops(struct listener *listener, const struct cmsghdr *message)
{
    uint32_t drops;

    memcpy(&drops, CMSG_DATA(message), sizeof drops);
    listener_count_drops(listener, drops);
}

static void control_read(struct listener *listener, struct msghdr *header, struct arrival *arrival)
{
    struct hp_endpoint *local = &arrival->local;

    for (struct cmsghdr *message = CMSG_FIRSTHDR(header); message != NULL; message = CMSG_NXTHDR(header, message)) {
        if (message->cmsg_level == SOL_SOCKET && message->cmsg_type == SO_RXQ_OVFL) {
            note_queue_drops(listener, message);
        } else if (batch_mark(message, &arrival->mark)) {
            continue;
        } else if (message->cmsg_level == IPPROTO_IP && message->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(message), sizeof info);
            memcpy(local->address, &info.ipi_addr, 4);
        } else if (message->cmsg_level == IPPROTO_IPV6 && message->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(message), sizeof info);
            memcpy(local->address, &info.ipi6_addr, 16);
            local->scope = endpoint_is_link_local(local) ? (uint32_t)info.ipi6_ifindex : 0;
        }
    }
}

static void kind_read(struct relay *relay, const struct service *service, struct ike_datagram *out, const uint8_t *data,
                      uint32_t size)
{
    if (!service->config->ike) {
        *out = (struct ike_datagram){.kind = IKE_OTHER, .data = data, .size = size};
        relay_count(relay, COUNTER_other_datagrams, 1);
        return;
    }
    ike_read(out, data, size, service->config->port);
    switch (out->kind) {
    case IKE_OTHER:
        relay_count(relay, COUNTER_other_datagrams, 1);
        break;
    case IKE_MESSAGE:
        relay_count(relay, COUNTER_ike_messages, 1);
        relay_count(relay, COUNTER_ike_new_sa, ike_is_new_sa(out));
        break;
    case IKE_ESP:
        relay_count(relay, COUNTER_esp_datagrams, 1);
        break;
    case IKE_KEEPALIVE:
        relay_count(relay, COUNTER_keepalives, 1);
        break;
    }
}

static bool arrival_read(struct listener *listener, uint32_t slot)
{
    struct relay *relay = listener->lane->relay;
    struct arrival *arrival = &relay->arrival[slot];
    struct msghdr *header = &relay->arrivals.headers[slot].msg_hdr;

    arrival->path = NULL;
    arrival->next = RELAY_NO_SLOT;
    arrival->mark = 0;
    arrival->local = listener->address;
    if (!endpoint_from_sockaddr(&arrival->client, header->msg_name, header->msg_namelen))
        return false;
    if (header->msg_controllen > 0)
        control_read(listener, header, arrival);
    kind_read(relay, listener->service, &arrival->ike, batch_data(&relay->arrivals, slot),
              batch_size(&relay->arrivals, slot));
    return true;
}

static struct path *path_find(const struct listener *listener, const struct arrival *arrival)
{
    struct lane *lane = listener->lane;
    struct flow_key key = {.service = listener->service->topology->identity, .client = arrival->client};
    uint32_t row;

    memcpy(key.local, arrival->local.address, sizeof key.local);
    row = flow_index_find(&lane->index, &key);
    return row == FLOW_NONE ? NULL : lane->paths[row];
}

/* path NULL: of a new flow. */
static struct decision_request request_of(const struct listener *listener, uint32_t slot, const struct path *path)
{
    struct relay *relay = listener->lane->relay;
    const struct arrival *arrival = &relay->arrival[slot];

    return (struct decision_request){.service = listener->service->position,
                                     .client = &arrival->client,
                                     .local = &arrival->local,
                                     .datagram = &arrival->ike,
                                     .data = batch_data(&relay->arrivals, slot),
                                     .size = batch_size(&relay->arrivals, slot),
                                     .own_server = path != NULL ? path->row->server : -1,
                                     .proven = path != NULL && row_proven(path->row),
                                     .now_s = relay_now_s(relay)};
}

/* The same server from another port: as proven as it was, and known by the same names. */
static void row_continue(struct path *path, const struct session_row *before)
{
    uint32_t flags = atomic_load_explicit(&before->flags, memory_order_relaxed);

    kept_copy(path->row, before);
    atomic_fetch_or_explicit(&path->row->flags, flags & SESSION_LEARNT, memory_order_relaxed);
    if (row_proven(before))
        path_prove(path);
}

/* Another server is another session: what has come for the old one leaves before it ends. */
static struct path *path_move(struct listener *listener, uint32_t slot, struct path *path,
                              const struct decision *decision)
{
    struct relay *relay = listener->lane->relay;
    const struct arrival *arrival = &relay->arrival[slot];
    struct flow flow = {.listener = listener, .client = &arrival->client, .local = &arrival->local};
    struct session_row before;
    bool same = session_read(path->row, &before) && decision->server == before.server;
    const struct path old = *path;

    udp_send_waiting(relay, false);
    path_end(path, NULL);
    path = path_begin(&flow, decision, &before);
    if (path == NULL)
        return NULL;
    path->asked_s = old.asked_s;
    memcpy(path->asks, old.asks, sizeof path->asks);
    memcpy(path->init_spi, old.init_spi, sizeof path->init_spi);
    if (same)
        row_continue(path, &before);
    return path;
}

/* IKE_SA_INIT, or the IKE_AUTH that follows it on the other port, whose own IKE_SA_INIT may have come as a new flow. */
static bool begins_ike_sa(const struct service *service, const struct ike_datagram *ike)
{
    return service->config->ike && (ike_is_new_sa(ike) || (ike->kind == IKE_MESSAGE && ike->header.message_id == 1 &&
                                                           ike->header.exchange == IKE_AUTH));
}

/* A client of several IKE_SAs moves for those that it begins alone, else it would go to and fro. */
static bool moves_source(const struct path *path, const struct ike_datagram *ike, const struct decision *decision)
{
    return source_differs(path, decision) && (path->service->decides == 0 || begins_ike_sa(path->service, ike));
}

static struct path *path_decide(struct listener *listener, uint32_t slot, struct path *path)
{
    struct decision_request request = request_of(listener, slot, path);
    const struct flow flow = {listener, request.client, request.local};
    struct decision decision;
    struct record_ref ref;

    decide(listener->lane->relay->decider, &request, &decision);
    if (decision.server < 0) {
        flow_refused(&flow, &decision);
        return NULL;
    }
    if (decision.server != path->row->server ||
        moves_source(path, &listener->lane->relay->arrival[slot].ike, &decision))
        return path_move(listener, slot, path, &decision);
    if (decision.record != SEGMENT_NO_INDEX || !path_watched(path, &ref))
        path_watch_record(path, &decision);
    if (decision.reason == DECISION_PUT_BACK && listener->lane->relay->tracing)
        trace_path(path, TRACE_RECORD_PUT_BACK, NULL);
    return path;
}

/* The datagram may belong elsewhere, or teach by what its client is known: does the plugin want to say so? For ESP that
 * is one comparison. */
static bool plugin_decides(struct path *path, const struct ike_datagram *ike, uint32_t now_s)
{
    uint32_t decides = path->service->decides;
    bool is_ike = ike->kind == IKE_MESSAGE;

    if (!is_ike && (ike->kind != IKE_ESP || ike->esp_spi == path->esp_spi))
        return false;
    if ((decides & (is_ike ? HP_DECIDE_IKE : HP_DECIDE_ESP_SPI)) == 0)
        return false;
    if (path->asked_s != now_s)
        path->asks[0] = path->asks[1] = 0;
    path->asked_s = now_s;
    if (path->asks[is_ike] == (is_ike ? IKE_ASKS : ESP_ASKS))
        return false;
    path->asks[is_ike]++;
    if (!is_ike)
        path->esp_spi = ike->esp_spi;
    return true;
}

/* Records and sessions never disagree: one load of the record's word, one of the server's. */
static struct path *path_check(struct listener *listener, uint32_t slot, struct path *path)
{
    struct relay *relay = listener->lane->relay;
    const struct service *service = listener->service;
    bool new_sa = service->config->ike && ike_is_new_sa(&relay->arrival[slot].ike);
    uint32_t flags = atomic_load_explicit(&path->row->flags, memory_order_relaxed);
    struct record_ref ref;
    bool same = path_watched(path, &ref);

    if ((flags & RELAY_ROW_DECIDED) == 0 || (!same && ref.index != SEGMENT_NO_INDEX) ||
        (path->stays && begins_ike_sa(service, &relay->arrival[slot].ike)))
        return path_decide(listener, slot, path);
    switch (topology_datagram(relay->topology, service->topology, path->member, new_sa)) {
    case TOPOLOGY_PASS:
        break;
    case TOPOLOGY_DECIDE_ANEW:
        return path_decide(listener, slot, path);
    case TOPOLOGY_DROP:
        flow_lost(&(struct flow){listener, &path->row->client, NULL}, LOSS_dropped_server_disabled);
        return NULL;
    }
    if (service->decides != 0 && plugin_decides(path, &relay->arrival[slot].ike, relay_now_s(relay))) {
        path->ask_again = false;
        return path_decide(listener, slot, path);
    }
    if (path->ask_again) {
        struct decision_request request = request_of(listener, slot, path);
        path_ask_again(path, &request);
        same = path_watched(path, &ref);
    }
    if (same)
        path_refresh(path, &ref);
    return path;
}

/* A server's answer to a client whose session's socket is closed or gone: at a client's port that is a wildcard's as
 * well, it comes to that listener. */
static bool is_server(const struct relay *relay, const struct hp_endpoint *client)
{
    for (uint32_t i = 0; i < relay->config->service_count; i++) {
        const struct topology_service *service = relay->services[i].topology;

        if (!service->config->transparent || client->port != service->config->server_port)
            continue;
        for (uint32_t j = 0; j < service->member_count; j++)
            if (endpoint_same_address(&relay->segment->servers[service->members[j].slot].address, client))
                return true;
    }
    return false;
}

static struct path *path_new(struct listener *listener, uint32_t slot)
{
    struct relay *relay = listener->lane->relay;
    struct flow flow = {
        .listener = listener, .client = &relay->arrival[slot].client, .local = &relay->arrival[slot].local};
    struct decision_request request = request_of(listener, slot, NULL);
    struct decision decision;

    if (is_server(relay, flow.client)) {
        flow_lost(&flow, LOSS_dropped_stranger);
        return NULL;
    }
    if (lane_is_full(listener->lane)) { /* before a record is made for nothing */
        flow_lost(&flow, LOSS_refused_sessions_full);
        return NULL;
    }
    decide(relay->decider, &request, &decision);
    if (decision.server >= 0)
        return path_begin(&flow, &decision, NULL);
    flow_refused(&flow, &decision);
    return NULL;
}

/* Where the session's own address and port cannot be had for good. While none of its addresses is on this machine it
 * keeps them: they may come back, and its port with them. */
static bool may_open_elsewhere(const struct path *path, int status)
{
    if (status == -ENXIO)
        return topology_has_source(path->lane->relay->topology, path->service->topology, path->row->server);
    if (row_transparent(path->row) && (status == -EPERM || status == -EACCES))
        return true; /* a reload, or a start, has taken `source: transparent` back */
    return status == -EADDRINUSE || status == -EAFNOSUPPORT;
}

/* Behind a hand-over. A stranger may sit on the port by now: then the session goes on from another one. */
static struct path *path_reopen(struct listener *listener, uint32_t slot, struct path *path)
{
    struct relay *relay = listener->lane->relay;
    const struct session_row *row = path->row;
    int status = path_open(path);

    if (status == 0)
        return path;
    if (status == -ENXIO)
        source_is_absent(relay, row->source);
    if (!may_open_elsewhere(path, status)) {
        path_refused(&(struct flow){listener, &row->client, NULL}, status);
        return NULL;
    }
    if (status != -ENXIO)
        relay_count(relay, COUNTER_cells_unbindable, 1);
    struct decision decision = {.server = row->server,
                                .reason = DECISION_RECORD,
                                .record = atomic_load_explicit(&row->record, memory_order_relaxed),
                                .watch = atomic_load_explicit(&row->watch, memory_order_relaxed),
                                .flags = atomic_load_explicit(&row->flags, memory_order_relaxed) & SESSION_NEW_FLOWS};
    return path_move(listener, slot, path, &decision);
}

static void path_queue(struct relay *relay, struct path *path, uint32_t slot)
{
    if (path->first == RELAY_NO_SLOT) {
        path->first = (uint8_t)slot;
        path->next = relay->sending;
        relay->sending = path;
    } else {
        relay->arrival[path->last].next = (uint8_t)slot;
    }
    path->last = (uint8_t)slot;
    path->count++;
}

/* Without IKE, a client that speaks again after the server's first answer counts as proven. */
static void path_heard(struct relay *relay, struct path *path)
{
    struct session_row *row = path->row;

    if (!path->service->config->ike && atomic_load_explicit(&row->server_ms, memory_order_relaxed) != 0)
        path_prove(path);
    atomic_store_explicit(&row->client_ms, relay->now_ms, memory_order_relaxed);
}

/* before: the path of the datagram before this one, NULL: none; most often of the same client. */
static struct path *arrival_take(struct listener *listener, uint32_t slot, struct path *before)
{
    struct relay *relay = listener->lane->relay;
    struct arrival *arrival = &relay->arrival[slot];
    const struct flow flow = {listener, &arrival->client, &arrival->local};
    struct path *path = before;

    if (path == NULL || !endpoint_equal(&arrival->client, &arrival[-1].client) ||
        !endpoint_same_address(&arrival->local, &arrival[-1].local))
        path = path_find(listener, arrival);
    if (relay->tracing && arrival->ike.kind == IKE_MESSAGE) /* before what becomes of it */
        trace_datagram(&flow, path, &arrival->ike, false);
    path = path == NULL ? path_new(listener, slot) : path_check(listener, slot, path);
    if (path != NULL && path->watched.fd < 0)
        path = path_reopen(listener, slot, path);
    if (path == NULL)
        return NULL;
    if (relay->tracing && arrival->ike.kind == IKE_ESP)
        trace_datagram(&flow, path, &arrival->ike, false);
    path_heard(relay, path);
    path->zone = arrival->local.scope;
    source_asked(path, &arrival->ike);
    path_queue(relay, path, slot);
    arrival->path = path;
    return path;
}

void udp_add(struct relay *relay, const struct path *path, const struct run_datagram *datagram)
{
    struct run_datagram added = *datagram;

    added.owner = path;
    added.family = (uint8_t)path->server.family;
    runs_add(&relay->runs, &added);
}

void udp_send_runs(struct relay *relay, struct path *path)
{
    struct run_result result;

    runs_send(&relay->runs, path->watched.fd, &result);
    row_add(&path->row->bytes_to_server, result.bytes);
    relay_count(relay, COUNTER_datagrams_to_servers, result.datagrams);
    relay_count(relay, COUNTER_bytes_to_servers, result.bytes);
    lane_lose(path->lane, LOSS_dropped_send_to_server, result.dropped);
    for (uint64_t i = 0; relay->tracing && i < result.dropped; i++)
        trace_loss(&(struct flow){path->listener, &path->row->client, NULL}, LOSS_dropped_send_to_server);
    relay_count(relay, COUNTER_icmp_errors, result.icmp_errors);
    relay_count(relay, COUNTER_resends, result.resends);
    relay_count(relay, COUNTER_gso_runs, result.gso_runs);
    if (result.dropped > 0)
        source_dropped(path);
}

/* All of it waits, or nothing: what waits already is before it. */
static void path_send(struct relay *relay, struct path *path, bool crowded)
{
    bool waits = path->backlog != NULL || (crowded && path->count > SHARE && backlog_has_room(relay));

    for (uint8_t slot = path->first; slot != RELAY_NO_SLOT; slot = relay->arrival[slot].next) {
        struct run_datagram datagram = {.data = batch_data(&relay->arrivals, slot),
                                        .size = batch_size(&relay->arrivals, slot),
                                        .mark = relay->arrival[slot].mark};
        if (!waits)
            udp_add(relay, path, &datagram);
        else if (!backlog_add(path, datagram.data, datagram.size, datagram.mark))
            relay->arrival[slot].path = NULL;
    }
    path->first = path->last = RELAY_NO_SLOT;
    path->count = 0;
    if (!waits)
        udp_send_runs(relay, path);
}

void udp_send_waiting(struct relay *relay, bool crowded)
{
    while (relay->sending != NULL) {
        struct path *path = relay->sending;
        relay->sending = path->next;
        path->next = NULL;
        path_send(relay, path, crowded);
    }
}

/* After the datagrams have gone out, or wait for their turn. A session that has moved on meanwhile is no longer to be
 * seen. */
static void arrivals_observe(struct listener *listener, uint32_t count)
{
    struct relay *relay = listener->lane->relay;

    for (uint32_t slot = 0; slot < count; slot++) {
        struct path *path = relay->arrival[slot].path;
        if (path == NULL || path->watched.fd < 0 || relay->arrival[slot].ike.kind != IKE_MESSAGE)
            continue;
        struct decision_request request = request_of(listener, slot, path);
        decider_observe(relay->decider, &request, HP_OBSERVE_IKE_CLIENT, path->row->server, ++path->sights);
    }
}

/* Who has little in the vector. Behind a full one more waits, most likely also of those. Where nobody has little,
 * nobody is helped by waiting. */
static void note_light(struct lane *lane, bool full)
{
    struct relay *relay = lane->relay;

    for (const struct path *path = relay->sending; path != NULL; path = path->next) {
        if (path->count > SHARE)
            continue;
        relay->light_ms = relay->now_ms;
        if (full)
            lane->crowd_ms = relay->now_ms;
    }
}

static bool is_recent(const struct relay *relay, uint64_t time_ms)
{
    return relay->now_ms - time_ms < RECENT_MS;
}

bool udp_read(struct listener *listener)
{
    struct relay *relay = listener->lane->relay;
    uint32_t limit = listener->one_speaks && is_recent(relay, relay->light_ms) ? ALONE : BATCH_SLOTS;
    int count = batch_receive(&relay->arrivals, listener->watched.fd, limit);
    bool full = count == (int)limit;
    struct path *before = NULL, *only;

    if (count < 0)
        return false;
    relay_count(relay, COUNTER_datagrams_from_clients, (uint64_t)count);
    for (uint32_t slot = 0; slot < (uint32_t)count; slot++)
        before = arrival_read(listener, slot) ? arrival_take(listener, slot, before) : NULL;
    only = full && relay->sending != NULL && relay->sending->next == NULL ? relay->sending : NULL;
    note_light(listener->lane, full);
    udp_send_waiting(relay, full && is_recent(relay, listener->lane->crowd_ms));
    listener->one_speaks = only != NULL && only->backlog == NULL;
    if ((listener->service->observes & HP_OBSERVE_IKE_CLIENT) != 0)
        arrivals_observe(listener, (uint32_t)count);
    batch_reset(&relay->arrivals);
    return full;
}
