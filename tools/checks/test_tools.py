#!/usr/bin/env python3
"""Tests of the tools themselves, on small trees in a temporary folder: python3 tools/checks/test_tools.py"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "make"))

import check_cost
import dist
from amalgamate import Refusal, includes, join, layers, read_parts
from check_snippets import Snippet, dead_links, is_definition, outermost, program, snippets_of, stale_copies
from check_version import STATED, faults_of, faults_of_readme, stated_fault
from cpp_text import blank
from export_names import Name, Unknown, module_text, names_in
from join_tests import groups_of, preamble, stands_alone, unit
from reference_filter import seen_by_users
from run_tests import Outcome, environment, judge, run, run_check, run_nested, show_costs

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools" / "make"

GOOD = {
    "manifest.txt": "# the lowest first\nbase\n\nlow  # a layer\nlow/deep\nhigh\n",
    "base/config.hpp": "// Macros.\n#pragma once\n\n#include <cassert>\n\n#define ANYIO_NET_VERSION_MAJOR 1\n"
    "#define ANYIO_NET_VERSION_MINOR 2\n#define ANYIO_NET_VERSION_PATCH 3\n",
    "low/low.hpp": (
        '// Low.\n#pragma once\n\n#include "base/config.hpp"\n\n#include <cassert>\n#include <string>\n\n'
        "#if 1\n#include <string>\n#endif\n\n/// A contract.\nint low();\n"
    ),
    "low/first.hpp": '#pragma once\n#include "low/low.hpp"\nint first();\n',
    "low/deep/deep.hpp": '#pragma once\n#include "low/first.hpp"\nint deep();\n',
    "high/high.hpp": '#pragma once\n#include "low/low.hpp"\n#include <vector>\n/* #include "no/thing.hpp" */\nint high();\n',
    "low/low.ipp": '#include "low/low.hpp"\n\n#include <vector>\n#include <map>\n\nint low() { return 1; }\n',
    "high/high.ipp": '#include "high/high.hpp"\n#include "low/low.ipp"\n#include <map>\nint high() { return low(); }\n',
}


class Tree(unittest.TestCase):
    """A test src/ in a temporary folder."""

    def setUp(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.root = Path(self._folder.name)
        self.src = self.root / "src"
        self.src.mkdir()
        for name, text in GOOD.items():
            (self.src / name).parent.mkdir(parents=True, exist_ok=True)
            (self.src / name).write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.src / name).read_text()
        self.assertIn(old, text)
        (self.src / name).write_text(text.replace(old, new))


class Joining(Tree):
    def test_joined_header(self) -> None:
        lines = join(self.src).splitlines()
        self.assertTrue(lines[0].startswith("// anyio_net.hpp 1.2.3"))
        for line, times in {
            "#pragma once": 1, "#include <cassert>": 1, "#include <string>": 2, "#include <vector>": 1,
            "#include <map>": 1, "/// A contract.": 1, "#if ANYIO_NET_DEFINE": 1, "#endif  // ANYIO_NET_DEFINE": 1,
        }.items():  # fmt: skip
            self.assertEqual(lines.count(line), times, line)
        self.assertFalse([line for line in lines if line.startswith('#include "')])
        begin, end = lines.index("#if ANYIO_NET_DEFINE"), lines.index("#endif  // ANYIO_NET_DEFINE")
        self.assertLess(lines.index("int high();"), begin)
        self.assertTrue(begin < lines.index("int low() { return 1; }") < end)
        self.assertFalse([n for n in range(1, len(lines)) if not lines[n] and not lines[n - 1]], "double blank line")

    def test_header_of_includes(self) -> None:
        text = includes(self.src, self.root / "build" / "x.hpp")
        self.assertIn('#include "../src/low/low.hpp"\n', text)
        self.assertLess(text.index("high.hpp"), text.index("#if ANYIO_NET_DEFINE"))
        self.assertLess(text.index("#if ANYIO_NET_DEFINE"), text.index("low.ipp"))

    def test_order(self) -> None:
        names = [part.name for part in read_parts(self.src)]
        self.assertEqual(
            names,
            ["base/config.hpp", "low/low.hpp", "low/first.hpp", "low/deep/deep.hpp", "high/high.hpp"]
            + ["low/low.ipp", "high/high.ipp"],
        )
        self.assertEqual(layers(self.src), "base: config\nlow: low, first\nlow/deep: deep\nhigh: high")
        text = join(self.src)
        for name in names:
            self.assertIn(f"\n// == {name} ==", text)

    def test_check_tells_a_stale_header(self) -> None:
        def amalgamate(*options: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, str(TOOLS / "amalgamate.py"), "--root", str(self.root), *options]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        self.assertEqual(amalgamate("--check").returncode, 1)
        self.assertEqual(amalgamate().returncode, 0)
        first = (self.root / "anyio_net.hpp").read_bytes()
        self.assertEqual(amalgamate("--check").returncode, 0)
        self.edit("high/high.ipp", "return low()", "return 1 + low()")
        stale = amalgamate("--check")
        self.assertEqual(stale.returncode, 1)
        self.assertIn("run `make`", stale.stderr)
        self.edit("high/high.ipp", "return 1 + low()", "return low()")
        amalgamate()
        self.assertEqual((self.root / "anyio_net.hpp").read_bytes(), first)


class Layers(unittest.TestCase):
    def test_the_table_of_the_architecture_is_what_src_holds(self) -> None:
        table = re.findall(r"^\| `([\w/]+)` \| (.*?) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
        told = "\n".join(f"{folder}: {parts.replace('`', '')}" for folder, parts in table)
        self.assertEqual(told, layers(ROOT / "src"))


class Refusing(Tree):
    def refuses(self, *words: str) -> None:
        with self.assertRaises(Refusal) as caught:
            join(self.src)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_include_of_a_folder_below(self) -> None:
        self.edit("low/low.hpp", '"base/config.hpp"', '"high/high.hpp"')
        self.refuses("src/low/low.hpp:4:", "high stands below low")

    def test_include_of_itself(self) -> None:
        self.edit("low/low.hpp", '"base/config.hpp"', '"low/low.hpp"')
        self.refuses("src/low/low.hpp:4:", "includes itself")

    def test_cycle(self) -> None:
        self.edit("low/low.hpp", '"base/config.hpp"', '"low/first.hpp"')
        self.refuses("low/first.hpp -> low/low.hpp -> low/first.hpp", "break it")

    def test_definitions_including_definitions_below(self) -> None:
        self.edit("low/low.ipp", '"low/low.hpp"', '"high/high.ipp"')
        self.refuses("src/low/low.ipp:1:", "high stands below low")

    def test_declarations_including_definitions(self) -> None:
        self.edit("high/high.hpp", '"low/low.hpp"', '"low/low.ipp"')
        self.refuses("src/high/high.hpp:2:", "may not include definitions")

    def test_include_inside_a_conditional_is_checked_too(self) -> None:
        self.edit("low/low.hpp", "#if 1\n#include <string>", '#if 1\n#include "high/high.hpp"')
        self.refuses("src/low/low.hpp:10:", "high stands below low")

    def test_include_of_no_part(self) -> None:
        self.edit("high/high.hpp", '#include "low/low.hpp"', '#include "low/other.hpp"')
        self.refuses("src/high/high.hpp:2:", "is not in src/")

    def test_unlisted_folder(self) -> None:
        (self.src / "extra").mkdir()
        (self.src / "extra/extra.hpp").write_text("#pragma once\n")
        self.refuses("src/extra/extra.hpp:1:", "does not list")

    def test_file_outside_the_folders(self) -> None:
        (self.src / "extra.hpp").write_text("#pragma once\n")
        self.refuses("src/extra.hpp:1:", "does not list")

    def test_file_that_is_no_part(self) -> None:
        (self.src / "low/notes.md").write_text("words\n")
        self.refuses("src/low/notes.md:1:", "not a part")

    def test_missing_folder(self) -> None:
        self.edit("manifest.txt", "high", "high\nnone")
        self.refuses("src/manifest.txt:7:", "not a folder")

    def test_folder_listed_twice(self) -> None:
        self.edit("manifest.txt", "high", "high\nlow")
        self.refuses("src/manifest.txt:7:", "listed twice")

    def test_macro_of_another_prefix(self) -> None:
        self.edit("base/config.hpp", "#define", "#define OTHER 1\n#define")
        self.refuses("src/base/config.hpp:6:", "OTHER", "ANYIO_NET_")

    def test_unbalanced_conditional(self) -> None:
        self.edit("low/low.hpp", "#endif", "")
        self.refuses("src/low/low.hpp:9:", "#if without #endif")

    def test_missing_pragma_once(self) -> None:
        self.edit("high/high.hpp", "#pragma once\n", "")
        self.refuses("src/high/high.hpp:1:", "#pragma once")

    def test_missing_version(self) -> None:
        self.edit("base/config.hpp", "#define ANYIO_NET_VERSION_MINOR 2", "")
        self.refuses("ANYIO_NET_VERSION")


class Text(unittest.TestCase):
    def test_blank(self) -> None:
        for text in [
            "a /* b\n c */ d // e \\\n f\ng",
            "x = 'a\"' + \"b'//\" + 1'000 + R\"x(\"//)x\" + u8\"\\\"\";",
            "/* open",
        ]:
            result = blank(text)
            self.assertEqual(len(result), len(text))
            self.assertEqual(result.count("\n"), text.count("\n"))
        self.assertEqual(blank("a/*b*/c//d").split(), ["a", "c"])
        self.assertEqual(blank("1'000 + f('a')"), "1'000 + f(' ')")
        self.assertEqual(blank('R"(\'")" + x').replace(" ", ""), '""+x')


class Names(unittest.TestCase):
    """export_names.py"""

    def names(self, code: str) -> list[str]:
        found = names_in("namespace anyio { inline namespace ABI {\n" + code + "\n}}\n#if ANYIO_NET_DEFINE\nint f();\n")
        return [f"{n.namespace}::{n.name}" + (f" if {n.condition}" if n.condition else "") for n in found]

    def test_what_a_declaration_introduces(self) -> None:
        for code, name in {
            "class [[nodiscard]] a final : public b<c> { void f(); int g() { return 1; } };": "a",
            "template <class T = void> class a;": "a",
            "template <class T> requires c<T> && (d<T> || !e) struct a { T t{}; };": "a",
            "enum class a : int { x, y };": "a",
            "using a = std::chrono::nanoseconds;": "a",
            "template <class T> concept a = requires(T t) { t.f(); };": "a",
            "[[nodiscard]] ANYIO_NET_FN std::pair<int, b> a(int x = f(1), b y = {}) noexcept;": "a",
            "template <class F> auto a(F f) -> std::enable_if_t<(c<F>), int> { if (f) { return {}; } return 1; }": "a",
            "inline constexpr std::size_t a = 1 << (2 + 3);": "a",
            "inline constexpr b<c> a{};": "a",
            "extern const char* a;": "a",
            "template <class T> b<T> operator co_await(c<T>&& r) { return {}; }": "operator co_await",
            "bool operator==(a, b);": "operator ==",
            "constexpr int a() { return '{'; }  // }": "a",
        }.items():
            self.assertEqual(self.names(code), [f"anyio::{name}"], code)

    def test_what_introduces_no_name(self) -> None:
        for code in (
            "namespace detail { int f(); class a {}; }",
            "template <> struct a<int> { int x; };",
            "template <class T> a(T) -> a<T>;",
            "ANYIO_NET_FN void a::f() {}",
            "inline a::a() : x(1), y{2} {}",
            "class a::b { int c; };",
            "static_assert(sizeof(int) == 4);",
            'extern "C" { int f(); }',
            "#define f() g()",
        ):
            self.assertEqual(self.names(code), [], code)

    def test_conditions_and_namespaces_inside(self) -> None:
        code = "int a();\n#if X\nint a(int);\nint b();\n#if Y\nint c();\n#else\nint d();\n#endif\n#endif\nnamespace in { int e(); }"
        self.assertEqual(
            self.names(code),
            ["anyio::a", "anyio::d if (X) && (!(Y))", "anyio::c if (X) && (Y)", "anyio::b if X", "anyio::in::e"],
        )

    def test_what_is_not_understood_is_an_error(self) -> None:
        self.assertRaises(Unknown, self.names, "what;")
        self.assertRaises(Unknown, self.names, "int (*f)(int);")

    def test_module(self) -> None:
        text = module_text([Name("anyio", "a", ""), Name("anyio", "b", "X"), Name("anyio::in", "c", "Y")])
        self.assertTrue(
            text.endswith(
                "export namespace anyio {\nusing anyio::a;\n#if X\nusing anyio::b;\n#endif\n}\n"
                "\n#if Y\nexport namespace anyio::in {\nusing anyio::in::c;\n}\n#endif\n"
            )
        )


class Units(unittest.TestCase):
    """join_tests.py"""

    def test_files_of_a_folder_stand_together_in_units_of_equal_length(self) -> None:
        files = [(f"tests/{name}.cpp", "\n" * 10) for name in ("loop/b", "base/a", "tls/c", "loop/a", "base/b", "tls/d")]
        groups = groups_of(files, 20, {"tls"})
        self.assertEqual(
            {name: [[path for path, _ in members] for members in units] for name, units in groups.items()},
            {
                "joined": [["tests/base/a.cpp", "tests/base/b.cpp"], ["tests/loop/a.cpp", "tests/loop/b.cpp"]],
                "tls": [["tests/tls/c.cpp", "tests/tls/d.cpp"]],
            },
        )
        self.assertEqual([len(units) for units in groups_of(files, 1000, set()).values()], [1])
        self.assertEqual(sum(len(members) for members in groups_of(files, 1, set())["joined"]), len(files))

    def test_a_file_that_sets_a_macro_before_an_include_stands_alone(self) -> None:
        self.assertTrue(stands_alone("#define A\n#include <a>\n"))
        self.assertTrue(stands_alone("#include <a>\n#undef A\n#include <b>\n"))
        self.assertFalse(stands_alone("#include <a>\n#define A\n"))
        self.assertFalse(stands_alone("// #define A\n#include <a>\n"))

    def test_a_unit_includes_once_what_its_files_include_and_keeps_conditions(self) -> None:
        first = '#include "x.hpp"\n#include <a>\nint f();\n'
        second = "#include <a>\n#if B\n#include <b>\n#else\n#include <c>\n#endif\n// #include <d>\n"
        self.assertEqual(
            preamble([first, second]),
            ['#include "x.hpp"', "#include <a>", "#if B", "#include <b>", "#else", "#include <c>", "#endif"],
        )
        text = unit([("tests/base/test_a.cpp", first), ("tests/base/test_b.cpp", second)])
        self.assertIn('namespace unit_of_test_a {\n#include "tests/base/test_a.cpp"\n}\n', text)
        self.assertLess(text.index("#include <a>"), text.index("namespace unit_of_test_a"))

    def test_the_longest_unit_comes_first_and_the_text_is_written_only_when_it_changes(self) -> None:
        tests = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests" / "base").glob("test_*.cpp"))]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(TOOLS / "join_tests.py"), folder, "300", *tests]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            lengths = [
                sum((ROOT / path).read_text().count("\n") for path in re.findall(r'"(tests/base/\S+)"', Path(file).read_text()))
                for file in said
            ]
            self.assertEqual(sum(lengths), sum((ROOT / path).read_text().count("\n") for path in tests))
            self.assertEqual(lengths, sorted(lengths, reverse=True))
            self.assertGreater(len(said), 1)
            before = {file: Path(file).stat().st_mtime_ns for file in said}
            subprocess.run(command, capture_output=True, check=True)
            self.assertEqual({file: Path(file).stat().st_mtime_ns for file in said}, before)


class Results(unittest.TestCase):
    def summary(self, cases: int, passed: int, failed: int) -> str:
        return f"[doctest] test cases: {cases:3} | {passed:2} passed | {failed} failed | 0 skipped\n"

    def test_judge(self) -> None:
        for status, output, expected in [
            (0, self.summary(3, 3, 0), (3, 0)),
            (1, self.summary(3, 1, 2), (1, 2)),
            (66, self.summary(3, 3, 0), (3, 1)),
            (-11, "", (0, 1)),
            (None, self.summary(1, 0, 1), (0, 1)),
            (0, "", (0, 1)),
            (0, self.summary(0, 0, 0), (0, 1)),
        ]:
            tally, _ = judge(Outcome(status, output))
            self.assertEqual((tally.passed, tally.failed), expected, output)

    def test_no_job_server_is_inherited(self) -> None:
        self.assertNotIn("jobserver", environment().get("MAKEFLAGS", ""))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(TOOLS / "run_tests.py"), *arguments]

    def lines_of_steps(self, *arguments: str) -> tuple[int, list[str]]:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    def run_steps(self, *arguments: str) -> tuple[int, str]:
        status, lines = self.lines_of_steps(*arguments)
        return status, lines[-1]

    def on_a_terminal(self, *arguments: str) -> str:
        """What a terminal of 80 columns is sent."""
        ours, theirs = pty.openpty()
        environment = {**os.environ, "COLUMNS": "80"}
        with subprocess.Popen(self.command(*arguments), stdout=theirs, stderr=theirs, env=environment):
            os.close(theirs)
            said = b""
            with contextlib.suppress(OSError):  # which is how the end of a terminal looks on Linux
                while more := os.read(ours, 1 << 16):
                    said += more
        os.close(ours)
        return said.decode().replace("\r\n", "\n")

    def make_folder(self) -> tuple[str, str, str]:
        """A command that calls make, which compiles two files; the program that it builds; the Makefile's path."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        makefile, binary = Path(folder.name, "Makefile"), Path(folder.name, "program")
        compile_file = '\t@echo "  gcc: tests/$@.cpp"\n\t@sleep 0.4\n'
        makefile.write_text(f"all: a b\n\t@echo warning: unused\na:\n{compile_file}b: a\n{compile_file}")
        binary.write_text(f"#!/bin/sh\nprintf '{self.summary(1, 1, 0).strip()}\\n'\n")
        binary.chmod(0o755)
        return f"make --no-print-directory -C {folder.name}", str(binary), str(makefile)

    def test_closing_line(self) -> None:
        good, bad = ["--check", "good", "true"], ["--check", "bad", "false"]
        self.assertEqual(self.run_steps(*good), (0, "1 passed, 0 failed"))
        self.assertEqual(self.run_steps(*good, *bad), (1, "1 passed, 1 failed"))
        self.assertEqual(self.run_steps(), (1, "0 passed, 0 failed"))
        self.assertEqual(self.run_steps("--suite", "s", "false", "true"), (1, "0 passed, 1 failed"))
        self.assertEqual(self.run_steps("--suite", "s", "true", "no/such/program"), (1, "0 passed, 1 failed"))
        self.assertEqual(self.run_steps("--timeout", "0.2", "--check", "slow", "sleep 60"), (1, "0 passed, 1 failed"))
        nested = f"{sys.executable} {TOOLS}/run_tests.py --check good true --check good true"
        self.assertEqual(self.run_steps(*good, "--nested", "n", nested), (0, "3 passed, 0 failed"))
        self.assertEqual(self.run_steps(*good, "--nested", "n", nested + "; false"), (1, "3 passed, 1 failed"))
        self.assertEqual(self.run_steps(*good, "--nested", "n", "exit 3"), (1, "1 passed, 1 failed"))

    def test_next_steps_begin_while_a_suite_runs(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            first, second = Path(folder, "first"), Path(folder, "second")
            wait = f'for i in $(seq 500); do [ -e {folder}/built ] && break; sleep 0.02; done; [ -e {folder}/built ]'
            for path, condition in (first, wait), (second, "true"):
                path.write_text(f"#!/bin/sh\n{condition} && printf '{self.summary(1, 1, 0).strip()}\\n'\n")
                path.chmod(0o755)
            build = f"touch {folder}/built"
            self.assertEqual(
                self.run_steps("--suite", "1", "true", str(first), "--suite", "2", build, str(second)),
                (0, "2 passed, 0 failed"),
            )
            Path(folder, "built").unlink()
            check = ["--check", "c", build, "--check", "d", "false"]
            self.assertEqual(self.run_steps("--suite", "1", "true", str(first), *check), (1, "2 passed, 1 failed"))

    def test_suites_run_one_after_the_other(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "program")
            busy = f"mkdir {folder}/busy || exit 1; sleep 0.2; rmdir {folder}/busy"
            program.write_text(f"#!/bin/sh\n{busy}; printf '{self.summary(1, 1, 0).strip()}\\n'\n")
            program.chmod(0o755)
            suites = ["--suite", "s", "true", str(program)] * 3
            self.assertEqual(self.run_steps(*suites), (0, "3 passed, 0 failed"))

    def test_scripts_run_side_by_side(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for mine, other in ("a", "b"), ("b", "a"):
                Path(folder, f"{mine}.sh").write_text(
                    f"touch {folder}/{mine}\n"
                    f"for i in $(seq 500); do [ -e {folder}/{other} ] && exit 0; sleep 0.02; done\nexit 1\n"
                )
            scripts = ["--script", f"{folder}/a.sh", "--script", f"{folder}/b.sh"]
            self.assertEqual(self.run_steps(*scripts, "--check", "good", "true"), (0, "3 passed, 0 failed"))

    def test_expensive_steps_are_listed(self) -> None:
        with mock.patch("run_tests.costs", [(3.0, 9.0, "cheap"), (20.0, 5.0, "slow"), (15.0, 30.0, "busy")]):
            with contextlib.redirect_stdout(io.StringIO()) as said:
                show_costs()
        lines = [line.split() for line in said.getvalue().splitlines()]
        self.assertEqual(lines, [["processor", "seconds", "step"], ["30", "15", "busy"], ["5", "20", "slow"]])

    def test_processor_time_is_that_of_all_processes_of_a_step(self) -> None:
        loop = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.3: pass'"
        outcome = run(["sh", "-c", f"{loop} & {loop}; wait"], 60)
        self.assertGreaterEqual(outcome.processor, 0.6)

    def test_without_a_terminal_each_step_is_one_line(self) -> None:
        build, binary, makefile = self.make_folder()
        status, lines = self.lines_of_steps("--suite", "s", build, binary, "--check", "c", build)
        self.assertEqual(status, 0)
        self.assertEqual([line for line in lines if line.startswith(("make", "warning"))][-1], "warning: unused")
        self.assertFalse([line for line in lines if "gcc:" in line or "\r" in line or "progress" in line])
        steps = [line for line in lines if line.startswith("ok")]
        self.assertEqual(len(steps), 2)
        self.assertRegex(steps[0], r"^ok    s: 1 passed, 0 failed \(built in \d\.\d s, 0\.\d s\)$")
        Path(makefile).write_text("all:\n\t@echo '  gcc: tests/a.cpp'\n\t@echo '  a.cpp:1: error'\n\t@false\n")
        status, lines = self.lines_of_steps("--check", "c", build)
        self.assertEqual(status, 1)
        self.assertIn("  a.cpp:1: error", lines)
        self.assertNotIn("  gcc: tests/a.cpp", lines)

    def test_a_terminal_is_shown_what_is_compiled(self) -> None:
        build, binary, _ = self.make_folder()
        suite = ["--suite", "s", build, binary]
        nested = " ".join(shlex.quote(word) for word in self.command("--check", "good", "true", *suite))
        for arguments, step in ((suite, r"\[1 of 1\]"), (["--nested", "n", nested], r"n \[2 of 2\]")):
            said = self.on_a_terminal(*arguments)
            for n, file in (1, "a"), (2, "b"):
                shown = rf"\r\x1b\[K{step} building s, {n} of 2 gcc: tests/{file}\.cpp, \d s(?=\r)"
                self.assertRegex(said, shown)
            self.assertEqual(re.sub(r"\r\x1b\[K[^\r\n]*(?=\r)", "", said).count("building"), 0)
            self.assertTrue(said.endswith(" passed, 0 failed\n"))
            self.assertLessEqual(max(len(line) for line in re.split(r"[\r\n]", said)), 80 + len("\x1b[K"))

    def test_a_nested_command_hands_its_costs_up(self) -> None:
        inner = " ".join(shlex.quote(word) for word in self.command("--check", "inner", "true"))
        with mock.patch("run_tests.costs", []) as costs, contextlib.redirect_stdout(io.StringIO()) as said:
            run_nested("outer", inner)
        self.assertEqual([name for _, _, name in costs], ["inner"])
        self.assertNotIn("cost:", said.getvalue())

    def test_what_a_check_skipped_is_told(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            tally = run_check("c", ["sh", "-c", "echo noise; echo skipped: a part"], 60)
        self.assertEqual((tally.passed, tally.failed), (1, 0))
        self.assertIn("skipped: a part\n", said.getvalue())
        self.assertNotIn("noise", said.getvalue())

    def test_script_that_cannot_run_here(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
            script.write("echo skipped: no such program\nexit 77\n")
            script.flush()
            good = ["--check", "good", "true"]
            self.assertEqual(self.run_steps(*good, "--script", script.name), (0, "1 passed, 0 failed"))

    def test_what_cannot_run_here_counts_nothing(self) -> None:
        good = ["--check", "good", "true"]
        self.assertEqual(self.run_steps(*good, "--check", "skipped", "exit 77"), (0, "1 passed, 0 failed"))
        self.assertEqual(self.run_steps(*good, "--suite", "s", "exit 77", "no/such"), (0, "1 passed, 0 failed"))
        self.assertEqual(self.run_steps("--suite", "s", "exit 77", "no/such"), (1, "0 passed, 0 failed"))


class Snippets(unittest.TestCase):
    def at_namespace_scope(self, code: str) -> bool:
        return any(is_definition(piece) for piece in outermost(blank(code)))

    def test_where_a_snippet_stands(self) -> None:
        for code in [
            "task<> echo(tcp_stream s) {\n  co_await s.send(x);\n}",
            "struct a { int b; };",
            "template <class T> T f(T t) { return t; }",
            "auto f(int x) -> task<int> { co_return x; }",
            "static int x() { return 1; }",
            "anyio::task<std::vector<int>> f(std::string_view a = {}, int b = 1) {}",
        ]:
            self.assertTrue(self.at_namespace_scope(code), code)
        for code in [
            "auto n = co_await s.receive(b);",
            "co_await l.serve([](tcp_stream s) -> task<> {\n  co_return;\n});",
            "if (auto r = co_await as_result(op); r) {\n  use(*r);\n}",
            "auto f = [](int x) { return x; };",
            "s.receive(b).start([](result<std::size_t> r) { });",
            "for (int i = 0; i < 3; ++i) {\n}",
            "tcp_listener l = co_await create_tcp_listener({.local_port = 80});",
            "while (co_await s.receive(b)) { }",
        ]:
            self.assertFalse(self.at_namespace_scope(code), code)

    def test_macros_of_a_snippet_stand_before_the_header(self) -> None:
        text = program(Snippet(Path("x.md"), 3, "#define ANYIO_NET_SIM\nint x = 1;"))
        self.assertLess(text.index("ANYIO_NET_SIM"), text.index("anyio_net.hpp"))
        self.assertIn("task<> snippet()", text)

    def test_a_copy_is_its_file_word_for_word(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "a.hpp").write_text("int a;\n\nint b;\n", encoding="utf-8")
            page = "# Title\n\n<!-- copy of a.hpp -->\n\n```cpp nocompile\nint a;\n\nint b;\n```\n\nMore.\n"
            self.assertEqual(stale_copies(page, root), [])
            self.assertEqual(stale_copies(page.replace("int b", "int c"), root), ["a.hpp"])
            self.assertEqual(stale_copies(page.replace("int b;\n", ""), root), ["a.hpp"])
            self.assertEqual(stale_copies(page.replace("int b;\n", "int b;\nint c;\n"), root), ["a.hpp"])
            self.assertEqual(stale_copies("<!-- copy of a.hpp -->\nNo block.\n", root), ["a.hpp"])

    def test_links(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            page, other = Path(folder) / "page.md", Path(folder) / "other.md"
            other.write_text("# A warning about `g++` 12\n```sh\n# no heading\n```\n", encoding="utf-8")
            page.write_text("# Top\n[a](#top) [b](other.md#a-warning-about-g-12) [c](https://x.org/#y) `[d](e)`\n",
                            encoding="utf-8")
            self.assertEqual(dead_links(page), [])
            page.write_text("[a](#top) [b](other.md#no-heading) [c](none.md)\n", encoding="utf-8")
            self.assertEqual(dead_links(page), ["#top", "other.md#no-heading", "none.md"])

    def test_a_snippet_may_want_a_tls_library(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            page.write_text("```cpp openssl\na;\n```\n```cpp\nb;\n```\n```cpp nocompile\nc;\n```\n", encoding="utf-8")
            flags = [snippet.flags for snippet in snippets_of(page)]
            self.assertEqual(flags, [("-DANYIO_NET_OPENSSL",), ()])


class Cost(unittest.TestCase):
    """Uses an invented scenario."""

    NOW = {"instructions": 1000.0, "system calls": 2.016, "allocations": 0.0}
    COMPILER = "g++ 12.2.0, x86_64"

    def check(self, *measured: dict[str, float], compiler: str = COMPILER, **recorded: float) -> tuple[int, str]:
        """The status and the words of a check that measures these figures in turn, the last one again and again."""
        figures = {**self.NOW, **{name.replace("_", " "): value for name, value in recorded.items()}}
        times = iter(measured)
        latest: list[dict[str, float]] = []

        def measure(program: str, scenario: object, by_callgrind: bool) -> tuple[dict[str, float], str]:
            latest[:] = [next(times, latest[0] if latest else self.NOW)]
            return {name: n for name, n in latest[0].items() if by_callgrind or name != "instructions"}, "recvfrom 1"

        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "record.json"
            record.write_text(json.dumps({"compiler": self.COMPILER, "scenarios": {"echo": figures}}))
            options = argparse.Namespace(program="", scenarios=[], record_file=record, jobs=1)
            said = io.StringIO()
            with mock.patch("check_cost.measure", measure), contextlib.redirect_stdout(said):
                status = check_cost.check(options, [check_cost.Scenario("echo", 64, "")], compiler)
            return status, said.getvalue()

    def test_what_is_as_recorded_passes(self) -> None:
        self.assertEqual(self.check(self.NOW)[0], 0)
        self.assertEqual(self.check(self.NOW, instructions=960.0)[0], 0)

    def test_a_record_that_is_lower_fails(self) -> None:
        status, said = self.check(self.NOW, instructions=900.0)
        self.assertEqual(status, 1)
        for word in ("900.0", "1000.0", "1.111", "MORE", "record-cost"):
            self.assertIn(word, said)
        for recorded in ({"system_calls": 2.0}, {"allocations": -0.01}, {"instructions": 950.0}):
            self.assertEqual(self.check(self.NOW, **recorded)[0], 1, recorded)

    def test_a_record_that_is_higher_passes_and_is_mentioned(self) -> None:
        for recorded in ({"instructions": 1100.0}, {"system_calls": 3.0}, {"allocations": 1.0}):
            status, said = self.check(self.NOW, **recorded)
            self.assertEqual(status, 0, recorded)
            self.assertIn("cheaper than recorded: echo", said)
        self.assertNotIn("cheaper", self.check(self.NOW, instructions=1040.0)[1])

    def test_what_is_too_high_only_once_passes(self) -> None:
        self.assertEqual(self.check({**self.NOW, "system calls": 2.017 + 0.016}, self.NOW)[0], 0)

    def test_another_compiler(self) -> None:
        for compiler in ("g++ 13.1.0, x86_64", "clang++ 12.2.0, x86_64", "g++ 12.2.0, aarch64"):
            status, said = self.check(self.NOW, compiler=compiler, instructions=1.0)
            self.assertEqual(status, 0, compiler)
            self.assertIn("instructions skipped", said)
            self.assertEqual(self.check(self.NOW, compiler=compiler, system_calls=1.0)[0], 1)
        self.assertEqual(self.check(self.NOW, compiler="g++ 12.3.1 20230101, x86_64", instructions=1.0)[0], 1)

    def test_scenario_and_record_must_agree(self) -> None:
        verdict = check_cost.compare({}, {"echo": self.NOW})
        self.assertIn("not in the record", verdict.too_high["echo"])

    def test_calls_between_the_marks(self) -> None:
        trace = (
            "7 getppid()   = 1\n7 recvfrom(5, \"\"..., 9) = 9\n8 futex(0x1, <unfinished ...>\n7 clock_gettime(1) = 0\n"
            "8 <... futex resumed>) = 0\n7 getppid()   = 1\n7 sendto(3, \"getppid(\") = 1\n7 +++ exited with 0 +++\n"
        )
        self.assertEqual(check_cost.marked_calls(trace), {"recvfrom": 1, "futex": 1})
        self.assertRaises(check_cost.Failure, check_cost.marked_calls, "7 recvfrom(5) = 9\n")

    def test_nothing_collected_is_a_failure(self) -> None:
        self.assertEqual(check_cost.collected("events: Ir\nfn=(1)\n3 4\n\ntotals: 1234\n"), 1234)
        self.assertRaises(check_cost.Failure, check_cost.collected, "events: Ir\nsummary: 0\n")
        self.assertRaises(check_cost.Failure, check_cost.collected, "")


class Version(unittest.TestCase):
    """The changelog's newest entry is for the version."""

    def test_unreleased(self) -> None:
        text = "## [Unreleased]\n\n### 1.2.3, which fixes\n\n## [1.2.2] - 2026-01-31\n"
        self.assertEqual(faults_of("1.2.3", text, released=False), [])
        self.assertIn("1.2.3", faults_of("1.2.4", text, released=False)[0])
        self.assertIn("heading", faults_of("1.2.3", text, released=True)[0])

    def test_files_of_package_managers(self) -> None:
        for name, before in STATED.items():
            text = (ROOT / name).read_text()
            self.assertEqual(len(re.findall(f'^ *{before.strip()}', text, re.MULTILINE)), 1, name)
            self.assertIn(name, stated_fault("99.0.0", name, text)[0])
            self.assertEqual(stated_fault("99.0.0", name, re.sub(r'(version"?:? =? ?")[^"]*', r"\g<1>99.0.0", text)), [])

    def test_released(self) -> None:
        text = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-31\n\n## [1.2.2] - 2025-01-31\n"
        self.assertEqual(faults_of("1.2.3", text, released=True), [])
        self.assertTrue(faults_of("1.2.2", text, released=False))
        self.assertTrue(faults_of("1.2.30", text, released=False))
        self.assertTrue(faults_of("1.2.3", "no entry\n", released=False))

    def test_readme(self) -> None:
        self.assertEqual(faults_of_readme("1.2.3", "Linux; version 1.2.3; MIT\n"), [])
        self.assertIn("1.2.2", faults_of_readme("1.2.3", "Linux; version 1.2.2; MIT\n")[0])
        self.assertTrue(faults_of_readme("1.2.3", "Linux; MIT\n"))


class Archive(unittest.TestCase):
    """dist.py"""

    def test_the_archive_depends_on_nothing_but_the_files(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for tree in ("a", "b"):
                for pattern in dist.FILES:
                    for path in ROOT.glob(pattern):
                        copy = folder / tree / path.relative_to(ROOT)
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        copy.write_bytes(path.read_bytes())
                        if tree == "b":
                            os.chmod(copy, 0o700)
                            os.utime(copy, (1, 1))
                subprocess.run([sys.executable, TOOLS / "dist.py", "--root", folder / tree], check=True, capture_output=True)
            first, second = (folder / tree / "build/dist" for tree in ("a", "b"))
            sums = (first / "SHA256SUMS").read_text()
            self.assertEqual((second / "SHA256SUMS").read_text(), sums)
            archive = next(first.glob("anyio_net-*.tar.gz"))
            self.assertEqual((second / archive.name).read_bytes(), archive.read_bytes())
            self.assertEqual(
                dict(reversed(line.split()) for line in sums.splitlines()),
                {f: hashlib.sha256((first / f).read_bytes()).hexdigest() for f in (archive.name, "anyio_net.hpp")},
            )
            with tarfile.open(archive) as tar:
                self.assertTrue(all(member.mode == 0o644 and member.mtime == dist.MADE_IN for member in tar))
                inside = archive.name.removesuffix(".tar.gz")
                self.assertEqual(tar.extractfile(f"{inside}/anyio_net.hpp").read(), (ROOT / "anyio_net.hpp").read_bytes())
            (folder / "b/LICENSE").write_text("another\n")
            subprocess.run([sys.executable, TOOLS / "dist.py", "--root", folder / "b"], check=True, capture_output=True)
            self.assertNotEqual((second / "SHA256SUMS").read_text(), sums)
            (folder / "b/LICENSE").unlink()
            self.assertEqual(
                subprocess.run([sys.executable, TOOLS / "dist.py", "--root", folder / "b"], check=False, capture_output=True).returncode, 1
            )


class Reference(unittest.TestCase):
    PART = """namespace anyio { inline namespace ANYIO_NET_ABI {
class [[nodiscard]] read_operation
    : public detail::operation<read_operation, int> {
 public:
  read_operation(int fd);
  int sent() const;
  // --- for the parts of the library
  int inner();
 private:
};
class stream {
 public:
  stream(stream&& other);
  ANYIO_NET_FN ~stream();
  explicit stream(detail::kind k);
};
inline int free() {
  const detail::kind k(1);
}
"""

    def test_what_users_see(self) -> None:
        lines = seen_by_users(self.PART).splitlines()
        self.assertEqual(len(lines), len(self.PART.splitlines()))
        self.assertEqual(lines[0], "namespace anyio {")
        self.assertIn("public operation_tag {", " ".join(lines[1:3]))
        hidden = [line.removeprefix("/** @private */").strip() for line in lines if "@private" in line]
        self.assertEqual(hidden, ["read_operation(int fd);", "stream(stream&& other);", "explicit stream(detail::kind k);"])
        self.assertEqual(lines[6:9], ["/** @cond */", "  int inner();", "/** @endcond */  private:"])
        self.assertEqual(lines[13], "  ~stream();")
        self.assertEqual(lines[17], "  const detail::kind k(1);")
        self.assertIn("public detail::operation<read_operation, int> {", seen_by_users(self.PART, bases=True))


if __name__ == "__main__":
    unittest.main(verbosity=1)
