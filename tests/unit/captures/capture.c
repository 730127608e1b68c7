/* SPDX-License-Identifier: Apache-2.0 */
#include "capture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <pcap/pcap.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define FRAGMENTED 8u /* datagrams that are put together at one time */
#define DATAGRAM 65536u

struct pieces {      /* of one datagram */
    uint8_t key[12]; /* identification, addresses */
    bool used;
    size_t have, size; /* size 0: its end has not come yet */
    uint8_t data[DATAGRAM];
};

static uint16_t read16(const uint8_t *data)
{
    return (uint16_t)(data[0] << 8 | data[1]);
}

/* Where IP begins behind the link layer, or size when the frame is not IP. */
static size_t ip_offset(int link, const uint8_t *frame, size_t size)
{
    if (link == DLT_RAW)
        return 0;
    if (link == DLT_NULL)
        return 4;
    if (link == DLT_LINUX_SLL)
        return 16;
    if (link == DLT_LINUX_SLL2)
        return 20;
    if (link == DLT_EN10MB && size >= 18)
        return read16(frame + 12) == 0x8100 ? 18 : 14;
    return size;
}

static struct pieces *pieces_of(struct pieces pieces[FRAGMENTED], const uint8_t *ip)
{
    static uint32_t next;
    struct pieces *one;
    uint8_t key[12];

    memcpy(key, ip + 4, 2);
    memcpy(key + 2, ip + 12, 8);
    memcpy(key + 10, ip + 9, 1);
    key[11] = 0;
    for (uint32_t i = 0; i < FRAGMENTED; i++)
        if (pieces[i].used && memcmp(pieces[i].key, key, sizeof key) == 0)
            return &pieces[i];
    one = &pieces[next++ % FRAGMENTED];
    one->have = one->size = 0;
    one->used = true;
    memcpy(one->key, key, sizeof key);
    return one;
}

/* The whole payload of an IPv4 packet; false: not all of it has come. */
static bool reassemble(struct pieces pieces[FRAGMENTED], const uint8_t *ip, const uint8_t **payload, size_t *size)
{
    uint16_t where = read16(ip + 6);
    size_t offset = (size_t)(where & 0x1fff) * 8;
    struct pieces *one;

    if ((where & 0x3fff) == 0)
        return true;
    one = pieces_of(pieces, ip);
    if (offset + *size > DATAGRAM)
        return false;
    memcpy(one->data + offset, *payload, *size);
    one->have += *size;
    if ((where & 0x2000) == 0)
        one->size = offset + *size;
    if (one->size == 0 || one->have < one->size)
        return false;
    *payload = one->data;
    *size = one->size;
    one->used = false;
    return true;
}

static void endpoint_read(struct hp_endpoint *out, const uint8_t *address, bool four, uint16_t port)
{
    *out = (struct hp_endpoint){.family = four ? 4 : 6, .port = port};
    memcpy(out->address, address, four ? 4 : 16);
}

static bool is_ike_port(uint16_t port)
{
    return port == 500 || port == 4500;
}

/* True when the packet completes a datagram to or from an IKE port. */
static bool packet_read(struct pieces pieces[FRAGMENTED], const uint8_t *ip, size_t size, struct captured *out)
{
    bool four = size >= 20 && ip[0] >> 4 == 4;
    const uint8_t *udp;
    size_t head, length;

    if (!four && !(size >= 40 && ip[0] >> 4 == 6))
        return false;
    head = four ? (size_t)(ip[0] & 15) * 4 : 40;
    if ((four ? ip[9] : ip[6]) != 17 || size <= head)
        return false;
    length = four ? read16(ip + 2) : head + read16(ip + 4); /* without what Ethernet pads */
    udp = ip + head;
    size = (length > head && length < size ? length : size) - head;
    if ((four && !reassemble(pieces, ip, &udp, &size)) || size < 8 || read16(udp + 4) < 8 || read16(udp + 4) > size)
        return false;
    endpoint_read(&out->from, four ? ip + 12 : ip + 8, four, read16(udp));
    endpoint_read(&out->to, four ? ip + 16 : ip + 24, four, read16(udp + 2));
    out->data = udp + 8;
    out->size = read16(udp + 4) - 8u;
    return is_ike_port(out->from.port) || is_ike_port(out->to.port);
}

size_t capture_read(const char *path, capture_visit *visit, void *arg)
{
    static struct pieces pieces[FRAGMENTED];
    char error[PCAP_ERRBUF_SIZE];
    pcap_t *capture = pcap_open_offline(path, error);
    struct pcap_pkthdr *head;
    struct captured datagram;
    const uint8_t *frame;
    size_t datagrams = 0;

    cr_assert_not_null(capture, "%s: %s", path, error);
    for (uint32_t i = 0; i < FRAGMENTED; i++)
        pieces[i].used = false;
    while (pcap_next_ex(capture, &head, &frame) == 1) {
        size_t offset = ip_offset(pcap_datalink(capture), frame, head->caplen);

        if (offset >= head->caplen || !packet_read(pieces, frame + offset, head->caplen - offset, &datagram))
            continue;
        visit(arg, &datagram);
        datagrams++;
    }
    pcap_close(capture);
    return datagrams;
}

static bool is_capture(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot != NULL && (strcmp(dot, ".pcap") == 0 || strcmp(dot, ".pcapng") == 0);
}

size_t captures_find(const char *folder, void (*found)(void *arg, const char *path), void *arg)
{
    DIR *directory = opendir(folder);
    size_t count = 0;

    cr_assert_not_null(directory, "%s", folder);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char below[4096];

        snprintf(below, sizeof below, "%s/%s", folder, entry->d_name);
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
            count += captures_find(below, found, arg);
        } else if (is_capture(entry->d_name)) {
            found(arg, below);
            count++;
        }
    }
    closedir(directory);
    return count;
}
