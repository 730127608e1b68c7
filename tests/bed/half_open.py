#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""half_open.py SOURCE SERVER COUNT: half-open IKE_SAs at a server, as clients make that vanish after IKE_SA_INIT.

A cookie is sent back as RFC 7296 section 2.6 has it, so that the server believes in each of them. Prints what each was
answered: SA, COOKIE+SA, or SILENCE once the server blocks the address.
"""
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "lib"))
import ike  # noqa: E402


def ask(one, request):
    one.send(request)
    try:
        return one.recv(65536)
    except socket.timeout:
        return None


def with_cookie(request, cookie):
    body = ike.payload(33, struct.pack("!BBH", 0, 0, ike.COOKIE) + cookie) + request[28:]
    return ike.message(request[:8], bytes(8), 41, ike.SA_INIT, ike.INITIATOR, 0, body)


def half_open(source, server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((source, 0))
        one.connect((server, 500))
        one.settimeout(0.3)
        request = ike.init_request(os.urandom(8))
        answer = ask(one, request)
        said = ""
        if answer is not None and answer[16] == 41 and struct.unpack("!H", answer[34:36])[0] == ike.COOKIE:
            length = struct.unpack("!H", answer[30:32])[0]
            answer = ask(one, with_cookie(request, answer[36:28 + length]))
            said = "COOKIE+"
        return "SILENCE" if answer is None else said + ("SA" if answer[16] == 33 else "REFUSED")


if __name__ == "__main__":
    for _ in range(int(sys.argv[3])):
        print(half_open(sys.argv[1], sys.argv[2]))
