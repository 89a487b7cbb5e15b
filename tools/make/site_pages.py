#!/usr/bin/env python3
"""Lays out the pages of the site for MkDocs, and writes its configuration.

  site_pages.py FOLDER     FOLDER/pages gets the pages, and FOLDER/mkdocs.yml the configuration

The documents keep their places in the repository, so links between them stay as they are. A link to a source file leads
to a page that shows it, and one to a folder to a page that lists it. Where GitHub's Markdown and MkDocs' differ, the
page is adapted: MkDocs wants an empty line before a list, and knows no words after the language of a code block.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The first pages, in this order; documents that are not named follow in the order of their names.
GROUPS = {
    "Use": "docs/guide.md docs/reference.md docs/errors.md docs/cancellation.md docs/tls.md docs/simulation.md "
    "docs/embedding.md docs/migration.md",
    "Inside": "docs/architecture.md docs/performance.md docs/proved.md docs/coverage.md bench/results/plots.md "
    "bench/results/table.md bench/README.md fuzz/README.md",
    "Project": "CHANGELOG.md CONTRIBUTING.md docs/release.md",
}
PICTURES = {".svg", ".png"}
LANGUAGES = {".cpp": "cpp", ".hpp": "cpp", ".ipp": "cpp", ".c": "c", ".h": "c", ".py": "python", ".sh": "bash"}
LINK = re.compile(r"(!?\[(?:[^\]\[]|\[[^\]]*\])*\])\(([^()\s]+)\)")
STYLE = """/* Long names and signatures break on a phone; wide tables scroll by themselves. */
.md-typeset code, .md-typeset h1, .md-typeset h2, .md-typeset h3 { overflow-wrap: anywhere; }
.md-typeset pre code { overflow-wrap: normal; }
/* The plots have no background of their own. */
.md-typeset img { background: white; }
"""


class Site:
    def __init__(self, folder: Path) -> None:
        self.pages = folder / "pages"
        self.titles: dict[str, str] = {}
        self.wanted: list[str] = []  # sources and folders that a page links to

    def write(self, name: str, text: str) -> None:
        file = self.pages / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        title = re.search(r"^# (.+)$", text, re.MULTILINE)
        self.titles[name] = title[1].replace("`", "") if title else name

    def page_of(self, path: str) -> str:
        """The page that shows a file or a folder of the repository."""
        if path.endswith(".md") or Path(path).suffix in PICTURES:
            return path
        if path not in self.wanted:
            self.wanted.append(path)
        return f"{path}/files.md" if (ROOT / path).is_dir() else f"{path}.md"

    def link(self, document: str, target: str) -> str:
        path, hash_mark, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return target
        folder = os.path.dirname(document)
        inside = os.path.normpath(os.path.join(folder, path))
        if not (ROOT / inside).exists():
            return target  # which MkDocs complains about
        return os.path.relpath(self.page_of(inside), folder or ".") + hash_mark + anchor

    def adapted(self, document: str, text: str) -> str:
        lines: list[str] = []
        fence = ""
        for line in text.splitlines():
            if match := re.match(r"(\s*)(`{3,}|~{3,})\s*(\w*)", line):
                if not fence:
                    fence = match[2]
                    line = f"{match[1]}{fence}{match[3]}"
                elif line.strip() == fence:
                    fence = ""
            elif not fence:
                before = lines[-1] if lines else ""
                entry = r"\s*(?:[-*+]|\d+\.)\s"
                if re.match(entry, line) and before.strip() and not re.match(entry + r"|\s", before):
                    lines.append("")
                # What stands in backquotes is no link.
                pieces = re.split(r"(`+[^`]+`+)", line)
                if not any("](" in piece for piece in pieces[::2]):
                    lines.append(line)
                    continue
                line = LINK.sub(lambda m: f"{m[1]}({self.link(document, m[2])})", line)
            lines.append(line)
        return "\n".join(lines) + "\n"

    def add_document(self, name: str) -> None:
        self.write(name, self.adapted(name, (ROOT / name).read_text(encoding="utf-8")))

    def add_source(self, path: str) -> None:
        if (ROOT / path).is_dir():
            files = sorted(f.name for f in (ROOT / path).iterdir() if f.is_file())
            links = [f"- [`{name}`]({os.path.relpath(self.page_of(f'{path}/{name}'), path)})" for name in files]
            self.write(f"{path}/files.md", f"# {path}\n\n" + "\n".join(links) + "\n")
            return
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
        language = LANGUAGES.get(Path(path).suffix, "text")
        self.write(f"{path}.md", f"# {path}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n")

    def add_pictures(self) -> None:
        folder = ROOT / "bench" / "results"
        pictures = sorted(file for file in folder.glob("*") if file.suffix in PICTURES)
        for file in pictures:
            (self.pages / "bench" / "results").mkdir(parents=True, exist_ok=True)
            shutil.copy(file, self.pages / "bench" / "results")
        if pictures:
            text = "# Plots\n\nThe figures are in the [table](table.md); [bench/README.md](../README.md) explains them.\n"
            for file in pictures:
                text += f"\n## {file.stem.replace('-', ' ')}\n\n[![{file.stem}]({file.name})]({file.name})\n"
            self.write("bench/results/plots.md", text)


def documents() -> list[str]:
    found = [*ROOT.glob("*.md"), *(file for d in ("docs", "bench", "fuzz") for file in (ROOT / d).rglob("*.md"))]
    return sorted(str(file.relative_to(ROOT)) for file in found)


def navigation(titles: dict[str, str], shown: list[str]) -> list[object]:
    """Groups of pages; those of no group belong to the first."""
    named = {"README.md", *(name for group in GROUPS.values() for name in group.split())}
    left = [name for name in shown if name not in named]
    entries: list[object] = [{"Overview": "README.md"}]
    for group, names in GROUPS.items():
        pages = [name for name in names.split() if name in titles]
        if group == next(iter(GROUPS)):
            pages += left
        entries.append({group: [{titles[name]: name} for name in pages]})
    return entries


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    site = Site(folder)
    for name in documents():
        site.add_document(name)
    site.add_pictures()
    shown = list(site.titles)
    for path in site.wanted:  # which grows meanwhile
        site.add_source(path)
    (site.pages / "site.css").write_text(STYLE, encoding="utf-8")
    sources = {path: site.titles[site.page_of(path)] for path in sorted(site.wanted)}
    entries = navigation(site.titles, shown)
    entries.append({"Sources": [{title: site.page_of(path)} for path, title in sources.items()]})
    # JSON is YAML.
    configuration = {
        "INHERIT": os.path.relpath(ROOT / "docs" / "mkdocs.yml", folder),
        "docs_dir": "pages",
        "site_dir": str(folder.parent / "site"),
        "nav": entries,
    }
    (folder / "mkdocs.yml").write_text(json.dumps(configuration, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
