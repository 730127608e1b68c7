# SPDX-License-Identifier: Apache-2.0
"""What a row is, and what it is given. A module in rows/ has a list ROWS; run() returns the figures it has measured, in
the order in which they are shown, or raises AssertionError with what was broken."""
import dataclasses
import pathlib
import random
import typing


class Skipped(Exception):
    """Cannot be shown here; says what is missing."""


class Broken(AssertionError):
    """A promise that was not kept, with what was measured all the same."""

    def __init__(self, message, figures):
        super().__init__(message)
        self.figures = figures


@dataclasses.dataclass
class Context:
    short: bool  # seconds instead of minutes: does it hold at all?
    seed: int
    build: pathlib.Path
    logs: pathlib.Path  # a folder for what is worth reading afterwards

    def random(self):
        return random.Random(self.seed)

    def rate(self):
        """Datagrams a second, of all flows together."""
        return 5000 if self.short else 20000

    def limit(self, milliseconds):
        """A time that was promised. The short form runs on any machine beside anything: five times as long."""
        return milliseconds * (5 if self.short else 1)


@dataclasses.dataclass
class Row:
    name: str
    promise: str  # one sentence
    run: typing.Callable[[Context], dict]


class Claims:
    """Collects what does not hold, so that a row fails once, with everything that was measured."""

    def __init__(self):
        self.figures, self.broken = {}, []

    def figure(self, name, value):
        self.figures[name] = value
        return value

    def none(self, name, value):
        """A figure that must be 0."""
        self.check(self.figure(name, value) == 0, f"{name}: {value} instead of 0")

    def most(self, name, value, limit):
        """A figure with a limit."""
        self.figures[name] = f"{value} (limit {limit})"
        self.check(value <= limit, f"{name}: {value} is over {limit}")

    def least(self, name, value, limit):
        self.figures[name] = f"{value} (at least {limit})"
        self.check(value >= limit, f"{name}: {value} is under {limit}")

    def check(self, kept, message):
        if not kept:
            self.broken.append(message)

    def done(self):
        if self.broken:
            raise Broken("; ".join(self.broken), self.figures)
        return self.figures


def percentile(values, share):
    """The smallest value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 100) - 1))]
