/* SPDX-License-Identifier: Apache-2.0 */
#include "ike/ike.h"

static void check(bool claim)
{
    if (!claim)
        __builtin_trap();
}

static void read_on(const uint8_t *data, size_t size, uint16_t port)
{
    struct ike_datagram read;

    ike_read(&read, data, size, port);
    check(read.data == data + (read.marked ? 4 : 0));
    check(read.size == size - (read.marked ? 4 : 0));
    check(read.kind != IKE_MESSAGE || read.header.length == read.size);
    check((read.kind == IKE_ESP) == (read.esp_spi != 0));
    check(!ike_is_new_sa(&read) || read.kind == IKE_MESSAGE);
    check(!ike_is_proof(&read) || read.kind == IKE_MESSAGE || read.kind == IKE_ESP);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_on(data, size, 500);
    read_on(data, size, 4500);
    read_on(data, size, 15500);
    return 0;
}
