/* SPDX-License-Identifier: Apache-2.0 */
/* Mapping: the header is read once, checked, and its numbers are copied into the process's own struct segment. From
 * then on nobody looks at the header's numbers again, because a hostile process may change them at any time. */
#include "segment/segment.h"
#include "segment/tables.h"
#include "segment/words.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int segment_header_read(struct segment_header *out, int fd, struct error *error)
{
    ssize_t size;

    do
        size = pread(fd, (void *)out, sizeof *out, 0);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        return error_set(error, -errno, "it cannot be read: %s", strerror(errno));
    if ((size_t)size < sizeof *out)
        return error_set(error, -EINVAL, "it is cut off within its header");
    return 0;
}

int segment_header_check(const struct segment_header *header, uint64_t file_size, const struct segment_layout **layout,
                         struct error *error)
{
    struct segment_tables tables;

    if (header->magic != SEGMENT_MAGIC)
        return error_set(error, -EINVAL, "it is no segment, or damaged");
    *layout = segment_layout_find(header->layout);
    if (*layout == NULL)
        return error_set(error, -EINVAL, "it has layout %u, this version works with layout %u and copies layout %u",
                         header->layout, SEGMENT_LAYOUT, SEGMENT_LAYOUT - 1);
    if (header->lanes == 0 || header->lanes > SEGMENT_LANES || (header->lanes & (header->lanes - 1)) != 0)
        return error_set(error, -EINVAL, "it is damaged (%u lanes)", header->lanes);
    if (header->records == 0 || header->records > SEGMENT_CAPACITY_MAX ||
        header->buckets != segment_bucket_count(header->records))
        return error_set(error, -EINVAL, "it is damaged (%u records in %u buckets)", header->records, header->buckets);
    if (header->sessions == 0 || header->sessions > SEGMENT_CAPACITY_MAX ||
        header->sessions != (uint64_t)header->rows_per_lane * header->lanes)
        return error_set(error, -EINVAL, "it is damaged (%u sessions in rows of %u)", header->sessions,
                         header->rows_per_lane);
    segment_tables_plan(&tables, *layout, header);
    if (header->size != tables.size)
        return error_set(error, -EINVAL, "it is damaged (a size of %llu octets)", (unsigned long long)header->size);
    if (file_size != tables.size)
        return error_set(error, -EINVAL, "it is %llu octets long instead of %zu", (unsigned long long)file_size,
                         tables.size);
    return 0;
}

static void tables_attach(struct segment *self, char *base, const struct segment_header *checked)
{
    struct segment_tables tables;

    segment_tables_plan(&tables, &segment_layout_present, checked);
    self->header = (void *)base;
    self->processes = (void *)(base + tables.at[TABLE_PROCESSES]);
    self->servers = (void *)(base + tables.at[TABLE_SERVERS]);
    self->pools = (void *)(base + tables.at[TABLE_POOLS]);
    self->services = (void *)(base + tables.at[TABLE_SERVICES]);
    self->profiles = (void *)(base + tables.at[TABLE_PROFILES]);
    self->lanes = (void *)(base + tables.at[TABLE_LANES]);
    self->drops = (void *)(base + tables.at[TABLE_DROPS]);
    self->sources = (void *)(base + tables.at[TABLE_SOURCES]);
    self->loads = (void *)(base + tables.at[TABLE_LOADS]);
    self->traces = (void *)(base + tables.at[TABLE_TRACES]);
    self->buckets = (void *)(base + tables.at[TABLE_BUCKETS]);
    self->rows = (void *)(base + tables.at[TABLE_ROWS]);
    self->tuples = (void *)(base + tables.at[TABLE_TUPLES]);
    self->tuple_count = segment_tuple_count(checked->lanes, checked->rows_per_lane);
    self->lane_count = checked->lanes;
    self->bucket_count = checked->buckets;
    self->rows_per_lane = checked->rows_per_lane;
    self->size = tables.size;
}

/* As segment_header_check, of the present layout alone. */
static int header_check_present(const struct segment_header *header, uint64_t file_size, struct error *error)
{
    const struct segment_layout *layout = NULL;
    int code = segment_header_check(header, file_size, &layout, error);

    if (code == 0 && layout != &segment_layout_present)
        return error_set(error, -EINVAL, "it has layout %u, this version works with layout %u", header->layout,
                         SEGMENT_LAYOUT);
    return code;
}

int segment_map(struct segment **out, int fd, struct error *error)
{
    struct segment_header header;
    struct segment *self;
    struct stat status;
    void *base;
    int code;

    if (fstat(fd, &status) < 0) {
        code = error_set(error, -errno, "cannot map the segment: %s", strerror(errno));
        goto fail_check;
    }
    code = segment_header_read(&header, fd, error);
    if (code == 0)
        code = header_check_present(&header, (uint64_t)status.st_size, error);
    if (code < 0) {
        error_under(error, "cannot map the segment");
        goto fail_check;
    }
    self = calloc(1, sizeof *self);
    if (self == NULL) {
        code = error_set(error, -ENOMEM, "no memory to map the segment");
        goto fail_check;
    }
    base = mmap(NULL, header.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        code = error_set(error, -errno, "cannot map the segment's %llu octets: %s", (unsigned long long)header.size,
                         strerror(errno));
        error_next(error, "allow more memory, or lower affinity.capacity or sessions.capacity");
        goto fail_map;
    }
    tables_attach(self, base, &header);
    memcpy((void *)&self->checked, (const void *)&header, sizeof header);
    self->fd = fd;
    *out = self;
    return 0;

fail_map:
    free(self);
fail_check:
    close(fd);
    return code;
}

void segment_header_restore(struct segment *segment)
{
    words_store(segment->header, &segment->checked, offsetof(struct segment_header, created_ms));
}

void segment_close(struct segment *segment)
{
    if (segment == NULL)
        return;
    munmap(segment->header, segment->size);
    if (segment->fd >= 0)
        close(segment->fd);
    free(segment);
}
