/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* No test framework here: the plain programs use this file too. */
static void require(bool fine, const char *what)
{
    if (fine)
        return;
    perror(what);
    abort();
}

void fixture_open(struct fixture *fixture)
{
    const char *base = getenv("TMPDIR");

    memset((void *)fixture, 0, sizeof *fixture);
    snprintf(fixture->path, sizeof fixture->path, "%.40s/segment-XXXXXX", base != NULL ? base : "/tmp");
    require(mkdtemp(fixture->path) != NULL, "mkdtemp");
    fixture->directory = open(fixture->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    require(fixture->directory >= 0, fixture->path);
    log_init(&fixture->log, "test");
    fixture->log.fd = memfd_create("log", MFD_CLOEXEC);
    require(fixture->log.fd >= 0, "memfd_create");
    fixture->shape = (struct segment_shape){.records = 60, .sessions = 64, .lanes = 8};
}

void fixture_close(struct fixture *fixture)
{
    DIR *directory = fdopendir(fixture->directory);
    const struct dirent *entry;

    segment_close(fixture->segment);
    require(directory != NULL, "fdopendir");
    rewinddir(directory);
    while ((entry = readdir(directory)) != NULL) {
        if (unlinkat(dirfd(directory), entry->d_name, 0) < 0)
            unlinkat(dirfd(directory), entry->d_name, AT_REMOVEDIR);
    }
    closedir(directory);
    rmdir(fixture->path);
    close(fixture->log.fd);
}

int fixture_segment(struct fixture *fixture)
{
    segment_close(fixture->segment);
    fixture->segment = NULL;
    return segment_open(&fixture->segment, fixture->directory, &fixture->shape, &fixture->log, &fixture->error);
}

bool fixture_has(const struct fixture *fixture, const char *name)
{
    struct stat status;

    return fstatat(fixture->directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

const char *fixture_logged(struct fixture *fixture, char text[2048])
{
    ssize_t size = pread(fixture->log.fd, text, 2047, 0);

    text[size > 0 ? size : 0] = '\0';
    require(ftruncate(fixture->log.fd, 0) == 0 && lseek(fixture->log.fd, 0, SEEK_SET) == 0, "log");
    return text;
}

void fixture_poke(const struct fixture *fixture, off_t offset, const void *octets, size_t size)
{
    int fd = openat(fixture->directory, "segment", O_WRONLY | O_CLOEXEC);

    require(fd >= 0 && pwrite(fd, octets, size, offset) == (ssize_t)size, "poke");
    close(fd);
}

struct record_key key_in_bucket(const struct segment *segment, uint32_t bucket, uint32_t number)
{
    uint64_t upper = (((uint64_t)bucket << 32) + segment->bucket_count - 1) / segment->bucket_count;

    return (struct record_key){.fingerprint = {upper << 32 | number, ~(uint64_t)number}};
}

struct record_origin origin_of(uint32_t timeout_s)
{
    return (struct record_origin){.timeout_s = timeout_s,
                                  .profile = 0x1122334455667788,
                                  .service = 0x99aabbccddeeff00,
                                  .client = endpoint_of(7, 500)};
}

struct hp_endpoint endpoint_of(uint8_t last, uint16_t port)
{
    return (struct hp_endpoint){.address = {192, 0, 2, last}, .port = port, .family = 4};
}

struct record_ref claim(struct segment *segment, uint32_t self, const struct record_key *key, uint32_t server,
                        uint32_t now_s)
{
    struct record_origin origin = origin_of(180);
    struct record_ref ref = {0};
    uint32_t evicted;

    require(record_claim(segment, self, key, server, &origin, now_s, true, &ref, &evicted) != RECORD_FULL, "claim");
    return ref;
}

static bool slot_is_live(const struct record_bucket *bucket, uint32_t slot)
{
    return (atomic_load(&bucket->head) >> slot & 1u) != 0 &&
           RECORD_SERVER(atomic_load(&bucket->slots[slot].value)) != RECORD_DEAD;
}

uint32_t bucket_duplicates(const struct segment *segment, uint32_t bucket)
{
    const struct record_bucket *at = &segment->buckets[bucket];
    uint32_t count = 0;

    for (uint32_t a = 0; a < RECORD_SLOTS; a++) {
        for (uint32_t b = a + 1; b < RECORD_SLOTS; b++)
            count += slot_is_live(at, a) && slot_is_live(at, b) &&
                     atomic_load(&at->slots[a].fingerprint[0]) == atomic_load(&at->slots[b].fingerprint[0]) &&
                     atomic_load(&at->slots[a].fingerprint[1]) == atomic_load(&at->slots[b].fingerprint[1]);
    }
    return count;
}
