"""What every attack is made of, and the program that runs them and prints the table."""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from attacks.peers import compare

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Context:
    """What an attack may use."""

    stalk: Path
    """The binary."""
    work: Path
    """A directory of its own, which is removed afterwards unless something was found."""
    count: int
    """How much to do, in the attack's own unit."""
    seed: int
    long: bool
    verbose: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def say(self, text: str) -> None:
        """Tells a person how far it is."""
        if self.verbose or sys.stderr.isatty():
            print(f"    {text}", file=sys.stderr, flush=True)


@dataclass
class Outcome:
    """What an attack did and found."""

    done: int = 0
    """How much was done, in the attack's unit."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Figures for the table."""
    skips: list[str] = field(default_factory=list)
    """Parts that were left out, and why."""


@dataclass
class Attack:
    """One way to break a store."""

    name: str
    about: str
    unit: str
    count: int
    """How much in CI."""
    long: int
    """How much with --long."""
    run: Callable[[Context], Outcome]
    control: Callable[[Context], str]
    """Plants a fault and returns what was found of it; an empty text means that the attack is blind."""
    probe: Callable[[], str | None] = lambda: None
    """Why the attack can't run here, or None."""
    waits: bool = False
    """Whether it waits most of the time, so that it can run beside others."""


@dataclass
class Row:
    """A line of the table."""

    name: str
    count: str
    result: str
    control: str
    seconds: float
    reasons: list[str] = field(default_factory=list)
    """Why the attack counts as failed; empty when all is well."""


def run_attack(attack: Attack, options: argparse.Namespace, stalk: Path) -> Row:
    """Runs an attack and its control; what goes wrong in the harness counts as found."""
    reason = attack.probe()
    if reason:
        print(f"{attack.name}: SKIPPED: {reason}", flush=True)
        return Row(attack.name, "0", f"skipped: {reason}", "-", 0)
    count = options.count or (attack.long if options.long else attack.count)
    print(f"{attack.name}: {count} {attack.unit}, seed {options.seed}", flush=True)
    start = time.monotonic()
    outcome = Outcome()

    def context(part: str) -> Context:
        work = Path(tempfile.mkdtemp(prefix=f"torture-{attack.name}-{part}-", dir=options.work))
        return Context(stalk, work, count, options.seed, options.long, options.verbose)

    attacked = context("run")
    try:
        outcome = attack.run(attacked)
    except Exception:  # noqa: BLE001
        outcome.problems.append("the harness failed:\n" + traceback.format_exc())
    for skip in outcome.skips:
        print(f"{attack.name}: SKIPPED a part: {skip}", flush=True)
    reasons = [f"FOUND: {problem}" for problem in outcome.problems[:10]]
    if reasons:
        reasons.append(f"kept {attacked.work}")
    else:
        shutil.rmtree(attacked.work, ignore_errors=True)

    control, blindness = try_control(attack, lambda: context("control"))
    reasons += blindness

    notes = "; ".join(outcome.notes)
    result = f"{len(outcome.problems)} found" if outcome.problems else "nothing found"
    row = Row(
        name=attack.name,
        count=f"{outcome.done} {attack.unit}",
        result=f"{result}{f' ({notes})' if notes else ''}",
        control=f"found: {control}" if control else "NOT FOUND",
        seconds=time.monotonic() - start,
        reasons=reasons,
    )
    print(f"{row.name}: {row.count}, {row.result}; control {row.control}; {row.seconds:.0f} s", flush=True)
    for reason in reasons:
        print(f"{attack.name}: {reason}", flush=True)
    return row


def try_control(attack: Attack, context: Callable[[], Context]) -> tuple[str, list[str]]:
    """What the attack found of a planted fault, and why it counts as blind.

    A planted fault does harm only by chance in some attacks, so there are three tries, each with choices of its own.
    """
    reasons = []
    for attempt in range(3):
        planted = context()
        planted.random = random.Random(f"{planted.seed} {attempt}")
        planted.seed += attempt
        try:
            found = attack.control(planted)
            if found:
                return found, []
            reasons.append("CONTROL FAILED: the planted fault was not found")
        except Exception:  # noqa: BLE001
            reasons.append(f"CONTROL FAILED:\n{traceback.format_exc()}")
        finally:
            shutil.rmtree(planted.work, ignore_errors=True)
        print(f"{attack.name}: control, try {attempt + 1}: {reasons[-1]}", flush=True)
    return "", reasons


def table(rows: list[Row]) -> str:
    """The rows as text, in columns."""
    cells = [("attack", "count", "result", "control", "seconds")]
    cells += [(row.name, row.count, row.result, row.control, f"{row.seconds:.0f}") for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)


class Aside:
    """The attacks that wait most of the time, in a process of their own beside the others."""

    def __init__(self, names: list[str], options: argparse.Namespace) -> None:
        self.output = tempfile.TemporaryFile("w+")
        command = [sys.executable, sys.argv[0], "--seed", str(options.seed)]
        for name in names:
            command += ["--only", name]
        for name in ("stalk", "work", "count"):
            if value := getattr(options, name):
                command += [f"--{name}", str(value)]
        command += [f"--{name}" for name in ("long", "verbose") if getattr(options, name)]
        self.process = subprocess.Popen(command, stdout=self.output, stderr=subprocess.STDOUT)

    def wait(self) -> bool:
        """Waits for its end, and prints what it said; whether all was well."""
        code = self.process.wait()
        self.output.seek(0)
        print("\nbeside these:\n" + self.output.read(), flush=True)
        return code == 0

    def stop(self) -> None:
        """Ends it, if it still runs; it cleans up behind itself."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def find_stalk(given: str | None) -> Path:
    """The binary: the one given, else the release build that tools/test makes, else a debug build."""
    places = [Path(given)] if given else [ROOT / ".build-release/release/stalk", ROOT / ".build/debug/stalk"]
    for place in places:
        if place.is_file():
            return place.resolve()
    sys.exit("tools/torture: there is no binary: build it with 'swift build', or name it with --stalk")


def main(attacks: list[Attack]) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        prog="tools/torture", description="Attacks the real binary and says what is lost."
    )
    parser.add_argument("--long", action="store_true", help="the counts of a release instead of those of CI")
    parser.add_argument("--only", action="append", metavar="NAME", help="this attack alone; may be repeated")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--seed", type=int, help="where chance begins; printed")
    parser.add_argument("--count", type=int, help="another count, for every attack that runs")
    parser.add_argument("--stalk", help="the binary that is attacked")
    parser.add_argument("--work", help="where stores are made; the journals too")
    parser.add_argument("--verbose", action="store_true", help="say how far it is")
    parser.add_argument(
        "--peers",
        nargs="*",
        metavar="WORD",
        help="attack other systems as well, and write the table of docs/durability.md; or those with a WORD alone",
    )
    options = parser.parse_args()
    if options.peers is not None:
        return compare(find_stalk(options.stalk), options.peers, options.seed or 1, options.work)
    if options.list:
        for attack in attacks:
            print(f"{attack.name:10} {attack.count:>7,} / {attack.long:>9,} {attack.unit:22} {attack.about}")
        return 0
    unknown = set(options.only or []) - {attack.name for attack in attacks}
    if unknown:
        parser.error(f"no such attack: {', '.join(sorted(unknown))}; --list says what there is")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 1 << 20)
    stalk = find_stalk(options.stalk)
    print(f"tools/torture: {stalk}, seed {options.seed}", flush=True)
    chosen = [attack for attack in attacks if not options.only or attack.name in options.only]
    aside = None if options.only else Aside([attack.name for attack in chosen if attack.waits], options)
    try:
        rows = [run_attack(attack, options, stalk) for attack in chosen if aside is None or not attack.waits]
        print("\n" + table(rows), flush=True)
        is_good = aside is None or aside.wait()
    finally:
        if aside is not None:
            aside.stop()
    bad = [row for row in rows if row.reasons]
    for row in bad:
        # Said once more where a reader of a long log looks first.
        print("\n" + "\n".join(f"{row.name}: {reason}" for reason in row.reasons))
    if bad:
        print(f"\nFAILED: {', '.join(row.name for row in bad)}; run it again with --seed {options.seed}")
    return 0 if is_good and not bad else 1
