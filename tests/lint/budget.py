#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No function over 80 lines, no file over 600. Files that are one big table are exempt by name."""
import json
import subprocess

import lint

FUNCTION_LINES = 80
FILE_LINES = 600
EXEMPT = ()


def functions(paths):
    command = ["ctags", "--kinds-c=f", "--kinds-c++=f", "--fields=+ne", "--output-format=json", "-L", "-"]
    output = subprocess.run(command, input="\n".join(map(str, paths)), stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in output.splitlines():
        tag = json.loads(line)
        yield tag["path"], tag["name"], tag["line"], tag.get("end", tag["line"]) - tag["line"] + 1


def problems(root):
    paths = [path for path in lint.sources(root, ["core", "plugins", "sdk", "examples"], {".c", ".h", ".cc"})
             if str(path.relative_to(root)) not in EXEMPT]
    for path in paths:
        lines = len(path.read_text(errors="replace").splitlines())
        if lines > FILE_LINES:
            yield f"{path.relative_to(root)}:{lines}: file of {lines} lines, at most {FILE_LINES}"
    for path, name, line, lines in functions(paths):
        if lines > FUNCTION_LINES:
            yield f"{path.removeprefix(str(root) + '/')}:{line}: {name} has {lines} lines, at most {FUNCTION_LINES}"


if __name__ == "__main__":
    lint.main(problems)
