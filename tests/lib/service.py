# SPDX-License-Identifier: Apache-2.0
"""What tests of the systemd unit and its snippets need where no systemd runs: the unit as data, its restrictions around
a command, the socket that a service manager listens on."""
import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import time

import pytest
from homeport import binary

CONFINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "confine.py")
SANITIZERS_NEED = ("ptrace", "process_vm_readv", "personality")  # LeakSanitizer looks at its own process's threads
CREDENTIALS = struct.Struct("iII")


class Unit:
    """The [Service] section of a unit file: what systemd would make of it."""

    def __init__(self, path):
        self.path, self.settings = path, []
        with open(path, encoding="utf-8") as file:
            for line in file:
                match = re.match(r"([A-Za-z]+)=(.*)$", line)
                if match:
                    self.settings.append(match.groups())

    def all(self, name):
        return [value for key, value in self.settings if key == name]

    def one(self, name):
        values = self.all(name)
        assert len(values) == 1, f"{name}= stands in the unit {len(values)} times"
        return values[0]

    def command(self, name, config):
        """A command line of the unit, for the binary under test and this configuration."""
        words = shlex.split(self.one(name))
        assert os.path.basename(words[0]) == "homeport" and os.path.isabs(words[0])
        return [binary(), *words[1:], "-c", config]

    def system_calls(self):
        """The names that SystemCallFilter= allows, as this machine's systemd knows its groups."""
        allowed = set()
        for value in self.all("SystemCallFilter"):
            calls = expand(value.removeprefix("~").split())
            allowed = allowed - calls if value.startswith("~") else allowed | calls
        assert self.one("SystemCallErrorNumber") == "EPERM"
        return allowed

    def capabilities(self):
        return [name.removeprefix("CAP_").lower() for name in self.one("CapabilityBoundingSet").split()]

    def confined(self, writable, without=()):
        """A command prefix that puts the unit's restrictions around what follows. writable stands for
        ReadWritePaths=; without: capabilities less."""
        calls = self.system_calls()
        assert self.one("ProtectSystem") == "strict" and self.one("ProtectProc") == "invisible"
        writable = [writable]
        if sanitized():
            calls |= set(SANITIZERS_NEED)
            writable += report_folders()
        settings = {
            "writable": writable,
            "capabilities": [name for name in self.capabilities() if name not in without],
            "nofile": int(self.one("LimitNOFILE")),
            "calls": sorted(calls),
            "families": self.one("RestrictAddressFamilies").split(),
            "no_write_execute": self.one("MemoryDenyWriteExecute") == "yes",
        }
        return ["/usr/bin/python3", "-B", CONFINE, json.dumps(settings)]


@functools.cache
def call_groups():
    """@group -> its members, groups among them."""
    groups, members = {}, []
    command = ["systemd-analyze", "syscall-filter"]
    for line in subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines():
        if line.startswith("@"):
            members = groups.setdefault(line.strip(), [])
        elif line.strip().startswith("#"):
            members = members if line.startswith(" ") else []  # a group's title, or what the kernel has and no group
        elif line.strip():
            members.append(line.strip())
    return groups


def expand(names):
    calls = set()
    for name in names:
        calls |= expand(call_groups()[name]) if name.startswith("@") else {name}
    return calls


@functools.cache
def sanitized():
    with open(binary(), "rb") as file:
        return b"__asan_init" in file.read()


def report_folders():
    """Where sanitizers are told to write what they find: who runs the tests wants to read it."""
    options = ":".join(os.environ.get(name, "") for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"))
    return sorted({os.path.dirname(path) for path in re.findall(r"log_path=([^:]+)", options) if "/" in path})


class Message(dict):
    """What one datagram says. .pid: who sent it; .time: when it was read."""

    def __init__(self, data, pid):
        super().__init__(line.split("=", 1) for line in data.decode().splitlines())
        self.pid, self.time = pid, time.monotonic()


class NotifySocket:
    """The socket that $NOTIFY_SOCKET names, at a path or at an abstract name (@...)."""

    def __init__(self, name):
        self.name, self.seen = name, []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.socket.close()

    def environment(self, **more):
        return {"NOTIFY_SOCKET": self.name, **more}

    def receive(self, timeout):
        """The next message, None: there is none within timeout."""
        self.socket.settimeout(timeout)
        with contextlib.suppress(TimeoutError, BlockingIOError):
            data, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(CREDENTIALS.size))
            pid = next(CREDENTIALS.unpack(value)[0] for _, kind, value in ancillary if kind == socket.SCM_CREDENTIALS)
            self.seen.append(Message(data, pid))
            return self.seen[-1]
        return None

    def wait(self, key, timeout=20.0):
        """Waits for a message with this key; others stay in .seen."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.001, deadline - time.monotonic()))
            if message is not None and key in message:
                return message
            if time.monotonic() > deadline:
                raise AssertionError(f"no {key} within {timeout} s, only {self.seen}")

    def states(self):
        """Everything so far but the pings."""
        return [key for message in self.seen for key in message if key in ("READY", "RELOADING", "STOPPING")]


def needs(*programs):
    missing = [name for name in programs if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed: see packages.txt")


def one_file(installed, end):
    found = [path for name, path in installed.items() if name.endswith(end)]
    assert len(found) == 1, f"{end} is installed {len(found)} times"
    return found[0]


def run(command, status=0, **options):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                            **options)
    said = f"{command} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    assert status is None or result.returncode == status, said
    return result
