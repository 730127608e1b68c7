/* SPDX-License-Identifier: Apache-2.0 */
/* One IKEv2 server of the demo, as a process of its own: it holds the IKE_SAs that clients began with it and answers
 * nothing else, as a real one. */
#ifndef CLI_DEMO_RESPONDER_H
#define CLI_DEMO_RESPONDER_H

#include <stdint.h>

enum responder_saw {
    SAW_SA_INIT,  /* answered; it has the client's IKE_SA now */
    SAW_HOME,     /* an IKE_AUTH of an IKE_SA that it has: answered */
    SAW_STRANGER, /* an IKE_AUTH with SPIs that it does not know: not answered */
};

struct responder_report { /* one packet on the report socket */
    uint32_t client, saw;
};

/* Serves on two bound sockets until the report socket's other end is gone. Called in the forked process; never
 * returns. */
_Noreturn void responder_run(int ike, int nat_t, int report);

#endif
