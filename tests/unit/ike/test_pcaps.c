/* SPDX-License-Identifier: Apache-2.0 */
/* Real traffic: every UDP datagram on ports 500 and 4500 of every capture in the folder $HOMEPORT_PCAPS. */
#include "claims.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    if (link == DLT_EN10MB && size >= 18)
        return read16(frame + 12) == 0x8100 ? 18 : 14;
    return size;
}

/* True when the frame holds a whole UDP datagram of IKE over IPv4 or IPv6. */
static bool frame_is_ike(const uint8_t *ip, size_t size, const uint8_t **data, size_t *data_size)
{
    size_t head, length;
    bool four = size >= 20 && ip[0] >> 4 == 4;

    if (!four && !(size >= 40 && ip[0] >> 4 == 6))
        return false;
    head = four ? (size_t)(ip[0] & 15) * 4 : 40;
    if ((four ? ip[9] : ip[6]) != 17 || (four && (read16(ip + 6) & 0x1fff) != 0) || size < head + 8)
        return false;
    length = read16(ip + head + 4);
    if (length < 8 || length > size - head)
        return false;
    *data = ip + head + 8;
    *data_size = length - 8;
    for (size_t port = 0; port < 4; port += 2)
        if (read16(ip + head + port) == 500 || read16(ip + head + port) == 4500)
            return true;
    return false;
}

static size_t capture_read(const char *path)
{
    char error[PCAP_ERRBUF_SIZE];
    pcap_t *capture = pcap_open_offline(path, error);
    struct pcap_pkthdr *head;
    const uint8_t *frame, *data;
    size_t datagrams = 0, size;

    cr_assert_not_null(capture, "%s: %s", path, error);
    while (pcap_next_ex(capture, &head, &frame) == 1) {
        size_t offset = ip_offset(pcap_datalink(capture), frame, head->caplen);
        if (offset < head->caplen && frame_is_ike(frame + offset, head->caplen - offset, &data, &size)) {
            claims_hold(data, size);
            datagrams++;
        }
    }
    pcap_close(capture);
    return datagrams;
}

static bool is_capture(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot != NULL && (strcmp(dot, ".pcap") == 0 || strcmp(dot, ".pcapng") == 0);
}

static size_t folder_read(const char *path, int depth)
{
    size_t datagrams = 0;
    DIR *folder = opendir(path);

    cr_assert_not_null(folder, "%s", path);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char below[4096];
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' && depth > 0)
            datagrams += folder_read(below, depth - 1);
        else if (is_capture(entry->d_name))
            datagrams += capture_read(below);
    }
    closedir(folder);
    return datagrams;
}

/* Without the folder there is no such traffic here: test_corpus.c reads the tree's own. */
Test(pcaps, claims_hold_for_every_captured_datagram)
{
    const char *folder = getenv("HOMEPORT_PCAPS");

    if (folder != NULL)
        cr_assert_gt(folder_read(folder, 3), 0, "no IKE in %s", folder);
}
