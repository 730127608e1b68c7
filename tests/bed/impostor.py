#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Repeats what an eavesdropper knows of another client's IKE_SA, from here, until it is ended:
impostor.py VIP SPI_OF_INITIATOR SPI_OF_RESPONDER ESP_SPI

As an IKE_SA_INIT, as a liveness check, both on both ports, and as ESP; always from the same two ports of ours. Says
"repeating" when everything was sent once.
"""
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "lib"))

import ike  # noqa: E402 (the path comes first)


def main(vip, *spis):
    spi_i, spi_r, esp = map(bytes.fromhex, spis)
    ours = {port: ike.udp_socket("0.0.0.0") for port in (500, 4500)}
    init = ike.init_request(spi_i)  # the same each time, so that a server sees repeats of one attempt
    number = 0
    while True:
        check = ike.message(spi_i, spi_r, 46, ike.INFORMATIONAL, ike.INITIATOR, number, ike.encrypted())
        for message in (init, check):
            ours[500].sendto(message, (vip, 500))
            ours[4500].sendto(ike.MARKER + message, (vip, 4500))
        ours[4500].sendto(esp + os.urandom(116), (vip, 4500))
        if number == 0:
            print("repeating", flush=True)
        number += 1
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
