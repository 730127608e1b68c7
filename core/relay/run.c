/* SPDX-License-Identifier: Apache-2.0 */
/* Sending runs. Happy path: datagrams are added, those that fit form runs, one sendmmsg takes them all
 * (or one send the only one).
 * Fails: EIO               the device cannot compute checksums of segments: no run any more, this one singly
 *        EINVAL, EMSGSIZE  this run does not fit the path (or the socket sends no checksums): this one singly
 *        an ICMP error     an earlier datagram's; it has eaten this call: it is cleared, each datagram goes once more
 *        anything else     the datagrams of this run are dropped and counted; the next run is tried */
#include "relay/run.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

/* From so many datagrams on UDP_SEGMENT costs less than a datagram each, in one sendmmsg too: at 1,400 octets 2,843
 * against 3,022 ns a datagram for two, 1,538 against 1,871 for eight, cut up before the wire (docs/performance.md). */
#define RUN_LEAST 2u
#define RUN_ATTEMPTS 3u /* at one datagram: several ICMP messages may be on their way back */

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static void *control_add(struct msghdr *header, uint8_t *control, int level, int type, size_t size)
{
    struct cmsghdr *message = (struct cmsghdr *)(void *)(control + header->msg_controllen);

    header->msg_control = control;
    header->msg_controllen += CMSG_SPACE(size);
    memset(message, 0, CMSG_SPACE(size));
    message->cmsg_level = level;
    message->cmsg_type = type;
    message->cmsg_len = CMSG_LEN(size);
    return CMSG_DATA(message);
}

/* RFC 3948 section 2.1 and every NAT on the way: an answer comes from where the question went. */
static void control_add_from(struct msghdr *header, uint8_t *control, const struct hp_endpoint *from)
{
    if (from->family == 4) {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, from->address, 4);
        memcpy(control_add(header, control, IPPROTO_IP, IP_PKTINFO, sizeof info), &info, sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_ifindex = from->scope};
        memcpy(&info.ipi6_addr, from->address, 16);
        memcpy(control_add(header, control, IPPROTO_IPV6, IPV6_PKTINFO, sizeof info), &info, sizeof info);
    }
}

/* No message for the socket's own value: with one, a connected socket looks for its route each time. */
static void control_add_mark(struct msghdr *header, uint8_t *control, const struct run_datagram *datagram)
{
    int mark = datagram->mark;
    bool six = datagram->family == 6;

    if (mark != 0)
        memcpy(control_add(header, control, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_TCLASS : IP_TOS, sizeof mark),
               &mark, sizeof mark);
}

static bool run_takes(const struct runs *runs, const struct run *run, const struct run_datagram *datagram)
{
    return !runs->no_segments && runs->owner == datagram->owner && run->mark == datagram->mark && datagram->size > 0 &&
           datagram->size <= run->segment && run->bytes == run->count * run->segment && /* no shorter one inside */
           run->bytes + datagram->size <= RUN_BYTES;
}

void runs_add(struct runs *runs, const struct run_datagram *datagram)
{
    struct run *run = runs->count > 0 ? &runs->runs[runs->count - 1] : NULL;
    struct iovec *iov = &runs->iov[runs->datagrams];

    *iov = (struct iovec){.iov_base = (void *)(uintptr_t)datagram->data, .iov_len = datagram->size};
    if (run == NULL || !run_takes(runs, run, datagram)) {
        struct msghdr *header = &runs->headers[runs->count].msg_hdr;
        run = &runs->runs[runs->count];
        *run = (struct run){.first = runs->datagrams, .segment = datagram->size, .mark = datagram->mark};
        *header = (struct msghdr){.msg_name = datagram->name, .msg_namelen = datagram->name_size, .msg_iov = iov};
        if (datagram->from != NULL)
            control_add_from(header, runs->control[runs->count], datagram->from);
        control_add_mark(header, runs->control[runs->count], datagram);
        run->control = header->msg_controllen;
        runs->owner = datagram->owner;
        runs->count++;
    }
    run->count++;
    run->bytes += datagram->size;
    runs->datagrams++;
}

static void runs_mark_segments(struct runs *runs)
{
    for (uint32_t i = 0; i < runs->count; i++) {
        struct msghdr *header = &runs->headers[i].msg_hdr;
        header->msg_iovlen = runs->runs[i].count;
        if (runs->runs[i].count >= RUN_LEAST) {
            uint16_t segment = (uint16_t)runs->runs[i].segment;
            memcpy(control_add(header, runs->control[i], IPPROTO_UDP, UDP_SEGMENT, sizeof segment), &segment,
                   sizeof segment);
        }
    }
}

/* What an ICMP message leaves on a connected socket, or what a missing route says at once. */
static bool is_icmp_error(int code)
{
    return code == ECONNREFUSED || code == EHOSTUNREACH || code == ENETUNREACH || code == EHOSTDOWN ||
           code == ENETDOWN || code == ENONET || code == EPROTO || code == ENOPROTOOPT || code == EOPNOTSUPP ||
           code == EACCES;
}

static void clear_error(int fd)
{
    int code;
    socklen_t size = sizeof code;

    (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size);
}

/* eaten: how often an ICMP error has eaten the call already. That it was one shows only when the datagram goes at last:
 * where there is no route, nothing goes. */
static bool send_one(int fd, const struct msghdr *header, uint32_t eaten, struct run_result *result)
{
    for (;;) {
        if (sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
            result->icmp_errors += eaten;
            result->resends += eaten > 0;
            return true;
        }
        if (errno == EINTR)
            continue;
        if (++eaten == RUN_ATTEMPTS || !is_icmp_error(errno))
            return false;
        clear_error(fd);
    }
}

static void drop(struct run_result *result, uint32_t position)
{
    result->dropped++;
    result->dropped_mask |= UINT64_C(1) << position;
}

/* Each datagram of a run that did not leave, on its own. The first one may already have been eaten once. */
static void send_singly(struct runs *runs, uint32_t position, int fd, bool eaten, struct run_result *result)
{
    const struct run *run = &runs->runs[position];
    struct msghdr header = runs->headers[position].msg_hdr;

    header.msg_controllen = run->control;
    if (run->control == 0)
        header.msg_control = NULL;
    header.msg_iovlen = 1;
    for (uint32_t i = 0; i < run->count; i++) {
        header.msg_iov = &runs->iov[run->first + i];
        if (send_one(fd, &header, eaten && i == 0, result)) {
            result->datagrams++;
            result->bytes += header.msg_iov->iov_len;
        } else {
            drop(result, run->first + i);
        }
    }
}

static void run_failed(struct runs *runs, uint32_t position, int fd, int code, struct run_result *result)
{
    struct run *run = &runs->runs[position];
    bool segments = run->count >= RUN_LEAST && (code == EIO || code == EINVAL || code == EMSGSIZE);

    if (segments) {
        if (code == EIO)
            runs->no_segments = true;
        send_singly(runs, position, fd, false, result);
    } else if (is_icmp_error(code)) {
        clear_error(fd);
        send_singly(runs, position, fd, true, result);
    } else {
        for (uint32_t i = 0; i < run->count; i++)
            drop(result, run->first + i);
    }
}

/* One datagram for a connected socket: with many flows that is nearly every call, and the kernel has less to look at.
 */
static int send_plainly(const struct runs *runs, int fd)
{
    return send(fd, runs->iov[0].iov_base, runs->iov[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 1;
}

static bool is_plain(const struct runs *runs)
{
    return runs->datagrams == 1 && runs->headers[0].msg_hdr.msg_name == NULL && runs->runs[0].control == 0;
}

void runs_send(struct runs *runs, int fd, struct run_result *result)
{
    bool plain = is_plain(runs);
    uint32_t done = 0;

    *result = (struct run_result){0};
    runs_mark_segments(runs);
    while (done < runs->count) {
        int sent = plain ? send_plainly(runs, fd)
                         : sendmmsg(fd, runs->headers + done, runs->count - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent <= 0) {
            if (errno != EINTR)
                run_failed(runs, done++, fd, errno, result);
            continue;
        }
        for (; sent > 0; sent--, done++) {
            result->datagrams += runs->runs[done].count;
            result->bytes += runs->runs[done].bytes;
            result->gso_runs += runs->runs[done].count >= RUN_LEAST;
        }
    }
    runs->count = runs->datagrams = 0;
    runs->owner = NULL;
}
