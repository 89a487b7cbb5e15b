#!/usr/bin/env python3
"""Tests of the tools that make and check documents: python3 tools/checks/test_documents.py"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "make"))

import check_site
import proved
from check_words import blocks_of, findings, rules
from reference import Problem, arguments_of, escape, slug, tidy
from reference import check as check_page
from site_pages import Site

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools" / "make"


class Words(unittest.TestCase):
    """Uses an invented list."""

    LIST = "# A note.\n\n[everywhere]\nfoos? bar => baz\n<quux => x\n[comments]\n<<first => y\n[prose]\n<blah => z\n"

    def found(self, name: str, text: str) -> list[tuple[int, str]]:
        return [(f.line, f.words) for f in findings(blocks_of(Path(name), text), rules(self.LIST))]

    def test_comments_and_strings_of_a_source(self) -> None:
        text = 'int foo, bar;  // no foo\n/// One Foo\n/// bar.\nf("a foos"\n  " bar\\n", \'"\'); /* x\n * foo bar */\nfoo bar;\n'
        self.assertEqual(self.found("a.hpp", text), [(2, "Foo bar"), (4, "foos bar"), (6, "foo bar")])
        self.assertEqual(self.found("a.cpp", "// foobar, a foo barn\n"), [])

    def test_where_a_sentence_or_a_comment_begins(self) -> None:
        self.assertEqual(self.found("a.hpp", "// A. Quux b, quux.\n\n// First\n// first\nx(\"First\");\n"), [(1, "Quux"), (3, "First")])
        self.assertEqual(self.found("a.hpp", "// Blah a. Blah b.\n"), [(1, "Blah")])

    def test_a_document(self) -> None:
        text = "# Blah\n\nBlah one\ntwo. Blah\n- a foo\n\n- bar\n| foo\n  bar |\n```sh\nfoo bar\nblah\n```\nfoo\nbar\n"
        expected = [(3, "Blah"), (4, "Blah"), (8, "foo bar"), (11, "foo bar"), (14, "foo bar")]
        self.assertEqual(self.found("a.md", text), expected)

    def test_python_and_shell(self) -> None:
        self.assertEqual(self.found("a.py", 'foo = bar  # foo\n# bar\nx = """A\nfoo bar"""\n'), [(1, "foo bar"), (4, "foo bar")])
        self.assertEqual(self.found("a.sh", "# foo\n# bar\necho foo\nbar\necho foo bar\n"), [(1, "foo bar"), (5, "foo bar")])

    def test_a_list_that_is_none(self) -> None:
        self.assertRaises(ValueError, rules, "foo => bar\n")
        self.assertRaises(ValueError, rules, "[everywhere]\nfoo\n")


class Reference(unittest.TestCase):
    def test_types_are_written_as_in_the_sources(self) -> None:
        for doxygen, source in {
            "std::span< const std::byte >": "std::span<const std::byte>",
            "result< std::pair< a, b > >": "result<std::pair<a, b>>",
            "const ip_endpoint &": "const ip_endpoint&",
            "(T &&data, int *p) const &": "(T&& data, int* p) const&",
            "(F f) &": "(F f) &",
            "(Xs &&... xs)": "(Xs&&... xs)",
            "(T(&array)[n]) noexcept": "(T (&array)[n]) noexcept",
            "(int max=65536, options o={})": "(int max = 65536, options o = {})",
        }.items():
            self.assertEqual(tidy(doxygen), source)
        self.assertEqual(arguments_of("a::b<c, d<e, f>, g(h, i)>"), ["c", "d<e, f>", "g(h, i)"])
        self.assertEqual(arguments_of("a"), [])
        self.assertEqual(slug("Errors and results"), "errors-and-results")
        self.assertEqual(slug("sim::run_it"), "simrun_it")
        self.assertEqual(escape("a<b> [c]*"), r"a\<b> \[c\]\*")

    def test_faults_of_a_page(self) -> None:
        check_page("# A\n\n## b_c\n\n[x](#b_c)\n")
        for page in ("# A\n\n## a\n", "# A\n\n[x](#b)\n", "# A\n\n`detail::x`\n", "# A\n\nANYIO_NET_FN\n"):
            self.assertRaises(Problem, check_page, page)


class SitePages(unittest.TestCase):
    def test_a_page_is_adapted(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            site = Site(Path(folder))
            page = (
                "Text:\n- [a](../README.md#x) [b](../examples/demo.cpp) `[](c)`\n- [d](../examples/support)\n\n"
                "```cpp nocompile\n[](../examples/demo.cpp)\n```\n![p](../bench/results/cpu.svg) [e](https://example.org/a)\n"
            )
            self.assertEqual(
                site.adapted("docs/x.md", page),
                "Text:\n\n- [a](../README.md#x) [b](../examples/demo.cpp.md) `[](c)`\n- [d](../examples/support/files.md)\n\n"
                "```cpp\n[](../examples/demo.cpp)\n```\n![p](../bench/results/cpu.svg) [e](https://example.org/a)\n",
            )
            self.assertEqual(site.wanted, ["examples/demo.cpp", "examples/support"])
            site.add_source("examples/support")
            self.assertIn("(program.hpp.md)", (Path(folder) / "pages/examples/support/files.md").read_text())

    def test_dead_links_of_a_site(self) -> None:
        origin = "http://127.0.0.1:1/"
        with tempfile.TemporaryDirectory() as folder:
            for name in ("index.html", "b.html"):
                (Path(folder) / name).touch()
            links = [origin, origin + "b.html#x", "https://example.org/no", origin + "b.html#y", origin + "c.html"]
            pages = {"index.html": {"links": links, "ids": []}, "b.html": {"links": [], "ids": ["x"]}}
            self.assertEqual(
                check_site.dead_links(pages, Path(folder), origin),
                ["index.html: dead anchor: b.html#y", "index.html: dead link: c.html"],
            )

    def test_what_a_browser_complains_about(self) -> None:
        events = [
            {"method": "Network.requestWillBeSent", "params": {"request": {"url": "http://127.0.0.1:1/a"}}},
            {"method": "Network.requestWillBeSent", "params": {"request": {"url": "http://example.org/a"}}},
            {"method": "Network.responseReceived", "params": {"response": {"status": 404, "url": "u"}}},
            {"method": "Runtime.consoleAPICalled", "params": {"type": "log", "args": [{"value": "fine"}]}},
            {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": {"text": "Oops"}}},
        ]
        found = check_site.complaints(events, "http://127.0.0.1:1/")
        self.assertEqual(found, ["asks another host: http://example.org/a", "404: u", "script error: Oops"])


class Proved(unittest.TestCase):
    RECORD = {
        "date": "2026-01-31", "commit": "abc", "changed": False, "kernel": "Linux 6.1", "processor": "x86_64",
        "system": "Debian 12", "passed": 1234, "failed": 0,
        "steps": [
            {"name": "tests, a", "passed": 1200, "failed": 0, "note": "", "skipped": [], "facts": [
                {"mode": "a", "compiler": "Debian clang version 14.0.6", "target": "s390x-linux-gnu",
                 "flags": "-std=c++20 -O1 -fsanitize=address,undefined -fno-exceptions -std=gnu++26 -stdlib=libc++"},
                {"emulator": "qemu-s390x version 7.2.22 (Debian)"}, {"simulated_runs": 5000}]},
            {"name": "warnings", "passed": 1, "failed": 0, "note": "", "skipped": ["no clang++-19"], "facts": [
                {"compiled": "gcc-c++20", "compiler": "g++ (Debian 12.2.0-14) 12.2.0"},
                {"compiled": "gcc-c++20-noexc-O1", "compiler": "g++ (Debian 12.2.0-14) 12.2.0"}]},
            {"name": "corpora", "passed": 1, "failed": 0, "note": "", "skipped": [], "facts": [
                {"fuzz_targets": 17, "inputs": 223, "random_inputs": 3400}]},
            {"name": "gdb.sh", "passed": 0, "failed": 0, "note": "skipped: no gdb", "skipped": [], "facts": []},
        ],
    }  # fmt: skip

    def test_a_page_of_a_record(self) -> None:
        text = proved.page([(Path("build/ci.json"), self.RECORD)])
        for line in (
            "## `.ci/run`, 2026-01-31",
            "Commit abc; Debian 12, Linux 6.1, x86_64. 1,234 passed, none failed.",
            "| a | clang 14.0.6, libc++ | gnu++26 | s390x (qemu-s390x 7.2.22) | -O1 | AddressSanitizer, UBSan "
            "| no exceptions, no RTTI, header only | 1,200 | 5,000 |",
            "| g++ 12.2.0 | c++20 | all features; noexc O1 |",
            "| corpora | 17 | 223 | 3,400 |",
            "| warnings | passed | left out: no clang++-19 |",
            "| gdb.sh | skipped: no gdb |  |",
        ):
            self.assertIn(f"{line}\n", text)

    def test_a_run_that_failed_shows_nothing(self) -> None:
        self.assertRaises(ValueError, proved.page, [(Path("ci.json"), {**self.RECORD, "failed": 1})])

    def test_a_run_is_recorded(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "x" / "ci.json"
            steps = ["--check", "c", "echo 'record: {\"a\": 1}'; echo skipped: b", "--check", "d", "echo skipped: e; exit 77"]
            inner = " ".join(shlex.quote(word) for word in [sys.executable, str(TOOLS / "run_tests.py"), *steps])
            command = [sys.executable, str(TOOLS / "run_tests.py"), "--record", str(file), "--nested", "n", inner]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            record = json.loads(file.read_text())
        self.assertEqual((done.returncode, record["passed"], record["failed"]), (0, 1, 0))
        self.assertNotIn("record:", done.stdout)
        self.assertNotIn("step:", done.stdout)
        found = [(s["name"], s["passed"], s["note"], s["skipped"], s["facts"]) for s in record["steps"]]
        self.assertEqual(found, [("c", 1, "passed", ["b"], [{"a": 1}]), ("d", 0, "skipped: e", [], [])])


if __name__ == "__main__":
    unittest.main(verbosity=1)
