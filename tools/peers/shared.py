"""Servers and Stalk with several client processes: what each is given, and the table that it makes."""

import json
import subprocess

from report import DURABILITIES, Result, time_text

BEGIN, END = "<!-- bench-peers shared: begin -->", "<!-- bench-peers shared: end -->"
PROCESSES = (1, 2, 8)
WORKS = {
    "publish, one a call": ("publish", ((16, 1), (4, 4), (1, 16))),
    "publish, 100 a call": ("publish", ((16, 100),)),
    "publish, take, acknowledge": ("life", ((16, 1), (4, 4), (1, 16))),
}
# What `stalk bench --processes` calls these, where there is such a run.
RUNS = {
    "publish-1": (DURABILITIES[0], "publish, one a call"),
    "publish-100": (DURABILITIES[0], "publish, 100 a call"),
    "life-1": (DURABILITIES[0], "publish, take, acknowledge"),
    "written-1": (DURABILITIES[1], "publish, one a call"),
    "written-100": (DURABILITIES[1], "publish, 100 a call"),
}


def clients(command: list[str], count: int) -> dict:
    """Runs some clients at once and adds up what they did; times are those of the slowest."""
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    found = []
    try:
        for process in running:
            found.append(json.loads(process.communicate(timeout=900)[0]))
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    return {
        "messagesPerSecond": sum(one["messagesPerSecond"] for one in found),
        "p50Micros": max(one["p50Micros"] for one in found),
        "p99Micros": max(one["p99Micros"] for one in found),
        "clientCPU": sum(one["clientCPU"] for one in found),
    }


def stalk_results(report: dict) -> list[Result]:
    """The results of one `stalk bench --processes N --json`."""
    count = report["shared"]["processes"]
    results = []
    for found in report["shared"]["runs"]:
        if found["name"] not in RUNS:
            continue
        durability, work = RUNS[found["name"]]
        for name, key in (("Stalk, in one process", "oneProcess"), ("Stalk, through its socket", "throughSocket")):
            figures = found[key]
            results.append(Result(name, durability, work, f"{count}", "random", figures["messagesPerSecond"],
                                  figures["p50Micros"], figures["p99Micros"], 0.0, 0.0))
    return results


def shared_table(results: list[Result], facts: dict) -> str:
    """The report as Markdown: a table for each durability and work, a row for each store and number of processes."""
    lines = [
        f"Measured on {facts['date']}: {facts['cores']} cores, load {facts['load']:.1f} before the run, "
        f"{facts['seconds']:g} s each, one after the other, 1 KiB of random bytes.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".",
        "",
    ]
    for durability in DURABILITIES:
        for work in WORKS:
            found = [r for r in results if (r.durability, r.work) == (durability, work)]
            if not found:
                continue
            lines += [f"### Shared; {durability}: {work}", "",
                      "| store | processes | messages/s | p50 of a call | p99 | clients, server processor |",
                      "| --- | ---: | ---: | ---: | ---: | ---: |"]
            for r in sorted(found, key=lambda r: (int(r.shape.split()[0]), -r.rate)):
                cpu = f"{r.client_cpu:.0%}, {r.server_cpu:.0%}" if r.server_cpu else ""
                lines.append(f"| {r.name} | {r.shape} | {r.rate:,.0f} | {time_text(r.p50)} | {time_text(r.p99)} | {cpu} |")
            lines.append("")
    return "\n".join(lines)
