/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROVE_ROLES_H
#define PROVE_ROLES_H

#include <signal.h>
#include <stdint.h>

struct role_options {
    const char *board; /* file */
    uint32_t to;       /* load, flood: the balancer's address; sink, bare: the first server's. Host order */
    uint32_t from;     /* the first client's address, those of others follow; bare: the own address */
    uint32_t first;    /* load: the first client's position at the sink */
    uint32_t clients;  /* bare: sockets */
    uint32_t servers;  /* sink, bare: addresses from `to` on */
    uint32_t lanes;
    uint32_t tries;        /* load: from IKE_SA_INIT on; 0: for ever */
    uint32_t patience;     /* load: ms without an answer, then it tries anew */
    uint16_t ports[2];     /* of the services */
    uint16_t own_ports[2]; /* that the clients have; bare: the range */
    uint32_t salt;
    double rate;
    double seconds; /* it ends by itself after so long */
};

extern volatile sig_atomic_t role_ended; /* SIGTERM came */

/* Each returns the exit status. */
int role_load(const struct role_options *options);  /* clients that connect and talk on */
int role_flood(const struct role_options *options); /* an IKE_SA_INIT from each of many addresses */
int role_sink(const struct role_options *options);  /* the servers */
int role_bare(
    const struct role_options *options); /* how long binding and connecting takes here, without any balancer */

#endif
