#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each lint passes a good tree and names what is wrong in a bad one: a lint that cannot fail is worth nothing."""
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

import budget
import headers_alone
import include_direction

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import tally  # noqa: E402


class Lints(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name).resolve()

    def tree(self, **files):
        """Writes files; core__base__log_h="..." is core/base/log.h."""
        for name, text in files.items():
            path = self.root / (name[:-2].replace("__", "/") + "." + name[-1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def finds(self, lint, text):
        found = list(lint.problems(self.root))
        self.assertEqual(len(found), 1, found)
        self.assertIn(text, found[0])

    def passes(self, lint):
        self.assertEqual(list(lint.problems(self.root)), [])

    def test_includes_downwards_pass(self):
        self.tree(core__base__log_h="", core__base__log_c='#include "base/log.h"\n#include <stdio.h>\n',
                  core__relay__own_h="", core__relay__udp_c='#include "own.h"\n#include "plugin/plugin.h"\n',
                  plugins__a__plugin_c="#include <homeport/plugin.h>\n")
        self.passes(include_direction)

    def test_upward_include_is_found(self):
        self.tree(core__base__log_c='\n#  include "relay/relay.h"\n')
        self.finds(include_direction, "core/base/log.c:2: relay/relay.h: base may not see relay")

    def test_sideward_include_is_found(self):
        self.tree(core__relay__udp_c='#include "monitor/monitor.h"\n')
        self.finds(include_direction, "relay may not see monitor")

    def test_enum_of_the_segment_that_the_configuration_speaks_passes_alone(self):
        self.tree(core__config__config_h='#include "segment/layout.h"\n')
        self.passes(include_direction)
        self.tree(core__config__config_h='#include "segment/segment.h"\n')
        self.finds(include_direction, "config may not see segment")

    def test_way_around_by_dots_or_angles_is_found(self):
        self.tree(core__base__a_c='#include "../relay/relay.h"\n')
        self.finds(include_direction, "core/base/a.c:1")
        self.tree(core__base__a_c="#include <relay/relay.h>\n")
        self.finds(include_direction, "use quotes")

    def test_plugin_that_sees_the_core_is_found(self):
        self.tree(plugins__a__plugin_c='#include "base/log.h"\n')
        self.finds(include_direction, "only the SDK")

    def test_sdk_that_sees_the_core_is_found(self):
        self.tree(sdk__include__homeport__plugin_h='#include "base/endpoint.h"\n')
        self.finds(include_direction, "only the SDK")

    def test_unknown_layer_is_found(self):
        self.tree(core__base__a_c='#include "util/util.h"\n')
        self.finds(include_direction, "no known layer")

    def test_function_of_80_lines_passes_and_of_81_is_found(self):
        def function(lines):
            return "int f(void)\n{\n" + "\n" * (lines - 4) + "    return 0;\n}\n"

        self.tree(core__base__a_c=function(80))
        self.passes(budget)
        self.tree(core__base__a_c=function(81))
        self.finds(budget, "core/base/a.c:1: f has 81 lines")

    def test_file_of_600_lines_passes_and_of_601_is_found(self):
        self.tree(plugins__a__plugin_c="int x;\n" * 600)
        self.passes(budget)
        self.tree(plugins__a__plugin_c="int x;\n" * 601)
        self.finds(budget, "file of 601 lines")

    def test_header_that_needs_another_is_found(self):
        self.tree(core__base__good_h="#include <stdint.h>\nuint8_t f(void);\n")
        self.passes(headers_alone)
        self.tree(core__base__good_h="uint8_t f(void);\n")
        self.finds(headers_alone, "core/base/good.h:1: not alone under gcc -std=c11")

    def test_sdk_header_that_is_not_cxx_or_has_padding_is_found(self):
        self.tree(sdk__include__homeport__plugin_h="struct hp_x { int a, class_; };\n")
        self.passes(headers_alone)
        self.tree(sdk__include__homeport__plugin_h="struct hp_x { int a, class; };\n")
        found = list(headers_alone.problems(self.root))
        self.assertEqual(len(found), 4, "C++11 and C++17 with two compilers: " + "".join(found))
        self.tree(sdk__include__homeport__plugin_h="struct hp_x { char a; int b; };\n")
        self.assertEqual(len(list(headers_alone.problems(self.root))), 3, "gcc in three languages")


class Tally(unittest.TestCase):
    """The closing line of all tests is green only when something ran and all of it passed."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def meson(self, output, result="OK", status=0):
        path = self.root / "testlog.json"
        path.write_text(json.dumps({"name": "unit", "stdout": output, "result": result}) + "\n")
        return f"{status}:{path}"

    def junit(self, text, status=0):
        path = self.root / "system.xml"
        path.write_text(f"<testsuites><testsuite>{text}</testsuite></testsuites>")
        return f"{status}:{path}"

    def says(self, line, code, *arguments, skips_fail=False):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            result = tally.main(arguments, skips_fail)
        self.assertEqual((output.getvalue().splitlines()[-1], result), (line, code), output.getvalue())

    def test_adds_up_all_runners(self):
        self.says("3 passed, 0 failed, 1 skipped", 0, self.meson("1..2\nok - a::b  (0.00s)\nok - a::c\n"),
                  self.junit('<testcase name="x"/><testcase name="y"><skipped/></testcase>'))

    def test_failure_in_either_fails(self):
        self.says("1 passed, 1 failed, 0 skipped", 1, self.meson("1..2\nok - a::b\nnot ok - a::c\n", "FAIL", 1))
        self.says("1 passed, 1 failed, 0 skipped", 1,
                  self.junit('<testcase name="x"/><testcase name="y"><error/></testcase>', 1))

    def test_no_test_at_all_fails(self):
        self.says("0 passed, 1 failed, 0 skipped", 1, self.meson("1..0\n"))
        self.says("0 passed, 1 failed, 0 skipped", 1, self.junit("", 5))
        self.says("0 passed, 1 failed, 0 skipped", 1, f"0:{self.root}/not-there.xml")
        self.says("0 passed, 0 failed, 0 skipped", 1)

    def test_program_that_ends_before_its_plan_fails(self):
        self.says("1 passed, 1 failed, 0 skipped", 1, self.meson("1..2\nok - a::b\n", "ERROR", 1))

    def test_runner_that_fails_without_a_failed_test_fails(self):
        self.says("1 passed, 1 failed, 0 skipped", 1, self.meson("1..1\nok - a::b\n", "ERROR", 77))
        self.says("1 passed, 1 failed, 0 skipped", 1, self.junit('<testcase name="x"/>', 2))

    def test_skipped_test_fails_where_told_so(self):
        skipped = '<testcase name="x"/><testcase name="y"><skipped/></testcase>'
        self.says("1 passed, 0 failed, 1 skipped", 0, self.junit(skipped))
        self.says("1 passed, 0 failed, 1 skipped", 1, self.junit(skipped), skips_fail=True)


if __name__ == "__main__":
    unittest.main()
