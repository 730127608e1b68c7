# SPDX-License-Identifier: Apache-2.0
"""What the lints share: a lint is a function that takes the tree's root and yields lines "FILE:LINE: what is wrong"."""
import pathlib
import sys


def sources(root, folders, suffixes):
    """The files below these folders of the tree, in a stable order."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path


def main(problems):
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    found = 0
    for problem in problems(root):
        print(problem)
        found += 1
    sys.exit(1 if found else 0)
