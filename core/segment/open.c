/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, as the master does before any other process lives.
 * - Found and fit: its room is made sure of, everything in it is kept.
 * - Found and sound, but of another capacity or of an older layout that we read: a new one is made as segment.new, all
 *   that is in the old one is copied into it (copy.c), then it takes the old one's name.
 * - Found and unfit (another boot, damaged, a layout that we do not read): a new one is made whole as segment.new, then
 *   the old one becomes segment.old, then the new one gets the name.
 * - Not found: made in the same way.
 * In each case the process slots of the last life are ended then.
 * - Processes live that use it (segment_adopt): as it is, and their slots are kept; or not at all.
 * Fails: no room for the new one  -> an error; the old one is left alone
 *        a crash on the way       -> the old one keeps its name, or is segment.old; the next start removes segment.new
 *        not ours, a symlink, writable by others -> an error; nothing is touched */
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

/* The segment of the last run, and what becomes of it. */
struct found {
    int fd; /* -1: there is none */
    enum found_use { FOUND_NONE, FOUND_FIT, FOUND_COPIED, FOUND_UNFIT } use;
    uint64_t size;                /* octets */
    struct segment_header header; /* checked, but for FOUND_UNFIT */
    const struct segment_layout *layout;
    struct error why; /* not fit */
};

static int found_open(struct found *found, int directory, struct error *error)
{
    struct stat status;
    int code;

    found->fd = openat(directory, FILE_NAME, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (found->fd < 0 && errno == ENOENT)
        return 0;
    if (found->fd < 0)
        return open_failed(directory, error);
    if (fstat(found->fd, &status) < 0)
        code = open_failed(directory, error);
    else
        code = owner_check(directory, &status, error);
    found->size = (uint64_t)status.st_size;
    if (code < 0)
        close(found->fd);
    return code;
}

static void why_not_fit(struct found *found, const struct segment_shape *shape)
{
    const struct segment_header *header = &found->header;
    char text[sizeof found->why.what] = "";
    size_t used = 0;

    if (found->layout != &segment_layout_present)
        used += (size_t)snprintf(text + used, sizeof text - used, ", it has layout %u, now it is %u", header->layout,
                                 SEGMENT_LAYOUT);
    if (header->records != shape->records)
        used +=
            (size_t)snprintf(text + used, sizeof text - used, ", it was made for affinity.capacity %u, now it is %u",
                             header->records, shape->records);
    if (header->rows_per_lane != segment_rows_per_lane(shape->sessions, header->lanes))
        used +=
            (size_t)snprintf(text + used, sizeof text - used, ", it was made for sessions.capacity %u, now it is %u",
                             header->sessions, shape->sessions);
    if (used > 0)
        error_set(&found->why, -EINVAL, "%s", text + strlen(", "));
}

/* Can this run go on with it? */
static void found_judge(struct found *found, const struct segment_shape *shape, const uint8_t boot_id[16])
{
    found->use = FOUND_UNFIT;
    if (segment_header_read(&found->header, found->fd, &found->why) < 0 ||
        segment_header_check(&found->header, found->size, &found->layout, &found->why) < 0)
        return;
    if (memcmp(found->header.boot_id, boot_id, sizeof found->header.boot_id) != 0) {
        error_set(&found->why, -EINVAL, "it is of another boot of this machine, so its times mean nothing now");
        return;
    }
    why_not_fit(found, shape);
    found->use = found->why.code == 0 ? FOUND_FIT : FOUND_COPIED;
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

/* before: the one that will be copied into it, or NULL. */
static void header_fill(struct segment_header *header, const struct segment_header *before,
                        const struct segment_shape *shape, const uint8_t boot_id[16])
{
    struct segment_tables tables;

    memset((void *)header, 0, sizeof *header);
    if (before != NULL)
        memcpy((void *)header, (const void *)before, sizeof *header);
    header->magic = SEGMENT_MAGIC;
    header->layout = SEGMENT_LAYOUT;
    memcpy(header->boot_id, boot_id, sizeof header->boot_id);
    if (before == NULL) {
        header->lanes = shape->lanes;
        header->created_ms = clock_now_ms();
        hash_random(header->secret, sizeof header->secret);
    }
    header->records = shape->records;
    header->buckets = segment_bucket_count(shape->records);
    header->rows_per_lane = segment_rows_per_lane(shape->sessions, header->lanes);
    header->sessions = header->rows_per_lane * header->lanes;
    segment_tables_plan(&tables, &segment_layout_present, header);
    header->size = tables.size;
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

static int segment_reuse(struct segment **out, int directory, const struct found *found, struct error *error)
{
    int code = -posix_fallocate(found->fd, 0, (off_t)found->size); /* it may have been copied with holes */

    if (code < 0) {
        close(found->fd);
        return no_room(directory, code, found->size, error);
    }
    return segment_map(out, found->fd, error);
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

static void say_copied(const struct error *why, const struct segment_carried *carried, struct log *log)
{
    bool whole = carried->records == carried->records_found && carried->sessions == carried->sessions_found;

    log_write(log, whole ? LOG_INFO : LOG_WARNING,
              "the segment of the last run is copied: %s; %u of %u records and %u of %u sessions are carried over%s",
              why->what, carried->records, carried->records_found, carried->sessions, carried->sessions_found,
              whole ? "" : ", there is no place for the others");
}

/* A new one, with what is found in it or instead of it. On failure nothing has changed. */
static int segment_renew(struct segment **out, int directory, const struct found *found,
                         const struct segment_header *header, struct log *log, struct error *error)
{
    struct segment_carried carried = {0};
    struct segment *segment;
    int fd = -1, code = new_make(&fd, directory, header, error);

    if (code < 0)
        return code;
    code = segment_map(&segment, fd, error);
    if (code < 0)
        goto fail_map;
    if (found->use == FOUND_COPIED)
        code = segment_copy(segment, found->fd, &found->header, found->layout, &carried, error);
    else if (found->use == FOUND_UNFIT)
        code = old_put_aside(directory, &found->why, log, error);
    if (code < 0)
        goto fail_old;
    if (renameat(directory, FILE_NEW, directory, FILE_NAME) < 0) {
        code = error_set(error, -errno, "cannot rename " FILE_NEW " to " FILE_NAME ": %s", strerror(errno));
        goto fail_old;
    }
    if (found->use == FOUND_COPIED)
        say_copied(&found->why, &carried, log);
    *out = segment;
    return 0;

fail_old:
    segment_close(segment);
fail_map:
    unlinkat(directory, FILE_NEW, 0);
    return code;
}

int segment_adopt(struct segment **out, int directory, const bool alive[SEGMENT_PROCESSES], struct error *error)
{
    const struct segment_shape any = {0};
    struct found found = {.fd = -1};
    uint8_t boot_id[16];
    int code = clock_boot_id(boot_id);

    if (code < 0)
        return error_set(error, code, "cannot read this boot's id: %s", strerror(-code));
    code = found_open(&found, directory, error);
    if (code < 0)
        return code;
    if (found.fd < 0)
        return error_set(error, -EINVAL, "the segment is not there");
    found_judge(&found, &any, boot_id);
    if (found.use == FOUND_UNFIT || found.layout != &segment_layout_present) {
        close(found.fd);
        return error_set(error, -EINVAL, "the segment: %s", found.why.what);
    }
    code = segment_map(out, found.fd, error);
    if (code == 0)
        last_life_end(*out, alive);
    return code;
}

int segment_open(struct segment **out, int directory, const struct segment_shape *shape, struct log *log,
                 struct error *error)
{
    struct found found = {.fd = -1, .use = FOUND_NONE};
    struct segment_header header;
    struct segment *segment = NULL;
    uint8_t boot_id[16];
    int code = shape_check(shape, error);

    if (code < 0)
        return code;
    code = clock_boot_id(boot_id);
    if (code < 0)
        return error_set(error, code, "cannot read this boot's id: %s", strerror(-code));
    code = found_open(&found, directory, error);
    if (code < 0)
        return code;
    if (found.fd >= 0)
        found_judge(&found, shape, boot_id);
    if (found.use == FOUND_FIT) {
        code = segment_reuse(&segment, directory, &found, error);
    } else {
        header_fill(&header, found.use == FOUND_COPIED ? &found.header : NULL, shape, boot_id);
        code = segment_renew(&segment, directory, &found, &header, log, error);
        if (found.fd >= 0)
            close(found.fd);
    }
    if (code < 0 || segment == NULL)
        return code;
    last_life_end(segment, NULL);
    *out = segment;
    return 0;
}
