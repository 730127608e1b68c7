# SPDX-License-Identifier: Apache-2.0
"""Rows that are programs of their own in the tests: at full size here, in a short form there."""
import os
import re
import subprocess
import sys

from prove import Claims, Row, Skipped

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def output(context, name, command, seconds, **environment):
    """What it printed; kept among the row's logs."""
    done = subprocess.run([str(one) for one in command], cwd=ROOT, env={**os.environ, **environment}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=seconds,
                          check=False)
    (context.logs / name).write_text(done.stdout)
    return done.stdout, done.returncode


def tap(claims, context, name, command, seconds):
    """Runs a program that prints TAP: its remarks are figures."""
    text, status = output(context, name, command, seconds)
    failed = re.findall(r"^not ok .*", text, re.M)
    claims.figure(name, f"{len(re.findall(r'^ok ', text, re.M))} claims hold, {len(failed)} do not")
    claims.check(status == 0 and not failed, f"{name} ended with {status}: {'; '.join(failed)[:500]}")
    return text


def instructions(context):
    claims = Claims()
    for folder, name in (("segment", "record_steps"), ("relay", "session_steps")):
        text = tap(claims, context, name, [context.build / "tests/unit" / folder / name,
                                           *([] if context.short else ["full"])], 3600)
        for what, count, points in re.findall(r"^\w+ *\w* \d+ - (.*): (\d+) instructions, (\d+) points", text, re.M):
            claims.figure(f"  {what}", f"{count} instructions, {points} points")
            claims.check(int(points) > 100, f"{what} has no more than {points} points")
        claims.figure(f"  {name}, points in all", re.search(r"^# (\d+) points in all", text, re.M).group(1))
    return claims.done()


def storm(context):
    claims = Claims()
    text = tap(claims, context, "record_storm", [context.build / "tests/unit/segment/record_storm",
                                                 10 if context.short else 60, context.seed], 300)
    for number, line in enumerate(re.findall(r"^# (.*)", text, re.M)):
        claims.figure(f"  {number + 1}", line)
    return claims.done()


def model(context):
    claims = Claims()
    text = tap(claims, context, "model", ["tests/model/run", 5 if context.short else 20], 1800)
    for number, line in enumerate(re.findall(r"^(?:ok - |# )(.*)", text, re.M)):
        claims.figure(f"  {number + 1}", line)
    return claims.done()


def system_tests(context, path, **environment):
    claims = Claims()
    text, status = output(context, "pytest", [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q",
                                              path], 1800, **environment)
    for name in re.findall(r"^(?:PASSED|FAILED) \S+::(\S+)", text, re.M):
        claims.figure(f"  {name}", "holds" if re.search(rf"^PASSED \S+::{re.escape(name)}$", text, re.M) else "FAILS")
    claims.check(status == 0, f"see {context.logs}/pytest")
    return claims.done()


def segment(context):
    return system_tests(context, "tests/system/test_segment.py", **({} if context.short else {"HOMEPORT_FLIPS": "1000000"}))


def clocks(context):
    if os.geteuid() != 0:
        raise Skipped("needs root")
    return system_tests(context, "tests/system/test_time.py")


def streams(context):
    full = {"HOMEPORT_STREAMS": "10000", "HOMEPORT_RELOADS": "20", "HOMEPORT_STUFFED": "200", "HOMEPORT_STALL": "60"}
    return system_tests(context, "tests/system/test_tcp.py", **({} if context.short else full))


ROWS = [
    Row("instructions", "Killed, or stopped and woken, at every instruction of every operation on records and sessions: "
        "one server per key, nothing half written, nothing lost", instructions),
    Row("storm", "Eight processes that are killed and stopped at any moment while they work on few keys: a key's server "
        "changes by a counted move or eviction alone", storm),
    Row("model", "The record table's order of memory accesses, in all interleavings of a model, and on another processor",
        model),
    Row("segment", "Another capacity or layout carries everything over; damage of any kind crashes neither master nor "
        "monitor", segment),
    Row("clocks", "The clock set back and forth, a pause of ten seconds, process numbers used again: nobody is taken for "
        "dead who is not", clocks),
    Row("streams", "TCP: 20 reloads under 10,000 streams whose octets are looked at, and under 200 that are full in both "
        "directions; a client that stands still for a minute; every end, and every death", streams),
]
