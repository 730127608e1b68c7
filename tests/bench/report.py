# SPDX-License-Identifier: Apache-2.0
"""What was measured, as a section of tests/bench/results.md."""
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess

from bed import command
from peers import Peers


def cell(values, digits=0):
    if not values:
        return ""
    least, most = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    return f"{statistics.median(values):,.{digits}f} ({least}-{most})"


def ratio_cell(ratios):
    return cell(ratios, 3) if len(ratios) > 1 else "".join(f"{ratio:.2f}" for ratio in ratios)


def verdict(first, ratios, other, times, at_most):
    if times is not None:
        reached = statistics.median(ratios) >= times
        return f"≥ {times:g} × {other}: " + ("reached" if reached else "**not reached**")
    if at_most is not None:
        return f"≤ {at_most:,}: " + ("reached" if first <= at_most else "**not reached**")
    return ""


def table(comparison):
    results, (first, second) = comparison.results, comparison.names
    lines = [f"| median (least-most) | {' | '.join(comparison.heads)} | to reach |", "|---" * 5 + "|"]
    for row, times, at_most in comparison.rows:
        found, ratios = results[row], comparison.ratios(row)
        digits = 2 if max(found[first]) < 100 else 0
        lines.append(f"| {row} | {cell(found[first], digits)} | {cell(found[second], digits)} | {ratio_cell(ratios)} "
                     f"| {verdict(statistics.median(found[first]), ratios, second, times, at_most)} |")
    return "\n".join(lines)


def middle(values, digits=0):
    return f"{statistics.median(values):,.{digits}f}" if values else ""


def goal_text(figure):
    value = figure.judged()
    if value is None:
        return ""
    return f"{figure.goal.text()}: " + ("reached" if figure.goal.reached(value) else f"**not reached** ({value:.2f})")


def peers_table(comparison):
    """Values, ratios, and the CPU time of each: of the kernel's routing that of its whole CPU, for want of a process."""
    names = ["homeport", *comparison.peers]
    heads = [*names, *(f": {peer}" for peer in comparison.peers)]
    costly = any(figure.costs for figure in comparison.figures.values())
    heads += [f"CPU, {name}" for name in names] * costly
    lines = [f"| | {' | '.join(heads)} | to reach |", "|---" * (len(heads) + 2) + "|"]
    for figure in comparison.figures.values():
        cells = [middle(figure.values.get(name, []), figure.digits) for name in names]
        cells += [cell(figure.ratios(peer), 2) if figure.costs else "" for peer in comparison.peers]
        if costly:
            cells += [middle(figure.costs.get(name) if name != "kernel routing" else figure.busy.get(name))
                      for name in names]
        lines.append(f"| {figure.name} | {' | '.join(cells)} | {goal_text(figure)} |")
    return "\n".join(lines)


def machine_facts():
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {"cpu": cpu[1] if cpu else platform.machine(), "cpus": os.cpu_count(), "kernel": platform.release()}


def versions(options):
    """Of what is there."""
    found = command(options.homeport, "version").splitlines()[:1]
    for words, begin in ((["nginx", "-v"], "nginx version: "), (["haproxy", "-v"], "")):
        if shutil.which(words[0]) is not None:
            done = subprocess.run(words, capture_output=True, text=True)
            found.append((done.stdout + done.stderr).splitlines()[0].replace(begin, "").partition(" 20")[0])
    return found


def machine(comparison, options):
    facts = machine_facts()
    others = len(os.sched_getaffinity(0)) - 1
    world = ("that CPU too", "the other one")[others] if others < 2 else f"the other {others}"
    which = ["--null"] if options.null else ["--only", comparison.key]
    words = ["--short"] * options.short + which + ["--rounds", str(options.rounds), "--seconds", f"{options.seconds:g}"]
    return "\n".join([
        f"- machine: {facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}; load average when it began: "
        f"{options.load_before:.2f}",
        f"- versions: {'; '.join(versions(options))}",
        f"- command: `./dev bench {' '.join(words)}`",
        *(f"- {remark}" for remark in comparison.remarks()),
        "- the balancer is a machine with one CPU: one worker, pinned to it, and the kernel receives there what comes "
        "for it (`rps_cpus`); load generator and sink have " + world + "; what else runs on this "
        "machine disturbs; ratios count and not absolute numbers",
        "- no datagram has a UDP checksum (as with `SO_NO_CHECK`), because ESP in UDP has none; what a balancer sends "
        "with UDP_SEGMENT is cut up on its own account (`gso_max_segs 1`); CPU time is that of its processes "
        "(schedstat), with the interrupts that come while they run",
    ])


def peers_remarks(comparison, options):
    return (f"- {options.rounds} rounds of {options.seconds:g} s a measurement; medians, and ratios as median "
            f"(least-most) of the rounds' own; CPU: nanoseconds of the balancer's processes per {comparison.unit}; of "
            "the kernel's routing those of its whole CPU\n")


def section(comparison, options):
    peers = isinstance(comparison, Peers)
    drawn = peers_table(comparison) if peers else table(comparison)
    remarks = peers_remarks(comparison, options) if peers else ""
    return f"# {comparison.title}\n\n{drawn}\n\n{remarks}{machine(comparison, options)}\n"


def as_json(comparison):
    """Each figure with all that was measured of it; the comparison of plugins as it has it."""
    if not isinstance(comparison, Peers):
        return {"key": comparison.key, "title": comparison.title, "results": comparison.results}
    rows = []
    for figure in comparison.figures.values():
        value, goal = figure.judged(), figure.goal
        rows.append({"name": figure.name, "values": figure.values, "cpu_ns": figure.costs, "machine_ns": figure.busy,
                     "ratios": {peer: figure.ratios(peer) for peer in comparison.peers}, "unit": comparison.unit,
                     "goal": goal and goal.text(), "reached": goal.reached(value) if value is not None else None})
    return {"key": comparison.key, "title": comparison.title, "rows": rows}


def store(path, sections):
    """Sections that were not measured this time stay; a section is known by its title."""
    old = re.split(r"^(?=# )", path.read_text(), flags=re.M) if path.exists() else []
    new = {text.splitlines()[0]: text for text in sections}
    kept = {text.splitlines()[0]: text for text in old if text.strip()}
    path.write_text("\n".join(text.strip() + "\n" for text in {**kept, **new}.values()))
