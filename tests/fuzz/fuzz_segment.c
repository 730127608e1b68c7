/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile process's bytes in the segment: as a header that segment_map must judge, or anywhere behind a sound header,
 * where every reader must stay within the tables and come back, and so must who copies them into another capacity.
 *
 * Input: one octet (even: header, odd: body), four octets of offset, then the bytes, repeated over the records and rows
 * and written once at the offset. */
#include "segment/record.h"
#include "segment/session.h"
#include "segment/tables.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void header_make(struct segment_header *header, uint32_t records, uint32_t rows_per_lane)
{
    struct segment_tables tables;

    memset((void *)header, 0, sizeof *header);
    header->magic = SEGMENT_MAGIC;
    header->layout = SEGMENT_LAYOUT;
    header->lanes = 2;
    header->records = records;
    header->buckets = segment_bucket_count(records);
    header->sessions = 2 * rows_per_lane;
    header->rows_per_lane = rows_per_lane;
    segment_tables_plan(&tables, &segment_layout_present, header);
    header->size = tables.size;
}

static struct segment *map_or_abort(uint32_t records, uint32_t rows_per_lane)
{
    struct segment_header header;
    struct segment *segment = NULL;
    struct error error;
    int fd = memfd_create("segment", MFD_CLOEXEC);

    header_make(&header, records, rows_per_lane);
    if (fd < 0 || ftruncate(fd, (off_t)header.size) < 0 ||
        pwrite(fd, (const void *)&header, sizeof header, 0) != (ssize_t)sizeof header ||
        segment_map(&segment, fd, &error) < 0)
        abort();
    return segment;
}

static void try_header(const uint8_t *data, size_t size)
{
    const struct segment_layout *layout;
    struct segment_header header;
    struct error error;

    header_make(&header, 6, 4);
    memcpy((void *)&header, data, size < sizeof header ? size : sizeof header);
    if (segment_header_check(&header, header.size, &layout, &error) < 0)
        return;
    if (header.buckets == 0 || header.rows_per_lane == 0 || header.lanes > SEGMENT_LANES ||
        header.size < (uint64_t)header.buckets * layout->tables[TABLE_BUCKETS].size +
                          (uint64_t)header.lanes * header.rows_per_lane * layout->tables[TABLE_ROWS].size)
        abort(); /* believed, but its tables lie beyond its end */
}

static void read_records(struct segment *segment, const struct record_key *key, uint32_t number)
{
    struct record_origin origin = {.timeout_s = number, .client = {.family = 4}};
    struct record_ref ref = {0};
    uint32_t evicted;

    for (uint32_t i = 0; i < record_capacity(segment) + 2; i++) {
        struct record_view view;

        record_value(segment, i);
        if (record_read(segment, i, &view))
            record_expired(segment, &view.ref, number);
    }
    if (record_claim(segment, number % SEGMENT_PROCESSES, key, number % SEGMENT_SERVERS, &origin, number, number % 2,
                     &ref, &evicted) == RECORD_FULL)
        return;
    if (ref.index >= record_capacity(segment) || !record_find(segment, key, &ref))
        abort();
    record_touch(segment, &ref, number + 1);
    record_prove(segment, &ref);
    record_move(segment, &ref, 3, number);
    record_set_timeout(segment, &ref, 9);
    if (!record_delete(segment, &ref))
        abort();
}

static void read_tables(struct segment *segment, uint32_t number)
{
    struct hp_endpoint client = {.family = 4};
    uint32_t index = server_assign(segment, "vpn1", &client);

    if (index >= SEGMENT_SERVERS && index != SEGMENT_NO_INDEX)
        abort();
    server_probe_assign(segment, index, 17, 500);
    server_set_down(segment, index, number % 20, true);
    server_set_state(segment, index, SERVER_DRAIN, true);
    service_assign(segment, "ike");
    profile_assign(segment, "kemp");
    pool_assign(segment, "rras");
    for (uint32_t i = 0; i < segment->lane_count * segment->rows_per_lane; i++) {
        struct session_row row;

        session_read(&segment->rows[i], &row);
    }
    drop_read(segment, number, &client);
    drop_read(segment, drop_post(segment, &client), &client);
    process_end(segment, number % 300);
    process_end(segment, process_begin(segment, PROCESS_WORKER, 0));
    counter_total(segment, (enum counter)(number % COUNTER_COUNT));
}

/* The next start, with fewer or more records and sessions: what it makes of these bytes is sound. */
static void copy(const struct segment *segment, bool raised)
{
    static struct segment *targets[2];
    struct segment *to = targets[raised];
    struct segment_carried carried;
    struct error error;

    if (to == NULL)
        to = targets[raised] = raised ? map_or_abort(60, 9) : map_or_abort(6, 1);
    memset((void *)to->buckets, 0, to->bucket_count * sizeof *to->buckets);
    if (segment_copy(to, segment->fd, segment->header, &segment_layout_present, &carried, &error) < 0 ||
        carried.records > carried.records_found || carried.sessions > carried.sessions_found)
        abort();
    for (uint32_t i = 0; i < to->lane_count * to->rows_per_lane; i++) {
        uint32_t record = atomic_load(&to->rows[i].record);

        if (session_is_live(&to->rows[i]) && record != SEGMENT_NO_INDEX && record >= record_capacity(to))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct segment *segment;
    struct record_key key = {.fingerprint = {0, 0}};
    uint32_t offset;
    uint8_t *body;
    size_t length, tail;

    if (size < 6)
        return 0;
    if (data[0] % 2 == 0) {
        try_header(data + 1, size - 1);
        return 0;
    }
    if (segment == NULL)
        segment = map_or_abort(6, 4);
    memcpy(&offset, data + 1, sizeof offset);
    data += 5;
    size -= 5;
    body = (uint8_t *)(void *)segment->header + SEGMENT_PAGE;
    length = segment->size - SEGMENT_PAGE;
    tail = segment->size - (size_t)((uint8_t *)(void *)segment->buckets - (uint8_t *)(void *)segment->header);
    memset(body, 0, length - tail);
    for (size_t i = 0; i < tail; i++)
        body[length - tail + i] = data[i % size];
    offset %= (uint32_t)length;
    memcpy(body + offset, data, size < length - offset ? size : length - offset);
    memcpy(key.fingerprint, data, size < sizeof key.fingerprint ? size : sizeof key.fingerprint);
    copy(segment, offset % 2);
    read_records(segment, &key, offset);
    read_tables(segment, offset);
    return 0;
}
