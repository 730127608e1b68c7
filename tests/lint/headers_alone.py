#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each header compiles alone: in C11, and the SDK's in C++11 and C++17 too, with gcc and clang, pedantic and with no
hidden padding, because a vendor's compiler is neither of ours. (clang's -Wpadded speaks of structs that are used only, so
it is gcc that finds the padding.)"""
import subprocess

import lint

STRICT = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
CORE = [["gcc", "-std=c11", "-D_GNU_SOURCE"]]
SDK = [[compiler, f"-std={standard}", "-Wpadded"]
       for standard, compilers in (("c11", ("gcc", "clang")), ("c++11", ("g++", "clang++")), ("c++17", ("g++", "clang++")))
       for compiler in compilers]


def complaint(root, header, command):
    language = "c++" if "++" in command[0] else "c"
    command = command + STRICT + ["-x", language, "-I", root / "core", "-I", root / "sdk/include", "-"]
    done = subprocess.run(command, input=f'#include "{header}"\n', stderr=subprocess.PIPE, text=True)
    return done.stderr if done.returncode else None


def problems(root):
    for folder, commands in (("core", CORE), ("sdk", SDK)):
        for header in lint.sources(root, [folder], {".h"}):
            for command in commands:
                said = complaint(root, header, command)
                if said is not None:
                    yield f"{header.relative_to(root)}:1: not alone under {' '.join(command)}:\n{said}"


if __name__ == "__main__":
    lint.main(problems)
