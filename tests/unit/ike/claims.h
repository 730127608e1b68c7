/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold of every datagram on every port, whatever it holds. Fails the running test when it does not. */
#ifndef UNIT_IKE_CLAIMS_H
#define UNIT_IKE_CLAIMS_H

#include "ike/ike.h"

/* Reads the datagram from the end of a page whose neighbour may not be touched, on ports 500, 4500 and another. */
void claims_hold(const uint8_t *data, size_t size);

#endif
