# SPDX-License-Identifier: Apache-2.0
"""IKEv2 as far as a balancer sees it: messages of the right shape (RFC 7296 section 3) without any cryptography,
scripted responders, clients."""
import contextlib
import errno
import os
import random
import select
import socket
import struct
import threading
import time

SA_INIT, AUTH, INFORMATIONAL = 34, 35, 37
INITIATOR, RESPONSE = 0x08, 0x20
MARKER = bytes(4)
NO_PROPOSAL_CHOSEN, COOKIE = 14, 16390


def message(spi_i, spi_r, first, exchange, flags, message_id, body):
    return spi_i + spi_r + struct.pack("!BBBBII", first, 0x20, exchange, flags, message_id, 28 + len(body)) + body


def payload(following, body):
    return struct.pack("!BBH", following, 0, 4 + len(body)) + body


def proposal(encryption=12):
    transforms = [(1, encryption), (2, 5), (3, 12), (4, 14)]
    body = b""
    for position, (kind, number) in enumerate(transforms):
        attribute = struct.pack("!HH", 0x800E, 128) if number == 12 and kind == 1 else b""
        more = 3 if position < len(transforms) - 1 else 0
        body += struct.pack("!BBHBBH", more, 0, 8 + len(attribute), kind, 0, number) + attribute
    return struct.pack("!BBHBBBB", 0, 0, 8 + len(body), 1, 1, 0, len(transforms)) + body


def init_body():
    """SA, KE (group 14) and nonce of an IKE_SA_INIT; the first payload is 33."""
    key = struct.pack("!HH", 14, 0) + os.urandom(256)
    return payload(34, proposal()) + payload(40, key) + payload(0, os.urandom(32))


def init_request(spi_i):
    return message(spi_i, bytes(8), 33, SA_INIT, INITIATOR, 0, init_body())


def notify(kind):
    return payload(0, struct.pack("!BBH", 0, 0, kind))


def encrypted(size=200):
    return payload(0, os.urandom(size))


class Datagram:
    """What a datagram is: .kind is init, probe, auth, informational, esp, keepalive or other."""

    def __init__(self, data, marked_port):
        self.data, self.spi_i, self.spi_r, self.message_id, self.response = data, b"", b"", 0, False
        self.marked = len(data) >= 32 and data[:4] == MARKER and marked_port is not False
        body = data[4:] if self.marked else data
        if len(body) >= 28 and body[17] == 0x20 and struct.unpack("!I", body[24:28])[0] == len(body):
            self.spi_i, self.spi_r = body[:8], body[8:16]
            self.message_id = struct.unpack("!I", body[20:24])[0]
            self.response = bool(body[19] & RESPONSE)
            self.kind = {SA_INIT: "init", AUTH: "auth", INFORMATIONAL: "informational"}.get(body[18], "other")
            if self.kind == "init" and not self.response and 12 not in encryptions(body):
                self.kind = "probe"
        elif data == b"\xff":
            self.kind = "keepalive"
        elif len(data) >= 8 and data[:4] != MARKER:
            self.kind = "esp"
        else:
            self.kind = "other"


def encryptions(body):
    """The encryption transforms that an IKE_SA_INIT offers in its first proposal."""
    found, at, following = set(), 28, body[16]
    while following and at + 4 <= len(body):
        length = struct.unpack("!H", body[at + 2:at + 4])[0]
        if following == 33 and length >= 12:
            transform = at + 12 + body[at + 10]
            while transform + 8 <= at + length:
                if body[transform + 4] == 1:
                    found.add(struct.unpack("!H", body[transform + 6:transform + 8])[0])
                transform += max(8, struct.unpack("!H", body[transform + 2:transform + 4])[0])
            break
        following, at = body[at], at + max(4, length)
    return found


class Seen:
    """A datagram that came to a responder."""

    def __init__(self, port, source, datagram):
        self.time, self.port, self.source = time.monotonic(), port, source  # source: (address, port)
        self.kind, self.spi_i, self.spi_r, self.data = datagram.kind, datagram.spi_i, datagram.spi_r, datagram.data
        self.known = None  # for what needs an IKE_SA: whether this responder has it

    def __repr__(self):
        return f"{self.kind} on {self.port} from {self.source[0]}:{self.source[1]} spi {self.spi_i.hex()}"


class Responder:
    """An IKEv2 server without cryptography, in a thread. Like a real one it answers only for IKE_SAs that it knows.

    .seen is everything that came, in order. echo=True sends back what is not IKE, ESP or a keepalive.
    """

    def __init__(self, name, address, ports, echo=False):
        self.name, self.address, self.ports, self.echo = name, address, list(ports), echo
        self.seen, self.known, self.lock = [], {}, threading.Lock()
        self.silent, self.reply_address, self.refuse_init = False, None, False
        self.mute = set()  # addresses that it does not answer
        self.sockets, self.stopped = {}, False
        self.wake_read, self.wake_write = os.pipe()
        self.open()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def open(self):
        """(Re)opens the ports; what it knew, it still knows. One that was closed is free when the thread has stopped
        waiting for it."""
        with self.lock:
            for port in self.ports:
                if port not in self.sockets:
                    self.sockets[port] = udp_socket(self.address, port, patience=5)
        os.write(self.wake_write, b"x")

    def close(self):
        """The daemon of this server is dead: its ports answer with ICMP port unreachable."""
        with self.lock:
            sockets, self.sockets = self.sockets, {}
            for one in sockets.values():
                one.close()
        os.write(self.wake_write, b"x")

    def forget(self):
        with self.lock:
            self.known.clear()

    def stop(self):
        """A second time: nothing."""
        if self.stopped:
            return
        self.stopped = True
        self.close()
        os.write(self.wake_write, b"q")
        self.thread.join(5)
        if not self.thread.is_alive():  # else it would look at what has these numbers next
            os.close(self.wake_read)
            os.close(self.wake_write)

    def of_kind(self, kind, spi_i=None):
        with self.lock:
            return [one for one in self.seen if one.kind == kind and spi_i in (None, one.spi_i)]

    def _run(self):
        while True:
            with self.lock:
                sockets = {one.fileno(): (port, one) for port, one in self.sockets.items()}
            poll = select.poll()
            for number in [self.wake_read, *sockets]:
                poll.register(number, select.POLLIN)
            for number, _ in poll.poll():
                if number == self.wake_read:
                    if b"q" in os.read(self.wake_read, 64):
                        return
                elif number in sockets:
                    self._read(*sockets[number])

    def _read(self, port, one):
        with self.lock:
            if self.sockets.get(port) is not one:
                return  # closed meanwhile
            while True:
                try:
                    data, source = one.recvfrom(65536, socket.MSG_DONTWAIT)
                except OSError:
                    return
                datagram = Datagram(data, None)
                seen = Seen(port, peer(source), datagram)
                answer = self._answer(datagram, seen)
                self.seen.append(seen)
                if answer is not None and not self.silent and seen.source[0] not in self.mute:
                    self._send(one, port, MARKER + answer if datagram.marked else answer, source)

    def _send(self, one, port, data, target):
        if self.reply_address is None:
            one.sendto(data, target)
            return
        with contextlib.closing(udp_socket(self.reply_address, port)) as other:
            other.sendto(data, target)

    def _answer(self, datagram, seen):
        if datagram.kind == "probe" or (datagram.kind == "init" and self.refuse_init and not datagram.response):
            return message(datagram.spi_i, bytes(8), 41, SA_INIT, RESPONSE, 0, notify(NO_PROPOSAL_CHOSEN))
        if datagram.kind == "init" and not datagram.response:
            spi_r = self.known.setdefault(datagram.spi_i, b"%c" % random.randrange(1, 256) + os.urandom(7))
            return message(datagram.spi_i, spi_r, 33, SA_INIT, RESPONSE, 0, init_body())
        if datagram.kind in ("auth", "informational") and not datagram.response:
            seen.known = self.known.get(datagram.spi_i) == datagram.spi_r
            exchange = AUTH if datagram.kind == "auth" else INFORMATIONAL
            return message(datagram.spi_i, datagram.spi_r, 46, exchange, RESPONSE, datagram.message_id,
                           encrypted()) if seen.known else None
        if datagram.kind == "esp":  # our clients' ESP SPI is the first half of the responder's IKE SPI
            seen.known = any(spi_r[:4] == datagram.data[:4] for spi_r in self.known.values())
            return datagram.data if seen.known or self.echo else None
        return datagram.data if self.echo and datagram.kind == "other" else None


def place(address, port):
    """What a socket of this address's family takes and gives; of an IPv6 address with its zone."""
    return socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]


def peer(source):
    """(address, port) of what recvfrom() has said; an IPv6 address with its zone."""
    zone = len(source) > 2 and source[3] != 0
    return (f"{source[0]}%{socket.if_indextoname(source[3])}" if zone else source[0]), source[1]


def udp_socket(address, port=0, patience=0):
    """patience: seconds that a port may be somebody else's still."""
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    deadline = time.monotonic() + patience
    try:
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        while True:
            try:
                one.bind(place(address or "0.0.0.0", port))
                return one
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)
    except OSError:
        one.close()
        raise


class Client:
    """An IKEv2 client at an address of its own, that goes from the first port to the second as Windows does."""

    def __init__(self, address, vip, ike_port, natt_port, source_ports=(0, 0)):
        self.address, self.vip, self.ike_port, self.natt_port = address, vip, ike_port, natt_port
        self.ike = udp_socket(address, source_ports[0])
        self.natt = udp_socket(address, source_ports[1])
        self.answers = []  # (data, source) of everything that was not awaited
        self.renew()

    def renew(self):
        """Forgets the IKE_SA: the next init() starts another one."""
        self.spi_i, self.spi_r = b"%c" % random.randrange(1, 256) + os.urandom(7), bytes(8)
        self.request, self.message_id = None, 0

    def close(self):
        self.ike.close()
        self.natt.close()

    def move_natt(self):
        """A NAT on the way gives port 4500 another source port."""
        self.natt.close()
        self.natt = udp_socket(self.address)

    def _wait(self, one, wanted, timeout):
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([one], [], [], left)[0]:
                return None, None
            answer, source = one.recvfrom(65536)
            if wanted(answer):
                return answer, peer(source)
            self.answers.append((answer, source))

    def _ask(self, one, port, data, wanted, timeout, tries):
        for _ in range(tries):
            one.sendto(data, place(self.vip, port))
            answer, source = self._wait(one, wanted, timeout / tries)
            if answer is not None:
                return answer, source
        return None, None

    def send_init(self):
        """IKE_SA_INIT without waiting; a repeat is the same message again."""
        if self.request is None:
            self.request = init_request(self.spi_i)
        self.ike.sendto(self.request, place(self.vip, self.ike_port))

    def init(self, timeout=3.0, tries=3):
        """IKE_SA_INIT on the first port. True: answered with an IKE_SA, from the address that was asked."""
        if self.request is None:
            self.request = init_request(self.spi_i)
        answer, source = self._ask(self.ike, self.ike_port, self.request, lambda data: data[:8] == self.spi_i, timeout,
                                   tries)
        if answer is None or source != (self.vip, self.ike_port):
            return False
        self.spi_r = answer[8:16]
        return self.spi_r != bytes(8)

    def auth(self, timeout=3.0, tries=3, exchange=AUTH):
        """IKE_AUTH on the second port; True: the server knew the IKE_SA."""
        self.message_id += 1
        number = self.message_id
        data = MARKER + message(self.spi_i, self.spi_r, 46, exchange, INITIATOR, number, encrypted())

        def wanted(answer):
            seen = Datagram(answer, None)
            return seen.spi_i == self.spi_i and seen.response and seen.message_id == number

        _, source = self._ask(self.natt, self.natt_port, data, wanted, timeout, tries)
        return source == (self.vip, self.natt_port)

    def informational(self, timeout=3.0, tries=3):
        """A liveness check: an empty INFORMATIONAL."""
        return self.auth(timeout, tries, INFORMATIONAL)

    def connect(self, timeout=3.0):
        """The whole way; False is the user's error 809."""
        return self.init(timeout) and self.auth(timeout)

    def keepalive(self):
        self.natt.sendto(b"\xff", place(self.vip, self.natt_port))

    def send_esp(self, size=100):
        data = self.spi_r[:4] + os.urandom(size)
        self.natt.sendto(data, place(self.vip, self.natt_port))
        return data

    def esp(self, size=100, timeout=2.0):
        """ESP there and back; False: lost, or the server does not know it."""
        return self.await_esp(self.send_esp(size), timeout)

    def await_esp(self, data, timeout=2.0):
        """The echo of what send_esp() sent."""
        return self._wait(self.natt, lambda answer: answer == data, timeout)[0] is not None
