#!/usr/bin/env python3
"""Opens every page of a built site in headless Chromium, as wide as a desktop's window and as a phone.

  check_site.py SITE                             check all pages
  check_site.py --screenshots FOLDER SITE PAGE...   instead, write pictures of these pages at both widths

Reported are: script errors and messages on the console; requests that fail, or go to another host; links and anchors
that lead nowhere within the site; pages that are wider than the window, or have no viewport for phones; a search that
finds nothing. Links to other hosts are not followed. Without Chromium nothing is checked, and a line says so.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-pipe"
).split()
# Names of other hosts are not looked up.
FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
WIDTHS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
WAIT = 20.0
SEARCHED = "timeout"

# What a page says about itself. Elements that scroll by themselves may be wider than the window.
COLLECT = """JSON.stringify({
  links: [...document.querySelectorAll('a[href], link[href], img[src], script[src]')].map(e => e.href || e.src),
  ids: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
  width: document.documentElement.scrollWidth,
  viewport: (document.querySelector('meta[name=viewport]') || {}).content || ''
})"""
SEARCH = """new Promise(done => {
  const input = document.querySelector('input[name=query], input[type=search]');
  if (!input) return done(-1);
  const toggle = document.querySelector('input[data-md-toggle=search]');  // on a phone the field is hidden before
  if (toggle && !toggle.checked) toggle.click();
  input.focus();
  input.value = %s;
  for (const type of ['keydown', 'keyup', 'input', 'change']) input.dispatchEvent(new Event(type, {bubbles: true}));
  let tries = 0;
  const look = () => {
    const found = document.querySelectorAll('.md-search-result__item').length;
    if (found || ++tries > 100) done(found); else setTimeout(look, 100);
  };
  look();
})""" % json.dumps(SEARCHED)


class Problem(Exception):
    """The browser cannot be used."""


class Browser:
    """A Chromium that is driven by the DevTools protocol through pipes, which needs no library."""

    def __init__(self, program: str, profile: str) -> None:
        to_browser, self.output = os.pipe()
        self.input, from_browser = os.pipe()

        def descriptors() -> None:
            # The browser reads from 3 and writes to 4; the copies stand out of the way of both first.
            reads, writes = os.dup(to_browser), os.dup(from_browser)
            high_reads, high_writes = (os.dup2(fd, 100 + i) for i, fd in enumerate((reads, writes)))
            os.dup2(high_reads, 3)
            os.dup2(high_writes, 4)

        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=descriptors, start_new_session=True,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self.numbers = itertools.count(1)
        self.buffer = b""
        self.events: list[dict[str, Any]] = []
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Network.setCacheDisabled", cacheDisabled=False)

    def message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            if not select.select([self.input], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise Problem("the browser does not answer")
            piece = os.read(self.input, 1 << 20)
            if not piece:
                raise Problem("the browser has ended")
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        request = {"id": number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self.output, data) :]
        deadline = time.monotonic() + WAIT
        while True:
            answer = self.message(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise Problem(f"{method}: {answer['error'].get('message')}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        deadline = time.monotonic() + WAIT
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.message(deadline))

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise Problem(f"a script of the check fails: {answer['exceptionDetails'].get('text')}")
        return answer["result"].get("value")

    def show(self, width: str) -> None:
        columns, rows, mobile = WIDTHS[width]
        self.call("Emulation.setDeviceMetricsOverride", width=columns, height=rows, deviceScaleFactor=1, mobile=mobile)

    def open(self, url: str) -> list[dict[str, Any]]:
        """Opens a page and waits until it is loaded and its scripts have had a moment; returns what happened."""
        self.events = []
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")
        self.evaluate("new Promise(done => setTimeout(done, 50))")
        return self.events

    def close(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def complaints(events: list[dict[str, Any]], origin: str) -> list[str]:
    """What is wrong with what happened while a page was loaded."""
    found = []
    for event in events:
        method, parameters = event.get("method", ""), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text")
            found.append(f"script error: {text.splitlines()[0]}")
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert", "warning"):
            words = [str(argument.get("value", argument.get("description", ""))) for argument in parameters["args"]]
            found.append(f"console: {' '.join(words)}")
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            found.append(f"log: {parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith((origin, "data:", "blob:", "about:")):
                found.append(f"asks another host: {url}")
        elif method == "Network.responseReceived" and parameters["response"]["status"] >= 400:
            found.append(f"{parameters['response']['status']}: {parameters['response']['url']}")
        elif method == "Network.loadingFailed" and not parameters.get("canceled"):
            found.append(f"a request fails: {parameters.get('errorText')}")
    return found


def dead_links(pages: dict[str, dict[str, Any]], site: Path, origin: str) -> list[str]:
    """Links within the site to files or anchors that are not there."""
    found = set()
    for page, facts in pages.items():
        for link in facts["links"]:
            if not link.startswith(origin):
                continue
            url, anchor = urldefrag(link)
            path = unquote(urlsplit(url).path).lstrip("/")
            path = path + "index.html" if path == "" or path.endswith("/") else path
            if not (site / path).is_file():
                found.add(f"{page}: dead link: {path}")
            elif anchor and path in pages and unquote(anchor) not in pages[path]["ids"]:
                found.add(f"{page}: dead anchor: {path}#{unquote(anchor)}")
    return sorted(found)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def serve(site: Path) -> tuple[http.server.ThreadingHTTPServer, str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/"


def check(browser: Browser, site: Path, origin: str) -> list[str]:
    problems: list[str] = []
    names = sorted(str(file.relative_to(site)) for file in site.rglob("*.html") if file.name != "404.html")
    pages: dict[str, dict[str, Any]] = {}
    for width in WIDTHS:
        browser.show(width)
        for name in names:
            said = complaints(browser.open(origin + name), origin)
            problems += [f"{name} ({width}): {complaint}" for complaint in dict.fromkeys(said)]
            facts = json.loads(browser.evaluate(COLLECT))
            pages[name] = facts
            if facts["width"] > WIDTHS[width][0]:
                problems.append(f"{name} ({width}): {facts['width']} pixels wide in a window of {WIDTHS[width][0]}")
            if "width=device-width" not in facts["viewport"]:
                problems.append(f"{name}: no viewport for phones")
        browser.open(origin)
        found = browser.evaluate(SEARCH)
        if found < 1:
            words = f"searching for '{SEARCHED}' finds nothing" if found == 0 else "there is no search"
            problems.append(f"({width}): {words}")
        problems += [f"search ({width}): {c}" for c in dict.fromkeys(complaints(browser.events, origin))]
    problems += dead_links(pages, site, origin)
    print(f"check_site: {len(names)} pages at {len(WIDTHS)} widths, {len(problems)} problems")
    return problems if names else ["there is no page"]


def screenshots(browser: Browser, origin: str, folder: Path, pages: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        browser.show(width)
        for page in pages:
            browser.open(origin + page)
            picture = browser.call("Page.captureScreenshot", format="png")["data"]
            name = page.replace("/", "-").replace("#", "-").removesuffix(".html")
            (folder / f"{name}-{width}.png").write_bytes(base64.b64decode(picture))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("skipped: no chromium: the site is not checked")
        return 0
    server, origin = serve(options.site)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            if options.screenshots:
                screenshots(browser, origin, options.screenshots, options.pages)
                return 0
            problems = check(browser, options.site.resolve(), origin)
        except Problem as problem:
            problems = [str(problem)]
        finally:
            browser.close()
            server.shutdown()
    if problems:
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
