# SPDX-License-Identifier: Apache-2.0
"""`homeport trace` as an administrator runs it, beside the test: its lines as they come."""
import json
import subprocess
import threading
import time

from homeport import binary, close_behind


class Trace:
    """Follows a client until it is closed. json=False: .lines are texts, not objects. begin=False: does not wait until
    the daemon has said that it follows, and what there is already has been shown (which ends with no event of its own,
    so that tests look for records and sessions with wait())."""

    def __init__(self, site, client, json=True, begin=True):
        self.lines, self.changed = [], threading.Condition()
        self.json = json
        self.process = subprocess.Popen(
            [binary(), "trace", "-c", site.path, client, *(["--json"] if json else [])], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if begin:
            self.wait("following")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print("\n".join(str(line) for line in self.lines))
        self.close()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(json.loads(line) if self.json else line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def seen(self, event=None, **members):
        """The lines so far of this event and with these members; texts: with these words."""
        with self.changed:
            return [line for line in self.lines if self._fits(line, event, members)]

    def _fits(self, line, event, members):
        if not self.json:
            return event is None or event in line
        return event in (None, line["event"]) and all(line.get(name) == value for name, value in members.items())

    def wait(self, event=None, timeout=20.0, count=1, **members):
        """The last of so many such lines."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                found = [line for line in self.lines if self._fits(line, event, members)]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                assert left > 0 and (self.reader.is_alive() or self.process.poll() is None), \
                    f"no {event} {members} in:\n" + "\n".join(str(line) for line in self.lines)
                self.changed.wait(min(left, 0.2))

    def end(self, timeout=40.0):
        """Waits for its end: exit status and standard error."""
        status = self.process.wait(timeout)
        self.reader.join(5)
        return status, self.process.stderr.read()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        close_behind(self.reader, self.process.stdout)
        self.process.stderr.close()
