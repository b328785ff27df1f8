"""Fails every system call that a script of operations makes on its store, one at a time.

The script runs once in peace under a preloaded library, which writes its calls down. Then it runs once for each of them
and each error that fits; what is left must hold what was acknowledged, and the process must end by itself.
"""

import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from attacks.frame import Attack, Context, Outcome
from attacks.machine import Place, fault_library, find_tool
from attacks.oracle import Life, Trial

OPERATIONS = 100
TIMEOUT = 60
# Threads take turns as they like, so a fault may meet another call than in peace. That is as good a fault; but when it is
# so for many, some points of the script are not reached.
MOST_ELSEWHERE = 0.2

ANY = ["EIO", "EINTR"]
ROOM = [*ANY, "ENOSPC"]
ERRORS = {
    "pwrite": [*ROOM, "half"],
    "write": [*ROOM, "half"],
    "writev": [*ROOM, "half"],
    "fsync": ROOM,
    "fdatasync": ROOM,
    "fallocate": ROOM,
    "ftruncate": ROOM,
    "mkdir": ROOM,
    "mkdirat": ROOM,
    "renameat": ROOM,
    "unlinkat": ANY,
    "open": [*ROOM, "EMFILE"],
    "openat2": [*ROOM, "EMFILE"],
    "pread": ANY,
    "read": ANY,
    "close": ANY,
    "flock": ANY,
    "fcntl": ANY,
    "mmap": ["EIO", "ENOMEM"],
    "fdopendir": ["EIO", "ENOMEM"],
}
# What --long does besides: short writes of one byte, and a process that dies instead of making the call.
LONG = {"pwrite": ["one"], "write": ["one"], "writev": ["one"]}


@dataclass(frozen=True)
class Point:
    """A place and a fault."""

    number: int
    call: str
    path: str
    fault: str

    def __str__(self) -> str:
        return f"{self.fault} for call {self.number}, {self.call} of {self.path or 'the store itself'}"


@dataclass
class Hit:
    """What came of a point."""

    point: Point
    problem: str = ""
    was_elsewhere: bool = False
    failed: bool = False


class Script:
    """Runs of one script, each on a store of its own."""

    def __init__(self, context: Context, place: Path, seed: int) -> None:
        self.context = context
        self.place = place
        self.seed = seed
        self.library = fault_library(Place(place))

    def trial(self, name: object) -> Trial:
        """A new store and its journal."""
        return Trial(self.context.stalk, self.place / f"store-{name}", self.place / f"journal-{name}")

    def start(self, trial: Trial, **fault: object) -> Life:
        """Runs the script; without a fault its calls are written down."""
        env = self.library | {"FAULT_PATH": str(trial.store), "FAULT_LOG": str(self.log(trial))}
        env |= {f"FAULT_{key.upper()}": str(value) for key, value in fault.items()}
        return trial.start(self.seed, "--single", "--messages", str(OPERATIONS), env=env)

    def log(self, trial: Trial) -> Path:
        """Where the library writes what it saw."""
        return Path(f"{trial.journal}.calls")

    def calls(self) -> list[tuple[str, str]]:
        """Runs the script in peace: its calls with their paths inside the store."""
        trial = self.trial("peace")
        code = self.start(trial).wait(TIMEOUT)
        if code != 0:
            raise RuntimeError(f"the script failed without a fault: {code} {trial.failures()} {trial.errors()}")
        verdict = trial.check(settle=False)
        if not verdict.good:
            raise RuntimeError(f"the script's store is not good without a fault: {verdict}")
        lines = self.log(trial).read_text().splitlines()
        return [self.read_line(trial, line) for line in lines]

    @staticmethod
    def read_line(trial: Trial, line: str) -> tuple[str, str]:
        """A call's name, and its path in the store; what a rename takes away keeps its number."""
        name, _, path = line.partition(" ")
        path = path.removeprefix(str(trial.store)).removesuffix(" (deleted)").lstrip("/")
        return name, path

    def points(self) -> list[Point]:
        """Where the script can fail, and how."""
        found = []
        for number, (call, path) in enumerate(self.calls(), start=1):
            faults = ERRORS.get(call, ["EIO"])
            if self.context.long:
                faults = [*faults, *LONG.get(call, []), "kill"]
            found += [Point(number, call, path, fault) for fault in faults]
        return found

    def run_point(self, name: int, point: Point) -> Hit:
        """Runs the script with one fault, and judges what is left."""
        trial = self.trial(name)
        life = self.start(trial, at=point.number, kind=point.fault)
        hit = Hit(point)
        code = life.wait(TIMEOUT)
        if code is None:
            life.kill()
            hit.problem = "it hangs"
            return hit
        log = self.log(trial)
        seen = [self.read_line(trial, line)[0] for line in log.read_text().splitlines()] if log.exists() else []
        hit.was_elsewhere = seen != [point.call]
        hit.problem = judge_end(trial, point, code)
        hit.failed = code > 0
        verdict = trial.check(settle=False)
        if not verdict.good:
            hit.problem = f"{hit.problem}; {verdict}".removeprefix("; ")
        if not hit.problem:
            shutil.rmtree(trial.store, ignore_errors=True)
            for path in self.place.glob(f"{trial.journal.name}*"):
                if re.fullmatch(rf"journal-{name}(\..*)?", path.name):
                    path.unlink(missing_ok=True)
        return hit


def judge_end(trial: Trial, point: Point, code: int) -> str:
    """What is wrong with how the process ended."""
    if code == 0 or (point.fault == "kill" and code == -signal.SIGKILL):
        return ""
    # 1: a call failed; 5: there is no room.
    if code in (1, 5):
        return "" if trial.failures() else f"it failed without a typed error: {trial.errors()}"
    return f"it ended with {code}: {trial.errors()}"


def place_for(context: Context) -> Path:
    """A directory in memory, where a sync costs nothing; the errors come from the library, not from the disk."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else context.work
    return Path(tempfile.mkdtemp(prefix="torture-syscalls-", dir=base))


def run(context: Context) -> Outcome:
    """Runs each point of each script."""
    outcome = Outcome()
    faults: Counter[str] = Counter()
    done = elsewhere = failed = 0
    for index in range(context.count):
        place = place_for(context)
        script = Script(context, place, (context.seed + index) & 0xFFFFFFFF)
        points = script.points()
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
            for hit in pool.map(script.run_point, range(len(points)), points):
                done += 1
                faults[hit.point.fault] += 1
                elsewhere += hit.was_elsewhere
                failed += hit.failed
                if hit.problem:
                    outcome.problems.append(f"script {script.seed}, {hit.point}: {hit.problem} (kept in {place})")
                if done % 200 == 0:
                    context.say(f"{done} points, {len(outcome.problems)} found")
        outcome.done += 1
        if not outcome.problems:
            shutil.rmtree(place, ignore_errors=True)
    outcome.notes = [f"{done:,} points"] + [f"{count} {fault}" for fault, count in sorted(faults.items())]
    outcome.notes += [f"{failed} ended in a typed error", f"{elsewhere} hit another call"]
    if elsewhere > done * MOST_ELSEWHERE:
        outcome.problems.append(f"{elsewhere} of {done} points hit another call: the script is not repeatable")
    return outcome


def control(context: Context) -> str:
    """A write of the log that claims to have happened: its bytes never land, and the process dies soon after."""
    place = place_for(context)
    try:
        script = Script(context, place, context.seed & 0xFFFFFFFF)
        calls = script.calls()
        writes = [number for number, (call, path) in enumerate(calls, 1) if call == "pwrite" and path.startswith("log/")]
        for number in writes[len(writes) // 2 :]:
            trial = script.trial(f"control-{number}")
            script.start(trial, at=number, kind="drop", kill=4).wait(TIMEOUT)
            verdict = trial.check(settle=False)
            kinds = {kind: verdict.count(kind) for kind in ("lost", "revived", "forgotten", "damaged")}
            if found := ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count):
                return f"{found} by a write that never landed"
        return ""
    finally:
        shutil.rmtree(place, ignore_errors=True)


ATTACK = Attack(
    name="syscalls",
    about="every system call of a script of 100 operations fails once, in every way that fits",
    unit="scripts",
    count=1,
    long=3,
    run=run,
    control=control,
    probe=lambda: None if find_tool("cc") else "needs cc, to build the library that fails calls",
)
