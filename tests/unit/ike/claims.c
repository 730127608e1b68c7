/* SPDX-License-Identifier: Apache-2.0 */
#include "claims.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The last octet of the datagram is the last of a readable page: reading on dies. */
struct guard {
    uint8_t *map;
    size_t size; /* readable */
};

static void guard_open(struct guard *guard, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    guard->size = (size / page + 1) * page;
    guard->map = mmap(NULL, guard->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(guard->map, MAP_FAILED);
    cr_assert_eq(mprotect(guard->map + guard->size, page, PROT_NONE), 0);
}

static void guard_close(struct guard *guard)
{
    munmap(guard->map, guard->size + (size_t)sysconf(_SC_PAGESIZE));
}

static uint32_t first_word(const uint8_t *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static void kind_holds(const struct ike_datagram *read, const uint8_t *data, size_t size, uint16_t port)
{
    switch (read->kind) {
    case IKE_MESSAGE:
        cr_assert_eq(read->header.length, read->size);
        cr_assert_eq(read->header.size, sizeof read->header);
        cr_assert_eq(read->header.version >> 4, 2);
        cr_assert_eq(memcmp(read->header.initiator_spi, read->data, 8), 0);
        break;
    case IKE_ESP:
        cr_assert_neq(port, 500);
        cr_assert_geq(size, 8);
        cr_assert_eq(read->esp_spi, first_word(data));
        cr_assert_not(read->marked);
        break;
    case IKE_KEEPALIVE:
        cr_assert_neq(port, 500);
        cr_assert(size == 1 && data[0] == 0xff);
        break;
    case IKE_OTHER:
        cr_assert_not(ike_is_new_sa(read) || ike_is_proof(read));
        break;
    }
    cr_assert_eq(read->esp_spi != 0, read->kind == IKE_ESP);
    cr_assert_not(ike_is_new_sa(read) && ike_is_proof(read) && read->kind == IKE_ESP);
}

static void claims_hold_on(const uint8_t *data, size_t size, uint16_t port)
{
    struct ike_datagram read;

    memset(&read, 0xa5, sizeof read); /* a member that ike_read forgets is not zero by luck */
    ike_read(&read, data, size, port);
    cr_assert_eq(read.data, data + (read.marked ? 4 : 0));
    cr_assert_eq(read.size, size - (read.marked ? 4 : 0));
    if (port == 500)
        cr_assert_not(read.marked);
    if (read.marked)
        cr_assert_eq(first_word(data), 0);
    kind_holds(&read, data, size, port);
}

void claims_hold(const uint8_t *data, size_t size)
{
    struct guard guard;
    uint8_t *copy;

    guard_open(&guard, size);
    copy = guard.map + guard.size - size;
    if (size > 0)
        memcpy(copy, data, size);
    claims_hold_on(copy, size, 500);
    claims_hold_on(copy, size, 4500);
    claims_hold_on(copy, size, 15500);
    guard_close(&guard);
}
