/* SPDX-License-Identifier: Apache-2.0 */
/* Real traffic: every UDP datagram on ports 500 and 4500 of the tree's own captures, and of those in the folder
 * $HOMEPORT_PCAPS. */
#include "capture.h"
#include "claims.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void datagram_holds(void *arg, const struct captured *datagram)
{
    (void)arg;
    claims_hold(datagram->data, datagram->size);
}

static void capture_holds(void *arg, const char *path)
{
    *(size_t *)arg += capture_read(path, datagram_holds, NULL);
}

Test(pcaps, claims_hold_for_every_captured_datagram)
{
    const char *folders[] = {getenv("HOMEPORT_CAPTURES"), getenv("HOMEPORT_PCAPS")};
    size_t datagrams = 0;

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (folders[i] != NULL)
            captures_find(folders[i], capture_holds, &datagrams);
    cr_assert(datagrams > 0 || (folders[0] == NULL && folders[1] == NULL), "no IKE in them");
}
