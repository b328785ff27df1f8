"""Moves the wall clock under a working store and between two owners: an hour back, an hour and ten years ahead, frozen.

Delays and leases go by the time since boot. So no jump of the wall clock may make anything early or keep it back.
"""

import json
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from attacks.frame import Attack, Context, Outcome
from attacks.kill import life_seed
from attacks.machine import find_tool, run as run_command
from attacks.oracle import Trial

HOUR = 3600
YEARS = 10 * 365 * 24 * HOUR
RECOVERY = 60


@dataclass(frozen=True)
class Jump:
    """What becomes of the clocks."""

    name: str
    wall: int = 0
    is_frozen: bool = False
    boot: int = 0

    def write(self, path: Path) -> None:
        """Lets the clocks of the processes that look at the file jump at once."""
        frozen = int(time.time()) if self.is_frozen else 0
        with open(path, "r+b" if path.exists() else "wb") as file:
            file.write(struct.pack("=qqq", self.wall, frozen, self.boot))


NONE = Jump("no jump")
JUMPS = (
    Jump("an hour back", wall=-HOUR),
    Jump("an hour ahead", wall=HOUR),
    Jump("ten years ahead", wall=YEARS),
    Jump("frozen", is_frozen=True),
)


class Clocks:
    """Clocks that can be moved."""

    def __init__(self, work: Path) -> None:
        self.file = work / "clocks"
        library = work / "wallclock.so"
        source = Path(__file__).with_name("wallclock.c")
        run_command("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source)
        self.env = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self.file)}
        NONE.write(self.file)


def stalk(context: Context, clocks: Clocks, store: Path, *arguments: str) -> bytes:
    """What a command on a store prints."""
    command = [str(context.stalk), *arguments, "--store", str(store)]
    env = clocks.env | {"PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, capture_output=True, timeout=120, check=False, input=b"later", env=env)
    if result.returncode != 0:
        raise RuntimeError(f"{arguments[0]} failed: {result.stderr.decode(errors='replace')}")
    return result.stdout.strip()


def comes_early(context: Context, clocks: Clocks, jump: Jump) -> bool:
    """Whether a message that is delayed by half an hour is there at once when the clocks have jumped."""
    store = context.work / f"delayed-{jump.name.replace(' ', '-')}"
    NONE.write(clocks.file)
    stalk(context, clocks, store, "put", "q", "--delay", "30m")
    jump.write(clocks.file)
    return stalk(context, clocks, store, "get", "q", "--wait", "1s") == b"later"


def live_through(trial: Trial, clocks: Clocks, seed: int, jump: Jump) -> str:
    """One life in which the clock jumps, and jumps back: what is wrong."""
    NONE.write(clocks.file)
    life = trial.start(seed, "--lease", "1s", env=clocks.env)
    try:
        if not life.wait_for("finished", 60):
            return f"it did nothing: {trial.failures()} {trial.errors()}"
        for now in (jump, NONE):
            now.write(clocks.file)
            begin = trial.mark()
            # Longer than a lease, so that those of before and after the jump are seen to end.
            time.sleep(1.2)
            if not trial.goes_on(life, begin, RECOVERY):
                return f"it does not go on: {trial.failures()[-1:]} {trial.errors()}"
        return ""
    finally:
        life.kill()


def run(context: Context) -> Outcome:
    """Every jump in turn, on one store that lives on."""
    outcome = Outcome()
    clocks = Clocks(context.work)
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    for index in range(context.count):
        jump = JUMPS[index % len(JUMPS)]
        problem = live_through(trial, clocks, life_seed(context, index + 1), jump)
        verdict = trial.check()
        if problem or not verdict.good:
            outcome.problems.append(f"{jump.name}: {problem or verdict}")
            break
        outcome.done += 1
    for jump in JUMPS:
        if comes_early(context, clocks, jump):
            outcome.problems.append(f"{jump.name}: a message that is delayed by half an hour came at once")
    outcome.notes = [jump.name for jump in JUMPS]
    return outcome


def control(context: Context) -> str:
    """The clock since boot jumps instead, by two hours: a message must come before its time.

    And the store must see jumps of the wall clock at all: what is published then bears its time.
    """
    clocks = Clocks(context.work)
    ahead = JUMPS[2]
    ahead.write(clocks.file)
    stalk(context, clocks, context.work / "seen", "put", "q")
    seen = json.loads(stalk(context, clocks, context.work / "seen", "peek", "q", "--json"))["publishedAt"]
    if int(seen[:4]) < time.gmtime(time.time() + ahead.wall).tm_year - 1:
        return ""
    if comes_early(context, clocks, NONE):
        return ""
    if not comes_early(context, clocks, Jump("boot", boot=2 * HOUR)):
        return ""
    return f"a message of {seen[:4]}; one that came early by a clock since boot that jumped"


ATTACK = Attack(
    name="clock",
    about="the wall clock jumps an hour back, an hour and ten years ahead, and stands still",
    unit="jumps",
    count=4,
    long=200,
    run=run,
    control=control,
    waits=True,
    probe=lambda: None if find_tool("cc") else "needs cc, to build the library that moves clocks",
)
