"""A steady load for a long time, with a fault every 30 seconds, while memory, descriptors and files are watched.

Two stores share one small disk. The owner of the first is never killed, so that its memory can be followed; the owner
of the second is. Both stand still now and then, and both meet a full disk.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from attacks.frame import Attack, Context, Outcome
from attacks.kill import life_seed
from attacks.machine import Disk, Place, missing
from attacks.oracle import Life, Trial

RATE = 500
"""Messages per second of each store."""
DISK = 512 << 20
LOG_BOUND = 192 << 20
INDEX_BOUND = 192 << 20
MOST_DESCRIPTORS = 8
"""How many descriptors more than usual are in use for a moment."""
SLOPE_BOUND = 1 << 20
"""How much memory may grow in an hour of a long run."""
GROWTH_BOUND = 24 << 20
"""How much it may grow in a short one, while caches fill."""
LONG_ENOUGH = 3000
"""Seconds from which on a slope means something: memory is taken in steps of half a MiB, many minutes apart."""
LIFE = 4500
"""Seconds after which the journal of a long run is compared and shortened."""


@dataclass
class Sample:
    """What a process holds at one moment."""

    time: float
    memory: int
    descriptors: int


@dataclass
class Watch:
    """What one process held over its life."""

    samples: list[Sample] = field(default_factory=list)

    def look(self, pid: int, now: float) -> None:
        """Takes a sample, unless the process has gone."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return
        memory = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:"))
        self.samples.append(Sample(now, memory, descriptors))

    def settled(self) -> list[Sample]:
        """The samples without the first quarter, in which caches fill."""
        return self.samples[len(self.samples) // 4 :]

    def slope(self) -> float:
        """How memory grows in bytes per second, by least squares."""
        samples = self.settled()
        middle = sum(sample.time for sample in samples) / len(samples)
        mean = sum(sample.memory for sample in samples) / len(samples)
        above = sum((sample.time - middle) * (sample.memory - mean) for sample in samples)
        below = sum((sample.time - middle) ** 2 for sample in samples)
        return above / below if below else 0

    def problems(self) -> list[str]:
        """What grew that should not."""
        samples = self.settled()
        if len(samples) < 4:
            return ["too few samples"]
        found = []
        usual = sorted(sample.descriptors for sample in samples)[len(samples) // 2]
        most = max(sample.descriptors for sample in samples)
        if most > usual + MOST_DESCRIPTORS:
            found.append(f"{most} descriptors, usually {usual}")
        seconds = samples[-1].time - samples[0].time
        if seconds >= LONG_ENOUGH:
            hourly = self.slope() * 3600
            if hourly > SLOPE_BOUND:
                found.append(f"memory grows by {hourly / (1 << 20):.1f} MiB an hour")
        else:
            growth = samples[-1].memory - samples[0].memory
            if growth > GROWTH_BOUND:
                found.append(f"memory grew by {growth >> 20} MiB in {seconds:.0f} s")
        return found


def sizes(store: Path) -> tuple[int, int]:
    """The bytes of a store's log and of its index."""

    def size(pattern: str) -> int:
        total = 0
        for path in store.glob(pattern):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                pass
        return total

    return size("log/*.log"), size("index/data.mdb")


class Soak:
    """Two loaded stores on one small disk."""

    def __init__(self, context: Context, place: Place) -> None:
        self.context = context
        self.place = place
        self.disk = Disk(place, "soak", "ext4", DISK)
        self.disk.make()
        mount = self.disk.mount()
        self.steady = Trial(context.stalk, mount / "steady", context.work / "steady-journal")
        self.killed = Trial(context.stalk, mount / "killed", context.work / "killed-journal")
        self.lives: dict[str, Life] = {}
        self.seeds = 0
        self.watch = Watch()
        self.problems: list[str] = []
        self.published = 0
        self.largest = (0, 0)
        self.slopes: list[float] = []
        self.faults: list[str] = []

    def start(self, trial: Trial) -> None:
        """Begins a life of a store."""
        self.seeds += 1
        life = trial.start(life_seed(self.context, self.seeds), "--rate", str(RATE))
        self.place.cleanup.callback(life.kill)
        if not life.wait_for("published", 60):
            self.problems.append(f"{trial.store.name} does nothing: {trial.failures()} {trial.errors()}")
        self.lives[trial.store.name] = life

    def end(self, trial: Trial) -> None:
        """Kills a store's owner and compares."""
        life = self.lives[trial.store.name]
        if life.process.poll() is not None:
            self.problems.append(
                f"{trial.store.name} ended by itself with {life.process.returncode}: "
                f"{trial.failures()[-1:]} {trial.errors()}"
            )
        life.kill()
        verdict = trial.check()
        if not verdict.good:
            self.problems.append(f"{trial.store.name}: {verdict}")
            return
        self.published += verdict.figures["published"] - verdict.figures["settled"]

    def end_watch(self) -> None:
        """Judges the memory and the descriptors of the life of the first store."""
        self.problems += [f"steady: {problem}" for problem in self.watch.problems()]
        if self.watch.settled():
            self.slopes.append(self.watch.slope() * 3600)
        self.watch = Watch()

    def fault(self, kind: str) -> None:
        """Does one bad thing, and sees that work goes on after it."""
        self.faults.append(kind)
        trials = [self.steady, self.killed]
        if kind == "kill":
            self.end(self.killed)
            self.start(self.killed)
            return
        if kind == "stop":
            self.signal(signal.SIGSTOP)
            time.sleep(3)
            self.signal(signal.SIGCONT)
        else:
            self.disk.fill(0)
            time.sleep(3)
            self.disk.free("filler")
        for trial in trials:
            life = self.lives[trial.store.name]
            if not trial.goes_on(life, trial.mark(), 60):
                self.problems.append(f"{trial.store.name} does not go on after '{kind}': {trial.failures()[-1:]}")

    def signal(self, number: int) -> None:
        for life in self.lives.values():
            os.kill(life.pid, number)

    def look(self, start: float) -> None:
        """Takes the figures of this moment."""
        self.watch.look(self.lives["steady"].pid, time.monotonic() - start)
        for trial in (self.steady, self.killed):
            log, index = sizes(trial.store)
            self.largest = (max(self.largest[0], log), max(self.largest[1], index))

    def run(self, seconds: float) -> None:
        """Lets both live for some time."""
        start = time.monotonic()
        pause = min(30, seconds / 10)
        kinds = ["stop", "full", "kill"]
        self.start(self.steady)
        self.start(self.killed)
        next_fault, next_life = start + pause, start + LIFE
        while (now := time.monotonic()) < start + seconds and not self.problems:
            time.sleep(1 if seconds > 600 else 0.5)
            self.look(start)
            if now >= next_fault:
                self.fault(kinds[len(self.faults) % 3])
                next_fault += pause
                self.context.say(f"{now - start:.0f} s, {len(self.faults)} faults, {self.watch.samples[-1]}")
            if now >= next_life and now < start + seconds - LIFE / 2:
                self.end_watch()
                self.end(self.steady)
                self.start(self.steady)
                next_life += LIFE
        self.end_watch()
        self.end(self.steady)
        self.end(self.killed)
        if self.largest[0] > LOG_BOUND:
            self.problems.append(f"the log grew to {self.largest[0] >> 20} MiB")
        if self.largest[1] > INDEX_BOUND:
            self.problems.append(f"LMDB grew to {self.largest[1] >> 20} MiB")


def run(context: Context) -> Outcome:
    """Soaks for as many seconds as asked for."""
    outcome = Outcome()
    start = time.monotonic()
    with Place(context.work / "place") as place:
        soak = Soak(context, place)
        soak.run(context.count)
        outcome.problems = soak.problems
    outcome.done = int(time.monotonic() - start)
    slopes = ", ".join(f"{slope / (1 << 20):+.1f}" for slope in soak.slopes)
    outcome.notes = [
        f"{soak.published:,} published",
        f"{len(soak.faults)} faults",
        f"log {soak.largest[0] >> 20} MiB and LMDB {soak.largest[1] >> 20} MiB at most",
    ]
    if context.count >= 2 * LONG_ENOUGH:
        outcome.notes.append(f"memory {slopes} MiB an hour")
    return outcome


LEAK = """
import sys, time
kept = []
while True:
    kept.append(bytearray(4 << 20)); kept.append(open('/dev/null'))
    time.sleep(0.05)
"""


def control(context: Context) -> str:
    """A process that keeps memory and descriptors: both must be found."""
    process = subprocess.Popen([sys.executable, "-c", LEAK])
    try:
        watch = Watch()
        for _ in range(30):
            time.sleep(0.1)
            watch.look(process.pid, time.monotonic())
        found = watch.problems()
        return "; ".join(found) if len(found) == 2 else ""
    finally:
        process.kill()
        process.wait(10)


ATTACK = Attack(
    name="soak",
    about="1,000 messages a second with a fault every 30 s: kill, stand still, full disk",
    unit="seconds",
    count=60,
    long=9_000,
    run=run,
    control=control,
    waits=True,
    probe=missing,
)
