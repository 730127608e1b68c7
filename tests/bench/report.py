# SPDX-License-Identifier: Apache-2.0
"""What was measured, as a section of tests/bench/results.md."""
import os
import pathlib
import platform
import re
import statistics
import subprocess

from bed import command


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
    bare = any("no balancer" in found for found in results.values())
    lines = [f"| median (least-most) | {' | '.join(comparison.heads)} | to reach |" + " no balancer |" * bare,
             "|---" * (5 + bare) + "|"]
    for row, times, at_most in comparison.rows:
        found, ratios = results[row], comparison.ratios(row)
        digits = 2 if max(found[first]) < 100 else 0
        line = (f"| {row} | {cell(found[first], digits)} | {cell(found[second], digits)} | {ratio_cell(ratios)} "
                f"| {verdict(statistics.median(found[first]), ratios, second, times, at_most)} |")
        lines.append(line + f" {cell(found.get('no balancer', []))} |" * bare)
    return "\n".join(lines)


def machine(comparison, options):
    others = len(os.sched_getaffinity(0)) - 1
    world = ("that CPU too", "the other one")[others] if others < 2 else f"the other {others}"
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    versions = command(options.homeport, "version").splitlines()[:1]
    if comparison.key == "nginx":
        nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip()
        versions.append(nginx.replace("nginx version: ", "") + " with libnginx-mod-stream")
    which = ["--null"] if options.null else ["--only", comparison.key]
    words = ["--short"] * options.short + which + ["--rounds", str(options.rounds)]
    return "\n".join([
        f"- machine: {cpu[1] if cpu else platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}; "
        f"load average when it began: {options.load_before:.2f}",
        f"- versions: {'; '.join(versions)}",
        f"- command: `./dev bench {' '.join(words)}`",
        *(f"- {remark}" for remark in comparison.remarks()),
        "- the balancer is a machine with one CPU: one worker, pinned to it, and the kernel receives there what comes "
        "for it (`rps_cpus`); load generator and sink have " + world + "; what else runs on this "
        "machine disturbs; ratios count and not absolute numbers",
        "- no datagram has a UDP checksum (as with `SO_NO_CHECK`), because ESP in UDP has none; what a balancer sends "
        "with UDP_SEGMENT is cut up on its own account (`gso_max_segs 1`); CPU time is that of its processes, without "
        "what the kernel receives in interrupts",
    ])


def section(comparison, options):
    return f"# {comparison.title}\n\n{table(comparison)}\n\n{machine(comparison, options)}\n"


def store(path, sections):
    """Sections that were not measured this time stay; a section is known by its title."""
    old = re.split(r"^(?=# )", path.read_text(), flags=re.M) if path.exists() else []
    new = {text.splitlines()[0]: text for text in sections}
    kept = {text.splitlines()[0]: text for text in old if text.strip()}
    path.write_text("\n".join(text.strip() + "\n" for text in {**kept, **new}.values()))
