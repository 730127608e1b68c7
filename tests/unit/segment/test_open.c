/* SPDX-License-Identifier: Apache-2.0 */
/* What segment_open promises about the file: found again, put aside, refused, or an error that leaves all as it was. */
#include "base/clock.h"
#include "fixture.h"
#include "segment/tables.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fixture fixture;
static char logged[2048];

static void begin(void)
{
    fixture_open(&fixture);
}
static void end(void)
{
    fixture_close(&fixture);
}
TestSuite(segment, .init = begin, .fini = end);

static void open_or_fail(void)
{
    cr_assert_eq(fixture_segment(&fixture), 0, "%s", fixture.error.what);
}

/* Opens a second time after the file was changed; why: what the notice must say. */
static void expect_put_aside(const char *why)
{
    open_or_fail();
    cr_assert(fixture_has(&fixture, "segment.old"), "not put aside: %s", why);
    cr_assert_not_null(strstr(fixture_logged(&fixture, logged), why), "wanted \"%s\" in: %s", why, logged);
    cr_assert_not_null(strstr(logged, "segment.old"));
    cr_assert_eq(strchr(logged, '\n'), logged + strlen(logged) - 1, "one notice, not: %s", logged);
    cr_assert_not(fixture_has(&fixture, "segment.new"));
    unlinkat(fixture.directory, "segment.old", 0);
}

Test(segment, a_new_one_has_the_shape_that_was_asked_for)
{
    struct stat status;

    open_or_fail();
    cr_assert_eq(fixture.segment->lane_count, 8);
    cr_assert_eq(fixture.segment->bucket_count, 10);
    cr_assert_eq(fixture.segment->rows_per_lane, 8);
    cr_assert_eq(fixture.segment->header->magic, SEGMENT_MAGIC);
    cr_assert_eq(fstatat(fixture.directory, "segment", &status, AT_SYMLINK_NOFOLLOW), 0);
    cr_assert_eq(status.st_mode & 07777, 0600);
    cr_assert_eq((size_t)status.st_size, fixture.segment->size);
    cr_assert_geq(status.st_blocks * 512, status.st_size, "every octet has its room: no SIGBUS later");
    cr_assert_str_empty(fixture_logged(&fixture, logged));
    cr_assert_eq(atomic_load(&fixture.segment->lanes[3].holder), SEGMENT_NO_INDEX);
}

Test(segment, two_of_them_have_two_secrets)
{
    uint8_t secret[16];

    open_or_fail();
    memcpy(secret, fixture.segment->header->secret, sizeof secret);
    unlinkat(fixture.directory, "segment", 0);
    open_or_fail();
    cr_assert_neq(memcmp(secret, fixture.segment->header->secret, sizeof secret), 0);
}

Test(segment, is_found_again_with_all_that_is_in_it)
{
    struct session_row content = {.client = endpoint_of(1, 4500), .server = 3, .source_port = 10001};
    struct record_key key;
    struct record_ref ref;
    uint32_t self;

    open_or_fail();
    self = process_begin(fixture.segment, PROCESS_WORKER, 0);
    key = key_in_bucket(fixture.segment, 5, 1);
    claim(fixture.segment, self, &key, 3, 100);
    session_begin(session_partition(fixture.segment, 7) + 7, &content, 1000);
    counter_add(&fixture.segment->processes[self], COUNTER_decisions, 42);
    pool_assign(fixture.segment, "rras");
    open_or_fail();
    cr_assert_str_empty(fixture_logged(&fixture, logged));
    cr_assert(record_find(fixture.segment, &key, &ref));
    cr_assert_eq(RECORD_SERVER(ref.value), 3);
    cr_assert(session_read(session_partition(fixture.segment, 7) + 7, &content));
    cr_assert_eq(content.source_port, 10001);
    cr_assert_eq(counter_total(fixture.segment, COUNTER_decisions), 42);
    cr_assert_eq(pool_find(fixture.segment, "rras"), 0);
}

Test(segment, ends_the_processes_of_the_last_life)
{
    uint32_t self, generation;

    open_or_fail();
    self = process_begin(fixture.segment, PROCESS_WORKER, 5);
    generation = atomic_load(&fixture.segment->processes[self].generation);
    atomic_store(&fixture.segment->lanes[2].holder, self);
    open_or_fail();
    cr_assert_not(process_alive(fixture.segment, self, generation));
    cr_assert_neq(atomic_load(&fixture.segment->processes[self].generation), generation, "its reservations are free");
    cr_assert_eq(process_begin(fixture.segment, PROCESS_WORKER, 0), self, "its slot is free");
    cr_assert_eq(atomic_load(&fixture.segment->lanes[2].holder), SEGMENT_NO_INDEX);
}

Test(segment, keeps_the_lanes_that_it_was_made_with)
{
    open_or_fail();
    fixture.shape.lanes = 32;
    open_or_fail();
    cr_assert_eq(fixture.segment->lane_count, 8);
    cr_assert_not(fixture_has(&fixture, "segment.old"));
}

Test(segment, of_another_boot_is_put_aside)
{
    uint8_t boot_id[16] = "another boot id";

    open_or_fail();
    fixture_poke(&fixture, offsetof(struct segment_header, boot_id), boot_id, sizeof boot_id);
    expect_put_aside("another boot");
}

Test(segment, of_a_newer_layout_is_put_aside)
{
    uint32_t layout = SEGMENT_LAYOUT + 1;

    open_or_fail();
    fixture_poke(&fixture, offsetof(struct segment_header, layout), &layout, sizeof layout);
    expect_put_aside("layout 5, this version works with layout 4");
}

Test(segment, of_a_wrong_length_is_put_aside)
{
    static const off_t off_by[] = {1, 4096, 100000};
    static const off_t lengths[] = {0, 1, 103, 104, 4096};
    char path[128];

    open_or_fail();
    snprintf(path, sizeof path, "%s/segment", fixture.path);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        cr_assert_eq(truncate(path, lengths[i]), 0);
        expect_put_aside(lengths[i] < 104 ? "cut off" : "octets long instead of");
    }
    for (size_t i = 0; i < sizeof off_by / sizeof *off_by; i++) {
        cr_assert_eq(truncate(path, (off_t)fixture.segment->size - off_by[i]), 0);
        expect_put_aside("octets long instead of");
        cr_assert_eq(truncate(path, (off_t)fixture.segment->size + off_by[i]), 0);
        expect_put_aside("octets long instead of");
    }
}

/* Every octet of every table can be touched, and nothing lies behind the file's end. */
static void touch_all(void)
{
    const uint8_t *octets = (const void *)fixture.segment->header;
    uint32_t sum = 0;
    struct stat status;

    cr_assert_eq(fstat(fixture.segment->fd, &status), 0);
    cr_assert_eq((size_t)status.st_size, fixture.segment->size);
    for (size_t i = 0; i < fixture.segment->size; i += 512)
        sum += octets[i];
    session_end(&fixture.segment->rows[fixture.segment->lane_count * fixture.segment->rows_per_lane - 1]);
    record_value(fixture.segment, record_capacity(fixture.segment) - 1 + sum % 2);
}

/* Opens the changed file: put aside or copied, with one notice. */
static void expect_not_believed(const char *field, uint64_t value)
{
    bool aside;

    open_or_fail();
    touch_all();
    aside = fixture_has(&fixture, "segment.old");
    fixture_logged(&fixture, logged);
    cr_assert(aside || strstr(logged, "is copied") != NULL, "%s %llx was believed", field, (unsigned long long)value);
    cr_assert_eq(strchr(logged, '\n'), logged + strlen(logged) - 1, "one notice, not: %s", logged);
    cr_assert_eq(fixture.segment->size, fixture.segment->header->size);
    cr_assert_eq(fixture.segment->rows_per_lane, 8);
    cr_assert_eq(fixture.segment->bucket_count, 10);
    unlinkat(fixture.directory, "segment.old", 0);
}

/* Each bit of what describes the file: none may be believed when it is wrong. */
Test(segment, with_any_flipped_bit_in_its_description_is_put_aside_or_copied)
{
    for (size_t bit = 0; bit < offsetof(struct segment_header, created_ms) * 8; bit++) {
        const uint8_t *octets;
        uint8_t flipped;

        if (bit / 8 >= offsetof(struct segment_header, secret) && bit / 8 < offsetof(struct segment_header, records))
            continue;
        open_or_fail();
        octets = (const void *)fixture.segment->header;
        flipped = (uint8_t)(octets[bit / 8] ^ 1u << bit % 8);
        fixture_poke(&fixture, (off_t)bit / 8, &flipped, 1);
        expect_not_believed("octet", bit / 8);
    }
}

struct field {
    const char *name;
    size_t at, size;
    bool describes; /* the file; of the others any value is as good */
};
#define FIELD(name, describes)                                                                                         \
    {                                                                                                                  \
#name, offsetof(struct segment_header, name), sizeof((struct segment_header *)NULL)->name, describes           \
    }
static const struct field fields[] = {
    FIELD(magic, true),       FIELD(layout, true),   FIELD(lanes, true),    FIELD(boot_id, true),
    FIELD(records, true),     FIELD(buckets, true),  FIELD(sessions, true), FIELD(rows_per_lane, true),
    FIELD(size, true),        FIELD(secret, false),  FIELD(recount, false), FIELD(drop_last, false),
    FIELD(created_ms, false), FIELD(reloads, false),
};

Test(segment, with_any_field_of_its_header_changed_is_never_read_out_of_bounds)
{
    static const uint64_t values[] = {
        0,          1,          3,          0x7f,           0x80,      0xff, 0x100, 0xffff, SEGMENT_CAPACITY_MAX,
        0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX / 2, UINT64_MAX};

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        for (size_t j = 0; j < sizeof values / sizeof *values + 2; j++) {
            uint64_t octets[2] = {0}, before[2] = {0};

            open_or_fail();
            fixture_logged(&fixture, logged);
            memcpy(before, (const char *)(const void *)fixture.segment->header + fields[i].at, fields[i].size);
            octets[0] = j < sizeof values / sizeof *values ? values[j] : before[0] + (j % 2 == 0 ? 1 : (uint64_t)-1);
            if (memcmp(octets, before, fields[i].size) == 0)
                continue;
            fixture_poke(&fixture, (off_t)fields[i].at, octets, fields[i].size);
            if (fields[i].describes) {
                expect_not_believed(fields[i].name, octets[0]);
            } else {
                open_or_fail();
                touch_all();
            }
        }
    }
}

Test(segment, cut_anywhere_is_put_aside)
{
    const struct segment_header *header;
    struct segment_tables tables;
    char path[128];

    open_or_fail();
    snprintf(path, sizeof path, "%s/segment", fixture.path);
    header = fixture.segment->header;
    segment_tables_plan(&tables, &segment_layout_present, header);
    for (size_t length = 0; length < tables.size; length += length < 110 ? 1 : tables.size / 97) {
        cr_assert_eq(truncate(path, (off_t)length), 0);
        expect_not_believed("length", length);
    }
    for (uint32_t i = 0; i < TABLE_COUNT; i++) {
        for (size_t j = 0; j < 3; j++) {
            cr_assert_eq(truncate(path, (off_t)(tables.at[i] - 1 + j)), 0);
            expect_not_believed("length", tables.at[i] - 1 + j);
        }
    }
}

Test(segment, a_symbolic_link_is_an_error_and_its_target_is_left_alone)
{
    cr_assert_eq(symlinkat("target", fixture.directory, "segment"), 0);
    cr_assert_eq(fixture_segment(&fixture), -EPERM);
    cr_assert_not_null(strstr(fixture.error.what, "symbolic link"));
    cr_assert_not(fixture_has(&fixture, "target"));
    cr_assert(fixture_has(&fixture, "segment"));
}

Test(segment, that_others_can_write_is_an_error)
{
    static const mode_t modes[] = {0620, 0602, 0666, 0777};

    open_or_fail();
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        cr_assert_eq(fchmodat(fixture.directory, "segment", modes[i], 0), 0);
        cr_assert_eq(fixture_segment(&fixture), -EPERM, "mode %o", modes[i]);
        cr_assert_not_null(strstr(fixture.error.what, "written by others"));
        cr_assert_neq(fixture.error.next[0], '\0');
        cr_assert_not(fixture_has(&fixture, "segment.old"));
    }
}

Test(segment, of_a_foreign_owner_is_an_error)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    open_or_fail();
    cr_assert_eq(fchownat(fixture.directory, "segment", 4711, 4711, 0), 0);
    cr_assert_eq(fixture_segment(&fixture), -EPERM);
    cr_assert_not_null(strstr(fixture.error.what, "user 4711"));
}

Test(segment, that_is_no_file_is_an_error)
{
    cr_assert_eq(mkfifoat(fixture.directory, "segment", 0600), 0);
    cr_assert_eq(fixture_segment(&fixture), -EPERM);
    cr_assert_not_null(strstr(fixture.error.what, "no regular file"));
    cr_assert_eq(unlinkat(fixture.directory, "segment", 0), 0);
    cr_assert_eq(mkdirat(fixture.directory, "segment", 0700), 0);
    cr_assert_lt(fixture_segment(&fixture), 0);
}

Test(segment, half_made_by_a_crash_is_made_anew)
{
    int fd = openat(fixture.directory, "segment.new", O_CREAT | O_WRONLY, 0600);

    cr_assert_eq(write(fd, "half", 4), 4);
    close(fd);
    open_or_fail();
    cr_assert_not(fixture_has(&fixture, "segment.new"));
    cr_assert(fixture_has(&fixture, "segment"));
}

Test(segment, that_does_not_fit_a_file_size_limit_is_an_error_that_leaves_nothing)
{
    struct rlimit limit = {.rlim_cur = 100000, .rlim_max = 100000};

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(fixture_segment(&fixture), -EFBIG);
    cr_assert_not(fixture_has(&fixture, "segment"));
    cr_assert_not(fixture_has(&fixture, "segment.new"));
}

/* A tmpfs of its own, one that holds the first segment but not a second one beside it. */
Test(segment, on_a_full_file_system_is_an_error_that_says_how_much_and_where_and_keeps_the_old_one)
{
    struct record_key key;
    struct record_ref ref;
    int below;

    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("needs root and a mount namespace");
    cr_assert_eq(mount("none", fixture.path, "tmpfs", 0, "size=4m,mode=0700"), 0);
    below = fixture.directory;
    fixture.directory = open(fixture.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(below);
    open_or_fail();
    key = key_in_bucket(fixture.segment, 1, 1);
    claim(fixture.segment, process_begin(fixture.segment, PROCESS_WORKER, 0), &key, 9, 1);
    fixture.shape.records = 100000;
    cr_assert_eq(fixture_segment(&fixture), -ENOSPC);
    cr_assert_not_null(strstr(fixture.error.what, fixture.path), "%s", fixture.error.what);
    cr_assert_not_null(strstr(fixture.error.what, "KiB"));
    cr_assert_not_null(strstr(fixture.error.next, "affinity.capacity"));
    cr_assert_not(fixture_has(&fixture, "segment.new"));
    cr_assert_not(fixture_has(&fixture, "segment.old"));
    fixture.shape.records = 60;
    open_or_fail();
    cr_assert(record_find(fixture.segment, &key, &ref), "the old one was put aside though there was no new one");
    umount2(fixture.path, MNT_DETACH);
}

Test(segment, shapes_that_cannot_be_are_refused)
{
    static const struct segment_shape shapes[] = {{0, 64, 8},    {60, 0, 8},          {60, 64, 0},        {60, 64, 3},
                                                  {60, 64, 512}, {UINT32_MAX, 64, 8}, {60, UINT32_MAX, 8}};

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        fixture.shape = shapes[i];
        cr_assert_eq(fixture_segment(&fixture), -EINVAL);
        cr_assert_null(fixture.segment);
        cr_assert_not(fixture_has(&fixture, "segment.new"));
    }
}

Test(segment, the_smallest_one_works)
{
    fixture.shape = (struct segment_shape){.records = 1, .sessions = 1, .lanes = 1};
    open_or_fail();
    cr_assert_eq(fixture.segment->bucket_count, 4);
    cr_assert_eq(fixture.segment->rows_per_lane, 1);
    open_or_fail();
    cr_assert_not(fixture_has(&fixture, "segment.old"));
}

Test(segment, sessions_are_rounded_up_to_whole_lanes_and_found_again)
{
    fixture.shape.sessions = 65;
    open_or_fail();
    cr_assert_eq(fixture.segment->rows_per_lane, 9);
    open_or_fail();
    cr_assert_not(fixture_has(&fixture, "segment.old"));
}

Test(segment, mapped_by_a_descriptor_is_the_same_memory)
{
    struct segment *other = NULL;

    open_or_fail();
    cr_assert_eq(segment_map(&other, dup(fixture.segment->fd), &fixture.error), 0);
    atomic_store(&fixture.segment->header->reloads, 17);
    cr_assert_eq(atomic_load(&other->header->reloads), 17);
    cr_assert_eq(other->bucket_count, fixture.segment->bucket_count);
    segment_close(other);
    segment_close(NULL);
}

Test(segment, map_refuses_what_it_cannot_read_and_closes_the_descriptor)
{
    struct segment *other = NULL;
    uint32_t lanes = 4;
    int fd;

    open_or_fail();
    fixture.segment->header->layout++;
    fd = dup(fixture.segment->fd);
    cr_assert_eq(segment_map(&other, fd, &fixture.error), -EINVAL);
    cr_assert_not_null(strstr(fixture.error.what, "layout 4"));
    cr_assert_eq(fcntl(fd, F_GETFD), -1);
    fixture.segment->header->layout--;
    fixture_poke(&fixture, offsetof(struct segment_header, lanes), &lanes, sizeof lanes);
    cr_assert_eq(segment_map(&other, dup(fixture.segment->fd), &fixture.error), -EINVAL);
    cr_assert_null(other);
}

Test(segment, header_that_was_overwritten_is_written_again_for_the_next_process)
{
    struct segment *other = NULL;
    uint8_t before[offsetof(struct segment_header, created_ms)];

    open_or_fail();
    memcpy(before, (const void *)fixture.segment->header, sizeof before);
    atomic_store(&fixture.segment->header->reloads, 3);
    memset((void *)fixture.segment->header, 0xff, sizeof before);
    segment_header_restore(fixture.segment);
    cr_assert_arr_eq(before, (const void *)fixture.segment->header, sizeof before);
    cr_assert_eq(atomic_load(&fixture.segment->header->reloads), 3);
    cr_assert_eq(segment_map(&other, dup(fixture.segment->fd), &fixture.error), 0);
    segment_close(other);
}

/* After the check, the header's numbers are everybody's to change: nobody may look at them again. */
Test(segment, mapped_goes_by_the_numbers_that_were_checked)
{
    open_or_fail();
    memset((void *)fixture.segment->header, 0xff, sizeof *fixture.segment->header);
    cr_assert_eq(fixture.segment->rows_per_lane, 8);
    cr_assert_eq(record_capacity(fixture.segment), 160);
    cr_assert_eq(session_partition(fixture.segment, 9), fixture.segment->rows + 8, "lanes are masked");
}

Test(segment, tables_do_not_overlap_and_lie_on_pages)
{
    const struct segment_header largest = {.lanes = 256,
                                           .buckets = segment_bucket_count(SEGMENT_CAPACITY_MAX),
                                           .rows_per_lane = segment_rows_per_lane(SEGMENT_CAPACITY_MAX, 256)};
    struct segment_tables tables;

    segment_tables_plan(&tables, &segment_layout_present, &largest);
    cr_assert_eq(tables.at[TABLE_PROCESSES], 4096);
    for (uint32_t i = 0; i < TABLE_BUCKETS; i++)
        cr_assert_geq(tables.at[i + 1], tables.at[i] + (size_t)segment_layout_present.tables[i].count *
                                                           segment_layout_present.tables[i].size);
    cr_assert_geq(tables.at[TABLE_ROWS],
                  tables.at[TABLE_BUCKETS] + (size_t)largest.buckets * sizeof(struct record_bucket));
    cr_assert_eq(tables.at[TABLE_TUPLES],
                 tables.at[TABLE_ROWS] + (size_t)SEGMENT_CAPACITY_MAX * sizeof(struct session_row));
    cr_assert_eq(tables.size, tables.at[TABLE_TUPLES] + (size_t)SEGMENT_TUPLES_MAX * 8);
    cr_assert_eq(tables.at[TABLE_BUCKETS] % 4096, 0);
}
