#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Adds up what the test runners wrote: tally.py STATUS:FILE... with the runner's exit status; FILE is meson's testlog.json
or pytest's JUnit XML. Last line: N passed, N failed, N skipped. Exit status 1 when something failed, when a runner has
nothing to show (no file, no test, or it failed and names no test), and, where CI=true, when a test was skipped."""
import json
import os
import re
import sys
import xml.etree.ElementTree

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
TAP_LINE = re.compile(r"^(not )?ok\b[\s\d]*-?\s*(.*)$", re.MULTILINE)
TAP_PLAN = re.compile(r"^1\.\.(\d+)", re.MULTILINE)
TAP_SKIP = re.compile(r"#\s*skip", re.IGNORECASE)


def tap(test, output, plan):
    """One result a line, and one more when the program ended before its plan, or otherwise than its lines say."""
    results = []
    for failed, title in TAP_LINE.findall(output):
        results.append((SKIPPED if TAP_SKIP.search(title) else FAILED if failed else PASSED, f"{test['name']}: {title}"))
    if not results or len(results) < plan:
        results.append((FAILED, f"{test['name']}: {len(results)} of {plan} tests ran"))
    elif test["result"] not in ("OK", "SKIP") and not any(result == FAILED for result, _ in results):
        results.append((FAILED, f"{test['name']}: {test['result']}"))
    return results


def meson_results(path):
    results = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            test = json.loads(line)
            plan = TAP_PLAN.search(test.get("stdout", ""))
            if plan:
                results += tap(test, test["stdout"], int(plan[1]))
            else:
                results.append(({"OK": PASSED, "SKIP": SKIPPED}.get(test["result"], FAILED), test["name"]))
    return results


def junit_results(path):
    results = []
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        inside = {child.tag for child in case}
        result = FAILED if inside & {"failure", "error"} else SKIPPED if "skipped" in inside else PASSED
        results.append((result, f"{case.get('classname')}.{case.get('name')}"))
    return results


def runner_results(status, path):
    try:
        results = junit_results(path) if path.endswith(".xml") else meson_results(path)
    except (OSError, ValueError, KeyError, xml.etree.ElementTree.ParseError) as error:
        return [(FAILED, f"{path}: {error}")]
    if not results:
        return [(FAILED, f"{path}: no test ran")]
    if status != 0 and all(result != FAILED for result, _ in results):
        results.append((FAILED, f"{path}: no test failed, but its runner did, with status {status}"))
    return results


def main(arguments, skips_fail):
    results = []
    for argument in arguments:
        status, path = argument.split(":", 1)
        results += runner_results(int(status), path)
    number = {kind: sum(result == kind for result, _ in results) for kind in (PASSED, FAILED, SKIPPED)}
    for result, name in results:
        if result != PASSED:
            print(f"{result}: {name}")
    print(f"{number[PASSED]} passed, {number[FAILED]} failed, {number[SKIPPED]} skipped")
    return 1 if number[FAILED] or not number[PASSED] or (skips_fail and number[SKIPPED]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ.get("CI") == "true"))
