/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/relay.h"

#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>

/* Below anybody's net.core.rmem_max; the kernel keeps twice of it for its own book-keeping. */
Test(listener, buffer_is_what_was_asked_for_not_what_the_kernel_keeps)
{
    int asked = 65536, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    cr_assert_geq(fd, 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &asked, sizeof asked), 0);
    cr_expect_eq(listener_buffer(fd), 65536u);
    close(fd);
}

Test(listener, buffer_of_no_socket_is_not_known)
{
    cr_expect_eq(listener_buffer(-1), 0u);
}
