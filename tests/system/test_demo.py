# SPDX-License-Identifier: Apache-2.0
"""`homeport demo`, as a newcomer meets it: the table, what it leaves behind, and what its hints promise."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import homeport
import pytest
from homeport import close_behind, kill_all, processes, wait_for
from ike import udp_socket

VENDORS = {"port_following": "KEMP's way", "match_across_services": "F5's way", "persistency_group": "NetScaler's way"}
ROW = re.compile(r"^  (\w+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)   (\S.*)$", re.MULTILINE)
HIGH = re.compile(r"^(cannot bind .*): ports (\d+) and (\d+) instead of 500 and 4500$", re.MULTILINE)
SERVICE = "127.30.0.1"
LIMIT = 150  # seconds for one demo: it takes about seven, and sanitizers on a busy machine take more


class Demo:
    """`homeport demo ARGUMENTS` in a session of its own. prefix: a command that runs it as somebody else."""

    def __init__(self, *arguments, prefix=(), binary=None):
        self.lines, self.changed = [], threading.Condition()
        self.process = subprocess.Popen([*prefix, binary or homeport.binary(), "demo", *arguments],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, errors="replace", start_new_session=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        kill_all(self.alive)
        self.process.wait()
        close_behind(self.reader, self.process.stdout)
        if kind is not None:
            print(self.text())
            for folder in self.folders():
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()

    def text(self):
        with self.changed:
            return "\n".join(self.lines) + "\n"

    def line(self, pattern, after=0, timeout=60):
        """Waits for a line that matches; returns the match and the place behind it."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                for at in range(after, len(self.lines)):
                    match = re.search(pattern, self.lines[at])
                    if match:
                        return match, at + 1
                assert time.monotonic() < deadline, f"no line matches {pattern!r} after line {after}:\n" + "\n".join(
                    self.lines)
                self.changed.wait(0.2)

    def folders(self):
        return re.findall(r"^configurations, moved to the loopback: (\S+)$", self.text(), re.MULTILINE)

    def alive(self):
        """Every process of it; a session outlives its leader."""
        return [pid for pid, fields, _ in processes() if int(fields[3]) == self.process.pid and fields[0] != "Z"]

    def daemons(self):
        """{pid: configuration} of the daemon's master."""
        return {pid: command[3] for pid, fields, command in processes()
                if int(fields[1]) == self.process.pid and command[1:2] == ["run"]}

    def responders(self):
        """Pids of the servers: forked, so they carry the demo's own command line."""
        return [pid for pid, fields, command in processes()
                if int(fields[1]) == self.process.pid and command[1:2] == ["demo"] and fields[0] != "Z"]

    def workers(self):
        (master,) = self.daemons()
        return [pid for pid, fields, command in processes() if int(fields[1]) == master and "_worker" in command]

    def end(self, number=None, status=0):
        """Waits for its end, after a signal; then nothing of it is there any more."""
        if number is not None:
            self.process.send_signal(number)
        ended = self.process.wait(LIMIT)
        self.reader.join(10)
        assert ended == status, self.text()
        wait_for(lambda: not self.alive(), 5, "the end of every process of the demo")
        for folder in self.folders():
            assert not os.path.exists(folder), f"{folder} is left behind"
        return self.text()


def run_once(*arguments, **options):
    with Demo("--once", *arguments, **options) as demo:
        return demo.end()


def check_table(text):
    """The table of the promise; returns the line of the client that was split."""
    head = re.search(r"^  persistence +connected   error 809   clients at vpn1 vpn2 vpn3$", text, re.MULTILINE)
    assert head, text
    rows = {name: ([int(one) for one in numbers], label) for name, *numbers, label in ROW.findall(text)}
    assert list(rows) == ["source_address", *VENDORS], text
    for name, label in VENDORS.items():
        assert rows[name] == ([60, 0, 20, 20, 20], label), text
    (connected, failed, *at), label = rows["source_address"]
    assert label == "splits"
    assert failed > 0 and connected + failed == 60 and sum(at) == connected, text
    split = re.search(r"^  source_address .*\n    e\.g\. 127\.10\.0\.\d+: port (\d+) -> (vpn\d), port (\d+) -> (vpn\d); "
                      r"IKE_AUTH never answered$", text, re.MULTILINE)
    assert split and split[2] != split[4], text
    high = HIGH.search(text)
    assert (split[1], split[3]) == ((high[2], high[3]) if high else ("500", "4500"))
    return split[0]


@contextlib.contextmanager
def everybodys_tree():
    """The binary with what belongs to it, where any user can run it."""
    with tempfile.TemporaryDirectory(prefix="homeport-tree-") as folder:
        yield homeport.copy_tree(homeport.binary(), folder)


@pytest.fixture
def staying():
    with Demo() as demo:
        demo.line(r" 60 of 60 still at home$")
        yield demo


def next_line(demo, pattern, timeout=30):
    """A line that is said from now on."""
    return demo.line(pattern, after=len(demo.lines), timeout=timeout)[0]


def test_shows_what_each_persistence_does_and_leaves_nothing_behind():
    for _ in range(2):
        check_table(run_once())


def test_two_at_the_same_time_do_not_meet():
    with Demo("--once") as one, Demo("--once") as other:
        first, second = one.end(), other.end()
    check_table(first)
    check_table(second)


def test_seed_is_told_and_taken():
    assert "in the order of seed 42\n" in run_once("--seed", "42")


def test_without_root_it_takes_high_ports_if_it_must():
    prefix = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--bounding-set=-all"]
    with everybodys_tree() as binary:
        text = run_once(prefix=prefix, binary=binary)
    check_table(text)
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as first:
        if int(first.read()) > 500:
            assert HIGH.search(text), text


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are not root's already")
def test_root_can_run_it_from_a_folder_that_nobody_else_may_enter():
    with tempfile.TemporaryDirectory(prefix="homeport-tree-") as folder:  # mode 0700
        binary = homeport.copy_tree(homeport.binary(), os.path.join(folder, "checkout"))
        check_table(run_once(binary=binary))


def test_port_that_is_taken_makes_it_take_others():
    with contextlib.closing(udp_socket(SERVICE, 4500)):
        text = run_once()
    check_table(text)
    assert "cannot bind 127." in HIGH.search(text)[1]


def test_high_port_that_is_taken_is_passed_over():
    """Whatever else would make it take high ones."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(PermissionError):
            held.enter_context(contextlib.closing(udp_socket(SERVICE, 500)))
        held.enter_context(contextlib.closing(udp_socket(SERVICE, 30500)))
        text = run_once()
    check_table(text)
    assert HIGH.search(text)[2] != "30500"


def test_server_that_does_not_answer_spoils_a_vendors_row_and_the_exit_status():
    with Demo("--once") as demo:
        demo.line(r"^  source_address ")
        wait_for(lambda: [path for path in demo.daemons().values() if "port_following" in path], 30, "the next daemon")
        os.kill(demo.responders()[0], signal.SIGSTOP)
        text = demo.end(status=1)
    rows = {name: int(connected) for name, connected, *_ in ROW.findall(text)}
    assert rows["port_following"] < 60 and rows["persistency_group"] == 60, text
    assert "not every persistence did what it promises" in text


def test_clients_of_a_server_that_dies_connect_anew_with_another(staying):
    at = len(staying.lines)
    os.kill(staying.responders()[1], signal.SIGTERM)
    _, at = staying.line(r"^  vpn2's process has ended", at, 30)
    staying.line(r" 40 of 60 still at home, 20 connected anew with another server$", at)
    staying.end(signal.SIGTERM)


def test_what_it_says_to_try_works_as_it_is_written_and_everybody_stays_at_home(staying):
    at = len(staying.lines)
    hints = [line.strip() for line in staying.lines if re.match(r"  (/.*homeport|kill) ", line)]
    verbs, (worker,), servers = hints[:4], hints[4:5], hints[5:]
    for hint in verbs:
        subprocess.run(["sh", "-c", hint], check=True, timeout=30, stdout=subprocess.DEVNULL)
    assert [int(hint.split()[1]) for hint in servers] == staying.responders()
    for _ in range(3):
        before = staying.workers()
        subprocess.run(["sh", "-c", worker], check=True, timeout=30)
        wait_for(lambda old=before: len(staying.workers()) == 2 and staying.workers() != old, 10, "a new worker")
        next_line(staying, r"60 of 60 still at home$")
    staying.end(signal.SIGINT)
    said = [line for line in staying.lines[at:] if "still at home" in line]
    assert all("60 of 60" in line for line in said), staying.text()


def test_daemon_that_dies_ends_it_with_its_last_words(staying):
    (master,) = staying.daemons()
    os.kill(master, signal.SIGKILL)
    assert "homeport ended with signal 9" in staying.end(status=1)


def test_nothing_goes_on_when_it_is_killed_itself(staying):
    staying.process.kill()
    staying.process.wait(10)
    wait_for(lambda: not staying.alive(), 15, "the end of daemon and servers")
    for folder in staying.folders():
        shutil.rmtree(folder)  # this much remains


def test_signal_in_the_middle_of_the_table_ends_it_in_order():
    with Demo("--once") as demo:
        demo.line(r"^  source_address ")  # that daemon is about to end, the next about to start
        begun = time.monotonic()
        demo.end(signal.SIGINT, status=1)
    assert time.monotonic() - begun < 8, "somebody had to be killed"


@pytest.mark.parametrize("arguments", [["--twice"], ["--seed"], ["--seed", "x"], ["--seed", ""], ["once"]])
def test_wrong_usage_is_status_2(arguments):
    with Demo(*arguments) as demo:
        demo.end(status=2)
