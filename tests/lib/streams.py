# SPDX-License-Identifier: Apache-2.0
"""TCP as a balancer's neighbours speak it: servers that do what a test tells them, clients, and streams whose octets
prove that none was lost, doubled or swapped.

Run as a program it is the load of a proof, in a process of its own (a process has only so many descriptors):

    streams.py sink ADDRESS:PORT                  echoes whatever comes, until it is killed
    streams.py load SOURCE ADDRESS:PORT COUNT     COUNT streams in turns, until a line comes on standard input
    streams.py stuff SOURCE ADDRESS:PORT COUNT    the same, but nothing is read until then: all that is between the
                                                  two ends is full, in both directions
"""
import contextlib
import json
import random
import selectors
import socket
import struct
import sys
import threading
import time

BLOCK = random.Random(443).randbytes(65521)  # a prime: an octet that is missing or doubled shifts all the others
TWICE = memoryview(BLOCK + BLOCK)
RESET = struct.pack("ii", 1, 0)
PIECE = 16384
SMALL = 16384  # of a receive buffer


def pattern(stream, position, size):
    """Octets of that stream from that position on; no more than a block at once."""
    start = (position + stream * 257) % len(BLOCK)
    return TWICE[start:start + size]


def tcp_socket(address, port=0):
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, port))
    return one


def connect(source, target, timeout=10.0, buffer=None):
    """A client's connection; buffer: of receive, so that little fits into it."""
    one = tcp_socket(source)
    if buffer is not None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    one.settimeout(timeout)
    one.connect(target)
    return one


def reset(one):
    """Closes with a reset."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    one.close()


def is_reset(one):
    """Waits for the end of the connection. False: an end in peace."""
    try:
        while one.recv(65536):
            pass
        return False
    except ConnectionResetError:
        return True


def is_refused(source, target):
    """A connection is accepted and reset; that may come as soon as connect() has seen the first half of it."""
    try:
        with connect(source, target) as one:
            return is_reset(one)
    except ConnectionResetError:
        return True


def read_all(one):
    data = bytearray()
    while True:
        piece = one.recv(65536)
        if not piece:
            return bytes(data)
        data += piece


def exactly(one, size):
    data = bytearray()
    while len(data) < size:
        piece = one.recv(size - len(data))
        assert piece, f"the end came after {len(data)} of {size} octets"
        data += piece
    return bytes(data)


def named(one):
    """What a Server with the default behaviour says first."""
    return exactly(one, 16).rstrip(b" ").decode()


def greet_and_echo(one, server):
    one.sendall(server.name.encode().ljust(16))
    while True:
        data = one.recv(65536)
        if not data:
            return
        one.sendall(data)


class Server:
    """Accepts, and behaves as told: behave(connection, server) in a thread for each connection, which is closed behind
    it. behave may be replaced at any time; None: the connection stays as it is, in .kept."""

    def __init__(self, name, address, port, behave=greet_and_echo, backlog=128, accept=True):
        self.name, self.behave, self.accepted, self.kept = name, behave, 0, []
        self.address = (address, port)
        self.listener = tcp_socket(address, port)
        self.listener.listen(backlog)
        self.connections, self.lock, self.stopping = set(), threading.Lock(), False
        self.thread = threading.Thread(target=self._accept, daemon=True)
        if accept:
            self.thread.start()

    def _accept(self):
        while not self.stopping:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            if self.stopping:
                one.close()
                return
            with self.lock:
                self.accepted += 1
                self.connections.add(one)
            if self.behave is None:
                self.kept.append(one)
            else:
                threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one):
        with contextlib.suppress(OSError):
            one.settimeout(60)
            self.behave(one, self)
        with contextlib.suppress(OSError):
            one.close()
        with self.lock:
            self.connections.discard(one)

    def stop(self):
        """Nobody listens any more; connections are reset."""
        self.stopping = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        if self.thread.is_alive():
            self.thread.join(10)
        with self.lock:
            left = list(self.connections)
        for one in left:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                reset(one)


# ---- load ----


class Sink:
    """Echoes; what a client does not take yet it keeps, and reads no more of it."""

    def __init__(self, address, port):
        self.selector = selectors.DefaultSelector()
        listener = tcp_socket(address, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)  # so that who sends is stopped now and then
        listener.listen(4096)
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, None)
        self.pending = {}

    def run(self):
        while True:
            for key, events in self.selector.select():
                if key.data is None:
                    self._accept(key.fileobj)
                    continue
                try:
                    self._echo(key.fileobj, events)
                except OSError:
                    self._end(key.fileobj)

    def _accept(self, listener):
        with contextlib.suppress(BlockingIOError):
            while True:
                one, _ = listener.accept()
                one.setblocking(False)
                self.pending[one] = b""
                self.selector.register(one, selectors.EVENT_READ, True)

    def _echo(self, one, events):
        data = self.pending[one]
        if events & selectors.EVENT_READ and not data:
            data = one.recv(65536)
            if not data:
                self._end(one)
                return
        with contextlib.suppress(BlockingIOError):
            data = data[one.send(data):]
        self.pending[one] = data
        self.selector.modify(one, selectors.EVENT_WRITE if data else selectors.EVENT_READ, True)

    def _end(self, one):
        self.selector.unregister(one)
        del self.pending[one]
        one.close()


class Stream:
    """One of a load: writes its pattern, reads it again, knows how far both are."""

    def __init__(self, number, source, target, buffer):
        self.number, self.sent, self.got, self.wrong = number, 0, 0, ""
        self.socket = connect(source, target, 60, buffer)
        self.socket.setblocking(False)

    def write(self, window):
        while self.sent - self.got < window:
            self.sent += self.socket.send(pattern(self.number, self.sent, PIECE))

    def read(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the end came")
        for at in range(0, len(data), len(BLOCK)):
            piece = data[at:at + len(BLOCK)]
            if piece != pattern(self.number, self.got, len(piece)):
                raise ValueError(f"stream {self.number}: other octets than were sent, behind {self.got}")
            self.got += len(piece)


class Load:
    """COUNT streams at once. window: octets of each that may be on their way."""

    def __init__(self, source, target, count, window=65536, buffer=None):
        self.window, self.wrong, self.selector, self.streams = window, [], selectors.DefaultSelector(), []
        for number in range(count):
            self.streams.append(Stream(number, source, target, buffer))
            self.selector.register(self.streams[-1].socket, selectors.EVENT_READ | selectors.EVENT_WRITE,
                                   self.streams[-1])

    def stuff(self):
        """Until no stream takes an octet more. What the kernel takes late, it takes for a moment longer than a turn."""
        idle = 0
        while idle < 20:
            before = sum(one.sent for one in self.streams)
            for stream in self.streams:
                with contextlib.suppress(BlockingIOError):
                    stream.write(1 << 30)
            time.sleep(0.02)
            idle = idle + 1 if sum(one.sent for one in self.streams) == before else 0

    def turn(self, write=True):
        for key, events in self.selector.select(0.1):
            stream = key.data
            try:
                if events & selectors.EVENT_READ:
                    stream.read()
                with contextlib.suppress(BlockingIOError):
                    if write:
                        stream.write(self.window)
                full = not write or stream.sent - stream.got >= self.window
                self.selector.modify(stream.socket, selectors.EVENT_READ | (0 if full else selectors.EVENT_WRITE),
                                     stream)
            except BlockingIOError:
                continue
            except (OSError, ValueError) as error:
                self._fails(stream, error)

    def _fails(self, stream, error):
        stream.wrong = f"{stream.number}: {error}"
        self.wrong.append(stream.wrong)
        self.selector.unregister(stream.socket)
        stream.socket.close()

    def finish(self, limit=120.0):
        """Nothing more is sent; whatever is on its way must come."""
        deadline = time.monotonic() + limit
        while any(stream.got < stream.sent for stream in self.streams if not stream.wrong):
            self.turn(write=False)
            if time.monotonic() > deadline:
                late = [stream for stream in self.streams if not stream.wrong and stream.got < stream.sent]
                self.wrong += [f"{stream.number}: {stream.sent - stream.got} octets did not come" for stream in late]
                break
        return {"streams": len(self.streams), "wrong": self.wrong, "octets": sum(one.got for one in self.streams),
                "least": min((one.got for one in self.streams), default=0)}


def endpoint(text):
    address, port = text.rsplit(":", 1)
    return address, int(port)


def main(arguments):
    if arguments[0] == "sink":
        sink = Sink(*endpoint(arguments[1]))
        print("ready", flush=True)
        sink.run()
    stuffed = arguments[0] == "stuff"
    load = Load(arguments[1], endpoint(arguments[2]), int(arguments[3]), buffer=SMALL if stuffed else None)
    if stuffed:
        load.stuff()
    print("ready", flush=True)
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
    while not told.is_set():
        if stuffed:
            told.wait()
        else:
            load.turn()
    print(json.dumps(load.finish()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
