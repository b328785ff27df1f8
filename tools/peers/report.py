"""The table and the chart of a comparison, written between markers so that no figure is ever typed by hand."""

import dataclasses
import html
import math
import pathlib

BEGIN, END = "<!-- bench-peers: begin -->", "<!-- bench-peers: end -->"
DURABILITIES = ("survives power loss", "survives a kill of the process")


@dataclasses.dataclass
class Result:
    """What one store did in one measurement."""

    name: str
    durability: str
    work: str
    shape: str
    bodies: str
    rate: float
    p50: float
    p99: float
    client_cpu: float
    server_cpu: float


    @property
    def way(self) -> str:
        """How it is called: many single messages at a time, one at a time, or in batches; only like is compared."""
        if "batches" in self.shape:
            return "batches"
        return "single" if self.shape == "1 caller" else "many"


def time_text(micros: float) -> str:
    """A time in the unit that suits it."""
    return f"{micros:.0f} µs" if micros < 1000 else f"{micros / 1000:.1f} ms"


def groups(results: list[Result]):
    """The results of each durability, work and kind of bodies, the quickest first."""
    for durability in DURABILITIES:
        for work in ("publish", "life"):
            for bodies in ("random", "records"):
                found = [r for r in results if (r.durability, r.work, r.bodies) == (durability, work, bodies)]
                if found:
                    yield (durability, work, bodies), sorted(found, key=lambda r: -r.rate)


def title(key: tuple[str, str, str]) -> str:
    """What a group is about."""
    works = {"publish": "publish", "life": "publish, take, acknowledge"}
    bodies = {"random": "1 KiB of random bytes", "records": "package records"}
    return f"{key[0][0].upper()}{key[0][1:]}: {works[key[1]]}, {bodies[key[2]]}"


def table(results: list[Result], facts: dict) -> str:
    """The report as Markdown."""
    lines = [
        f"Measured on {facts['date']}: {facts['cores']} cores, load {facts['load']:.1f} before the run, "
        f"{facts['seconds']:g} s each, one after the other.",
        "",
    ]
    if facts["disk"]:
        disk = facts["disk"]
        lines += [f"The disk did {disk['syncedWritesPerSecond']:,} synced writes of 4 KiB a second meanwhile, "
                  f"p50 {time_text(disk['latencyMicros']['p50'])}.", ""]
    lines += ["Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".", ""]
    for key, found in groups(results):
        stalk = {r.way: r.rate for r in found if r.name.startswith("Stalk")}
        lines += [f"### {title(key)}", "",
                  "| store | callers | messages/s | Stalk is | p50 of a call | p99 | client, server processor |",
                  "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
        for r in found:
            is_compared = r.way in stalk and r.rate and not r.name.startswith("Stalk")
            ratio = f"{stalk[r.way] / r.rate:.1f} ×" if is_compared else ""
            cpu = f"{r.client_cpu:.0%}, {r.server_cpu:.0%}" if r.server_cpu else ""
            lines.append(f"| {r.name} | {r.shape} | {r.rate:,.0f} | {ratio} | {time_text(r.p50)} | {time_text(r.p99)} "
                         f"| {cpu} |")
        lines.append("")
    return "\n".join(lines)


def chart(results: list[Result]) -> str:
    """The report as SVG: bars on a logarithmic scale, readable on light and dark pages."""
    left, width, row = 330, 420, 22
    parts: list[str] = []
    y = 12
    top = max((r.rate for r in results), default=1)
    decades = max(1, len(str(int(top))) - 1)

    def place(rate: float) -> float:
        return width * min(1.0, max(0.005, math.log10(max(rate, 10) / 10) / decades))

    for key, found in groups(results):
        y += 24
        parts.append(f'<text x="8" y="{y}" class="title">{html.escape(title(key))}</text>')
        y += 8
        for r in found:
            kind = "stalk" if r.name.startswith("Stalk") else "peer"
            parts.append(f'<text x="{left - 8}" y="{y + 15}" class="name">{html.escape(f"{r.name}, {r.shape}")}</text>')
            parts.append(f'<rect x="{left}" y="{y + 3}" width="{place(r.rate):.1f}" height="{row - 6}" class="{kind}"/>')
            parts.append(f'<text x="{left + place(r.rate) + 6:.1f}" y="{y + 15}">{r.rate:,.0f}/s</text>')
            y += row
    style = (
        "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.name{text-anchor:end}"
        ".peer{fill:#8c959f}.stalk{fill:#0969da}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.peer{fill:#6e7681}.stalk{fill:#4493f8}}"
    )
    size = f'width="{left + width + 110}" height="{y + 16}" viewBox="0 0 {left + width + 110} {y + 16}"'
    note = "Messages a second on a logarithmic scale; longer is better."
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{note}</title>'
            f'<style>{style}</style><text x="8" y="16">{note}</text>{"".join(parts)}</svg>\n')


def write_between(page: pathlib.Path, begin: str, end: str, text: str) -> None:
    """Replaces what stands between two markers of a page."""
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}")


def write_report(results: list[Result], facts: dict, docs: pathlib.Path | None) -> None:
    """Writes table and chart into docs/, or prints the table."""
    text = table(results, facts)
    if docs is None:
        print(text)
        return
    chart_link = "![Messages a second, as a chart](performance.svg)"
    write_between(docs / "performance.md", BEGIN, END, f"{chart_link}\n\n{text}")
    (docs / "performance.svg").write_text(chart(results))
