/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, as the master does before any other process lives.
 * - Found and fit: its room is made sure of, the process slots of the last life are ended, everything else is kept.
 * - Found and unfit (another boot, layout or capacity, damaged): a new one is made whole as segment.new first, then the
 *   old one becomes segment.old, then the new one gets the name. No room for the new one leaves the old one alone.
 * - Not found: made in the same way. A crash on the way leaves a segment.new, which the next start removes.
 * - Processes live that use it (segment_adopt): as it is, or not at all.
 * - Not ours, a symlink, writable by others: an error; nothing is touched. */
#include "base/clock.h"
#include "base/hash.h"
#include "segment/segment.h"
#include "segment/tables.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "segment"
#define FILE_NEW "segment.new"
#define FILE_OLD "segment.old"

/* The directory's path, for messages. */
static const char *directory_path(int directory, char path[PATH_MAX])
{
    char link[64];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return "the state folder";
    path[length] = '\0';
    return path;
}

static int shape_check(const struct segment_shape *shape, struct error *error)
{
    if (shape->records == 0 || shape->records > SEGMENT_CAPACITY_MAX)
        return error_set(error, -EINVAL, "affinity.capacity must lie between 1 and %u", SEGMENT_CAPACITY_MAX);
    if (shape->sessions == 0 || shape->sessions > SEGMENT_CAPACITY_MAX - SEGMENT_LANES)
        return error_set(error, -EINVAL, "sessions.capacity must lie between 1 and %u",
                         SEGMENT_CAPACITY_MAX - SEGMENT_LANES);
    if (shape->lanes == 0 || shape->lanes > SEGMENT_LANES || (shape->lanes & (shape->lanes - 1)) != 0)
        return error_set(error, -EINVAL, "the number of lanes must be a power of two up to %u, not %u", SEGMENT_LANES,
                         shape->lanes);
    return 0;
}

static int open_failed(int directory, struct error *error)
{
    int code = -errno;
    char path[PATH_MAX];

    if (code == -ELOOP) {
        error_set(error, -EPERM, "%s/" FILE_NAME " is a symbolic link", directory_path(directory, path));
        return error_next(error, "remove it");
    }
    return error_set(error, code, "cannot open %s/" FILE_NAME ": %s", directory_path(directory, path), strerror(-code));
}

static int owner_check(int directory, const struct stat *status, struct error *error)
{
    char path[PATH_MAX];

    if (!S_ISREG(status->st_mode))
        error_set(error, -EPERM, "%s/" FILE_NAME " is no regular file", directory_path(directory, path));
    else if (status->st_uid != geteuid())
        error_set(error, -EPERM, "%s/" FILE_NAME " belongs to user %u, not to %u who runs this",
                  directory_path(directory, path), (unsigned)status->st_uid, (unsigned)geteuid());
    else if ((status->st_mode & 022) != 0)
        error_set(error, -EPERM, "%s/" FILE_NAME " can be written by others (mode %04o)",
                  directory_path(directory, path), (unsigned)status->st_mode & 07777);
    else
        return 0;
    return error_next(error, "find out who put it there, then remove it");
}

/* *fd -1: there is none. *size: octets of the one that is there. */
static int found_open(int *fd, uint64_t *size, int directory, struct error *error)
{
    struct stat status;
    int code;

    *fd = openat(directory, FILE_NAME, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0 && errno == ENOENT)
        return 0;
    if (*fd < 0)
        return open_failed(directory, error);
    if (fstat(*fd, &status) < 0)
        code = open_failed(directory, error);
    else
        code = owner_check(directory, &status, error);
    *size = (uint64_t)status.st_size;
    if (code < 0)
        close(*fd);
    return code;
}

/* Is it whole, of this layout and this boot? -EINVAL: why->what says why not. */
static int found_is_sound(struct segment_header *header, int fd, uint64_t size, const uint8_t boot_id[16],
                          struct error *why)
{
    int code = segment_header_read(header, fd, why);

    if (code == 0)
        code = segment_header_check(header, size, why);
    if (code == 0 && memcmp(header->boot_id, boot_id, sizeof header->boot_id) != 0)
        code = error_set(why, -EINVAL, "it is of another boot of this machine, so its times mean nothing now");
    return code;
}

/* Can this run go on with it? -EINVAL: why->what says why not. */
static int found_is_fit(int fd, uint64_t size, const struct segment_shape *shape, const uint8_t boot_id[16],
                        struct error *why)
{
    struct segment_header header;
    int code = found_is_sound(&header, fd, size, boot_id, why);

    if (code < 0)
        return code;
    if (header.records != shape->records)
        return error_set(why, -EINVAL, "it was made for affinity.capacity %u, now it is %u", header.records,
                         shape->records);
    if (header.rows_per_lane != segment_rows_per_lane(shape->sessions, header.lanes))
        return error_set(why, -EINVAL, "it was made for sessions.capacity %u, now it is %u", header.sessions,
                         shape->sessions);
    return 0;
}

static int no_room(int directory, int code, uint64_t size, struct error *error)
{
    char path[PATH_MAX];

    if (code != -ENOSPC && code != -EDQUOT && code != -EFBIG)
        return error_set(error, code, "cannot allocate the segment in %s: %s", directory_path(directory, path),
                         strerror(-code));
    error_set(error, code, "no room for the segment: it needs %llu KiB in %s: %s", (unsigned long long)size / 1024,
              directory_path(directory, path), strerror(-code));
    return error_next(error, "make room there (a %s may be removed), or lower affinity.capacity or sessions.capacity",
                      FILE_OLD);
}

static int header_write(int fd, const struct segment_header *header, struct error *error)
{
    ssize_t size = pwrite(fd, (const void *)header, sizeof *header, 0);

    if (size == (ssize_t)sizeof *header)
        return 0;
    return error_set(error, size < 0 ? -errno : -EIO, "cannot write the segment: %s",
                     size < 0 ? strerror(errno) : "cut off");
}

static void header_fill(struct segment_header *header, const struct segment_shape *shape, const uint8_t boot_id[16])
{
    struct segment_tables tables;

    memset((void *)header, 0, sizeof *header);
    header->magic = SEGMENT_MAGIC;
    header->layout = SEGMENT_LAYOUT;
    header->lanes = shape->lanes;
    memcpy(header->boot_id, boot_id, sizeof header->boot_id);
    hash_random(header->secret, sizeof header->secret);
    header->records = shape->records;
    header->buckets = segment_bucket_count(shape->records);
    header->rows_per_lane = segment_rows_per_lane(shape->sessions, shape->lanes);
    header->sessions = header->rows_per_lane * shape->lanes;
    segment_tables_plan(&tables, header->lanes, header->buckets, header->rows_per_lane);
    header->size = tables.size;
    header->created_ms = clock_now_ms();
}

/* Makes it whole under its temporary name. On failure nothing is left behind. */
static int new_make(int *out, int directory, const struct segment_header *header, struct error *error)
{
    char path[PATH_MAX];
    int fd, code;

    if (unlinkat(directory, FILE_NEW, 0) < 0 && errno != ENOENT)
        return error_set(error, -errno, "cannot remove %s/" FILE_NEW ": %s", directory_path(directory, path),
                         strerror(errno));
    fd = openat(directory, FILE_NEW, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(error, -errno, "cannot create %s/" FILE_NEW ": %s", directory_path(directory, path),
                         strerror(errno));
    code = -posix_fallocate(fd, 0, (off_t)header->size);
    if (code < 0)
        code = no_room(directory, code, header->size, error);
    else
        code = header_write(fd, header, error);
    if (code < 0) {
        close(fd);
        unlinkat(directory, FILE_NEW, 0);
        return code;
    }
    *out = fd;
    return 0;
}

/* Ends whatever bears the name of a process that is dead, or of its reservations and lanes. alive NULL: none lives. */
static void last_life_end(struct segment *segment, const bool alive[SEGMENT_PROCESSES])
{
    for (uint32_t i = 0; i < SEGMENT_PROCESSES; i++)
        if (alive == NULL || !alive[i])
            process_end(segment, i);
    for (uint32_t i = 0; i < SEGMENT_LANES; i++) {
        uint32_t holder = atomic_load_explicit(&segment->lanes[i].holder, memory_order_relaxed);

        if (alive == NULL || holder >= SEGMENT_PROCESSES || !alive[holder])
            atomic_store_explicit(&segment->lanes[i].holder, SEGMENT_NO_INDEX, memory_order_relaxed);
    }
}

static int segment_reuse(struct segment **out, int fd, int directory, uint64_t size, struct error *error)
{
    int code = -posix_fallocate(fd, 0, (off_t)size); /* it may have been copied with holes */

    if (code < 0) {
        close(fd);
        return no_room(directory, code, size, error);
    }
    code = segment_map(out, fd, error);
    if (code == 0)
        last_life_end(*out, NULL);
    return code;
}

static int old_put_aside(int directory, const struct error *why, struct log *log, struct error *error)
{
    char path[PATH_MAX];

    if (renameat(directory, FILE_NAME, directory, FILE_OLD) < 0)
        return error_set(error, -errno, "cannot rename %s/" FILE_NAME " to " FILE_OLD ": %s",
                         directory_path(directory, path), strerror(errno));
    log_write(log, LOG_WARNING,
              "the segment of the last run is put aside as %s/" FILE_OLD ": %s; records and sessions"
              " begin anew",
              directory_path(directory, path), why->what);
    return 0;
}

int segment_adopt(struct segment **out, int directory, const bool alive[SEGMENT_PROCESSES], struct error *error)
{
    struct segment_header header;
    uint64_t size = 0;
    uint8_t boot_id[16];
    int fd, code = clock_boot_id(boot_id);

    if (code < 0)
        return error_set(error, code, "cannot read this boot's id: %s", strerror(-code));
    code = found_open(&fd, &size, directory, error);
    if (code < 0)
        return code;
    if (fd < 0)
        return error_set(error, -EINVAL, "the segment is not there");
    code = found_is_sound(&header, fd, size, boot_id, error);
    if (code < 0) {
        close(fd);
        return error_under(error, "the segment");
    }
    code = segment_map(out, fd, error);
    if (code == 0)
        last_life_end(*out, alive);
    return code;
}

int segment_open(struct segment **out, int directory, const struct segment_shape *shape, struct log *log,
                 struct error *error)
{
    struct segment_header header;
    struct segment *segment;
    struct error why = {0};
    uint64_t size = 0;
    uint8_t boot_id[16];
    bool unfit = false;
    int fd, code = shape_check(shape, error);

    if (code < 0)
        return code;
    code = clock_boot_id(boot_id);
    if (code < 0)
        return error_set(error, code, "cannot read this boot's id: %s", strerror(-code));
    code = found_open(&fd, &size, directory, error);
    if (code < 0)
        return code;
    if (fd >= 0) {
        if (found_is_fit(fd, size, shape, boot_id, &why) == 0)
            return segment_reuse(out, fd, directory, size, error);
        close(fd);
        unfit = true;
    }
    header_fill(&header, shape, boot_id);
    code = new_make(&fd, directory, &header, error);
    if (code < 0)
        return code;
    code = segment_map(&segment, fd, error);
    if (code < 0)
        goto fail_map;
    last_life_end(segment, NULL);
    if (unfit) {
        code = old_put_aside(directory, &why, log, error);
        if (code < 0)
            goto fail_rename;
    }
    if (renameat(directory, FILE_NEW, directory, FILE_NAME) < 0) {
        code = error_set(error, -errno, "cannot rename " FILE_NEW " to " FILE_NAME ": %s", strerror(errno));
        goto fail_rename;
    }
    *out = segment;
    return 0;

fail_rename:
    segment_close(segment);
fail_map:
    unlinkat(directory, FILE_NEW, 0);
    return code;
}
