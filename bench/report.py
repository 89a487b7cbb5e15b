"""Results as tables and plots."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

COLOURS = {"epoll": "#888888", "anyio callback": "#0b6fa4", "anyio coroutine": "#56b4e9", "Asio callback": "#d55e00",
           "Asio coroutine": "#e69f00", "libuv": "#009e73", "libevent": "#cc79a7"}


def figure(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g} M"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = []
    for number, line in enumerate(lines):
        text.append("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
        if number == 0:
            text.append("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def summarise(rounds: dict[str, list[dict]]) -> dict[str, dict]:
    """For each server: least and median cost, and ratios to the better loop by hand, over all and round by round."""
    servers = {}
    for label, done in rounds.items():
        servers[label] = {
            "best_ns": min(r["ns"] for r in done),
            "median_ns": statistics.median(r["ns"] for r in done),
            "rate": statistics.median(r["rate"] for r in done),
            "rounds_ns": [r["ns"] for r in done],
            "rounds_rate": [r["rate"] for r in done],
        }
        for key in ("p50_us", "p99_us", "lost"):
            if key in done[0]:
                servers[label][key] = statistics.median(r[key] for r in done)
        if "cipher" in done[0]:
            servers[label]["cipher"] = done[0]["cipher"]
    by_hand = [label for label in servers if label.startswith("epoll")]
    if not by_hand:
        return servers
    base = servers[min(by_hand, key=lambda label: servers[label]["best_ns"])]
    for s in servers.values():
        s["ratio"] = s["best_ns"] / base["best_ns"]
        s["rate_ratio"] = s["rate"] / base["rate"]
        by_round = sorted(a / b for a, b in zip(s["rounds_ns"], base["rounds_ns"]))
        s["ratio_median"] = statistics.median(by_round)
        s["ratio_min"], s["ratio_max"] = by_round[0], by_round[-1]
    return servers


def scenario_table(operation: str, servers: dict[str, dict]) -> str:
    first = next(iter(servers.values()))
    extra = [(key, name) for key, name in (("p50_us", "p50 µs"), ("p99_us", "p99 µs"), ("lost", "lost")) if key in first]
    head = ["server", f"CPU ns/{operation}", "× by hand", "round by round", f"{operation}s/s", "× by hand"]
    rows = []
    for label, s in servers.items():
        row = [label, figure(s["best_ns"])]
        if "ratio" in s:
            row += [f"{s['ratio']:.2f}", f"{s['ratio_median']:.2f} ({s['ratio_min']:.2f} to {s['ratio_max']:.2f})"]
        else:
            row += ["-", "-"]
        row += [figure(s["rate"]), f"{s['rate_ratio']:.2f}" if "rate_ratio" in s else "-"]
        row += [f"{100 * s[key]:.0f} %" if key == "lost" else figure(s[key]) for key, _ in extra if key in s]
        rows.append(row)
    return table([*head, *(name for _, name in extra)], rows)


def counts_table(operation: str, counts: dict[str, dict]) -> str:
    rows = []
    for label, c in counts.items():
        calls = c.get("system_calls")
        by_name = ", ".join(f"{name} {n:.2f}" for name, n in calls.items() if n >= 0.02) if calls else ""
        rows.append([
            label,
            f"{sum(calls.values()):.2f} ({by_name})" if calls is not None else "-",
            f"{max(c['allocations'], 0):.2f}" if "allocations" in c else "-",
            figure(c["instructions"]) if c.get("instructions") is not None else "-",
        ])
    return table(["server", f"system calls/{operation}", "allocations", "instructions in user space"], rows)


def idle_table(idle: dict[str, dict]) -> str:
    rows = []
    for label, i in idle.items():
        blocks = ", ".join(f"{n:g} × {size}" for size, n in i["blocks"].items())
        rows.append([label, str(i["allocated"]), blocks, str(i["rss"]), str(i["pss"])])
    return table(["server", "allocated B", "blocks, as malloc rounds them, B", "RSS B", "PSS B"], rows)


def cost_table(cost: list[dict]) -> str:
    def kilobytes(row: dict, key: str) -> str:
        return f"{row[key] / 1024:.1f}" if row.get(key) else "-"

    rows = [[r["label"], f"{r['compile']:.2f}", f"{r['ratio']:.2f}", kilobytes(r, "size_smallest"),
             kilobytes(r, "size_no_exceptions"), kilobytes(r, "size")] for r in cost]
    return table(["echo server", "compile s", "× headers alone", "KB, smallest", "KB, no exceptions, no RTTI",
                  "KB with both"], rows)


def micro_table(micro: list[dict]) -> str:
    rows = [[m["name"], figure(m["ns"]), f"{m['allocations']:.2f}" if "allocations" in m else "-"] for m in micro]
    return table(["what", "ns", "allocations"], rows)


def markdown(results: dict) -> str:
    meta = results["meta"]
    text = [f"# Measured: {meta['date']}", "",
            f"{meta['cpu']}, {meta['cores']} cores, Linux {meta['kernel']}, {meta['compiler']}, commit {meta['commit']}; "
            f"{meta['rounds']} rounds of {meta['seconds']} s. How to read this: [bench/README.md](../README.md).", ""]
    group = None
    for s in results["scenarios"].values():
        if s["group"] != group:
            group = s["group"]
            text += [f"## {group}", ""]
        text += [f"### {s['title']}", ""]
        if s["servers"]:
            text += [scenario_table(s["operation"], s["servers"])]
            ciphers = {label: v["cipher"] for label, v in s["servers"].items() if "cipher" in v}
            if len(set(ciphers.values())) > 1:
                most = statistics.mode(ciphers.values())
                others = ", ".join(f"{label}: {c}" for label, c in ciphers.items() if c != most)
                text += [f"{most}; {others}.", ""]
        if s.get("counts"):
            text += [counts_table(s["operation"], s["counts"])]
        for problem in s.get("problems", []):
            text += [f"Failed: {problem}", ""]
    if results.get("idle"):
        text += [f"## {results['idle_connections']} idle connections", "", "For each connection, after one message:", "",
                 idle_table(results["idle"])]
    if results.get("cost"):
        text += ["## Compiling, and size", "",
                 "An echo server, `-O2 -c`, processor seconds, least of three; size: stripped `-Os`, libraries shared.", "",
                 cost_table(results["cost"])]
    if results.get("micro"):
        text += ["## In the process", "", micro_table(results["micro"])]
    return "\n".join(text)


# ---- plots ------------------------------------------------------------------------------------------


def bars(path: Path, title: str, ylabel: str, names: list[str], series: dict[str, list[float | None]],
         colours: list[str] | None = None, log: bool = False) -> None:
    """Groups of bars, by gnuplot; a series without any value is left out."""
    colours = colours or [COLOURS.get(s, "#444444") for s in series]
    kept = [s for s in series if any(v is not None for v in series[s])]
    colours = [c for c, s in zip(colours, series) if s in kept]
    series = {s: series[s] for s in kept}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        lines = []
        for i, name in enumerate(names):
            values = ("?" if series[s][i] is None else f"{series[s][i]:.6g}" for s in series)
            lines.append("\t".join([name, *values]))
        data.write_text("\n".join(lines) + "\n")
        width = max(640, 130 + len(names) * (14 * len(series) + 24))
        plots = []
        for i, s in enumerate(series):
            name = f"title '{s}'" if len(series) > 1 else "notitle"
            plots.append(f"'{data}' using {i + 2}:xtic(1) {name} linecolor rgb '{colours[i]}'")
        if ylabel == "ratio":
            plots.append("1 with lines linecolor rgb '#444444' dashtype 2 notitle")
        script = f"""
set terminal svg size {width},420 dynamic font 'sans-serif,11' background rgb 'white'
set output '{path}'
set datafile separator '\\t'
set datafile missing '?'
set title '{title}'
set ylabel '{ylabel}'
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 noborder
set boxwidth 0.9
set grid ytics linecolor rgb '#dddddd'
set key outside right top
set xtics rotate by -30 nomirror
{"set logscale y; set yrange [10:*]" if log else "set yrange [0:*]"}
plot {", ".join(plots)}
"""
        subprocess.run(["gnuplot"], input=script, text=True, check=True)


# The README's picture: a label for each scenario, and for each bar the labels that it has in scenarios.
SUMMARY_SCENARIOS = {"echo-tcp-64": "TCP", "echo-unix-64": "UNIX", "udp-echo": "UDP", "tls-echo": "TLS (OpenSSL)"}
SUMMARY_BARS = {
    "anyio_net, callbacks": (("anyio callback", "anyio callback, OpenSSL"), "#0b6fa4"),
    "anyio_net, coroutines": (("anyio coroutine", "anyio coroutine, OpenSSL"), "#56b4e9"),
    "Asio, callbacks": (("Asio callback",), "#d55e00"),
    "libuv": (("libuv",), "#009e73"),
}
LIGHT = {"#56b4e9"}  # black numbers are read better on these


def summary(path: Path, scenarios: dict[str, dict]) -> None:
    """Few bars with their numbers, to be read at a glance; nothing is drawn unless all its scenarios were measured."""
    chosen = [scenarios.get(name, {}).get("servers") for name in SUMMARY_SCENARIOS]
    if not all(chosen):
        return
    width, objects, top = 0.9 / len(SUMMARY_BARS), [], 1.2
    for number, (labels, colour) in enumerate(SUMMARY_BARS.values()):
        for place, servers in enumerate(chosen):
            left = place - 0.45 + number * width
            ratio = next((servers[label].get("ratio") for label in labels if label in servers), None)
            middle = left + 0.5 * width
            if ratio is None:
                objects.append(f"set label 'none' at {middle:.4f},0.08 center textcolor rgb '#777777'")
                continue
            top = max(top, ratio)
            objects.append(f"set object rectangle from {left + 0.006:.4f},0 to {left + width - 0.006:.4f},{ratio:.4f} "
                           f"fillcolor rgb '{colour}' fillstyle solid noborder")
            objects.append(f"set label '{ratio:.2f}' at {middle:.4f},{min(0.75, ratio / 2):.4f} center front "
                           f"textcolor rgb '{'#000000' if colour in LIGHT else '#ffffff'}'")
    tics = ", ".join(f"'{label}' {place}" for place, label in enumerate(SUMMARY_SCENARIOS.values()))
    keys = [f"NaN with boxes fillstyle solid noborder linecolor rgb '{colour}' title '{name}'"
            for name, (_, colour) in SUMMARY_BARS.items()]
    script = f"""
set terminal svg size 900,360 dynamic noenhanced font 'sans-serif,15' background rgb 'white'
set output '{path}'
set title 'Processor time to echo 64 bytes (lower is better; hand-written epoll is 1)' font ',17'
set xrange [-0.55:{len(chosen) - 0.45}]
set yrange [0:{top * 1.1:.3f}]
set xtics ({tics}) nomirror scale 0
set ytics 0.5 nomirror
set border 3 linecolor rgb '#777777'
set key outside bottom center horizontal samplen 1 spacing 1.2 width 2
set samples 2
{chr(10).join(objects)}
plot {", ".join(keys)}, 1 with lines linecolor rgb '#444444' dashtype 2 linewidth 1.5 title 'hand-written epoll'
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def plots(results: dict, folder: Path) -> None:
    if not shutil.which("gnuplot"):
        print("bench: no gnuplot: no plots")
        return
    summary(folder / "summary.svg", results["scenarios"])
    streams = {name: s["servers"] for name, s in results["scenarios"].items()
               if s["servers"] and name.startswith(("echo", "bulk", "accept", "udp-echo", "unixgram")) and name != "udp-echo-batch"}
    labels = [label for label in COLOURS if label != "epoll"]
    if streams:
        def column(label: str, key: str) -> list[float | None]:
            return [s.get(label, {}).get(key) for s in streams.values()]

        bars(folder / "cpu.svg", "Processor time of the server, as a multiple of the better epoll loop by hand", "ratio",
             list(streams), {label: column(label, "ratio") for label in labels})
        bars(folder / "rate.svg", "Throughput, as a multiple of the better epoll loop by hand", "ratio", list(streams),
             {label: column(label, "rate_ratio") for label in labels})
    for name, key, title, unit in (
        ("udp-flood-segmented", "rate", "UDP one way, 1 KiB datagrams from a sender that segments", "datagrams/s received"),
        ("tls-echo", "best_ns", "TLS echo", "processor ns/message"),
    ):
        servers = results["scenarios"].get(name, {}).get("servers")
        if servers:
            bars(folder / f"{name}.svg", title, unit, list(servers), {name: [s[key] for s in servers.values()]}, ["#0b6fa4"])
    if results.get("idle"):
        bars(folder / "idle.svg", "Memory of an idle connection", "bytes", list(results["idle"]),
             {"allocated": [i["allocated"] for i in results["idle"].values()],
              "resident": [i["rss"] for i in results["idle"].values()]}, ["#0b6fa4", "#e69f00"], log=True)
    if results.get("cost"):
        cost = [c for c in results["cost"] if "definitions" not in c["label"]]
        bars(folder / "compile.svg", "Time to compile an echo server", "seconds", [c["label"] for c in cost],
             {"seconds": [c["compile"] for c in cost]}, ["#0b6fa4"])
        sized = [c for c in cost if c.get("size")]
        bars(folder / "size.svg", "Size of an echo server, -Os, stripped", "KB", [c["label"] for c in sized],
             {"no exceptions, no RTTI": [c["size_no_exceptions"] and c["size_no_exceptions"] / 1024 for c in sized],
              "with both": [c["size"] / 1024 for c in sized]}, ["#0b6fa4", "#56b4e9"])
