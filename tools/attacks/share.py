"""Several processes on one store: the owner is killed every two seconds, clients at random, and one looks on."""

import json
import subprocess
import threading
import time
from pathlib import Path

from attacks.frame import Attack, Context, Outcome
from attacks.machine import fake_sync, run as execute
from attacks.oracle import Life, Trial

OWNER_EVERY = 2.0
CLIENT_EVERY = (0.3, 1.2)

# How many of the processes have a slow disk. An owner that waits for it has carried out more than it has answered.
SLOW_SHARE = 0.5


class Crowd:
    """Three publishers and three workers, each of which is followed by another when it is killed."""

    ROLES = [("--publishers", "2", "--workers", "0")] * 3 + [("--publishers", "0", "--workers", "4")] * 3

    def __init__(self, context: Context, trial: Trial, env: dict | None = None) -> None:
        self.context = context
        self.trial = trial
        self.env = env or {}
        self.slow_disk = fake_sync(context.work, "slow")
        self.seed = (context.seed & 0xFFF) << 20
        self.members = [self.start(role) for role in self.ROLES]

    def start(self, role: tuple) -> Life:
        self.seed += 1
        env = self.env or (self.slow_disk if self.context.random.random() < SLOW_SHARE else {})
        return self.trial.start(self.seed, "--shared", "--durability", "mixed", "--backlog", "600", *role, env=env)

    def kill(self, position: int) -> None:
        """Kills a member and starts another in its place."""
        self.members[position].kill()
        self.members[position] = self.start(self.ROLES[position])

    def position(self, pid: int) -> int | None:
        """Which member a process is; none for one that only looks on."""
        return next((place for place, life in enumerate(self.members) if life.pid == pid), None)

    def ended(self) -> list[int]:
        """The members that ended by themselves, by exit code."""
        return [life.process.returncode for life in self.members if life.process.poll() is not None]

    def end(self) -> None:
        for life in self.members:
            life.kill()


class Onlooker:
    """Runs `stalk stats` again and again; knows the owner, and how long a look took."""

    def __init__(self, context: Context, trial: Trial) -> None:
        self.command = [str(context.stalk), "stats", "--json", "--store", str(trial.store)]
        self.owner: int | None = None
        self.looks = 0
        self.slowest = 0.0
        self.problems: list[str] = []
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self) -> None:
        while not self.is_over.is_set():
            began = time.monotonic()
            result = subprocess.run(self.command, capture_output=True, timeout=60, check=False)
            if self.is_over.is_set():
                return
            if result.returncode == 0:
                self.owner = json.loads(result.stdout)["owner"]
                self.looks += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            elif result.returncode != 3:
                # 3: there is no store yet.
                self.problems.append(f"stats ended with {result.returncode}: {result.stderr.decode().strip()}")
            time.sleep(0.05)

    def end(self) -> None:
        self.is_over.set()
        self.thread.join(60)


def live(context: Context, trial: Trial, seconds: float, env: dict | None = None) -> tuple[Outcome, int, int]:
    """Lets the crowd live for a while; what was wrong, how often the owner was killed, and how often a client."""
    outcome = Outcome()
    crowd = Crowd(context, trial, env)
    onlooker = Onlooker(context, trial)
    owners = clients = 0
    end = time.monotonic() + seconds
    next_owner = time.monotonic() + OWNER_EVERY
    try:
        while time.monotonic() < end and not crowd.ended():
            time.sleep(context.random.uniform(*CLIENT_EVERY))
            if time.monotonic() >= next_owner and onlooker.owner is not None:
                position = crowd.position(onlooker.owner)
                if position is not None:
                    crowd.kill(position)
                    owners += 1
                    next_owner = time.monotonic() + OWNER_EVERY
                    continue
            crowd.kill(context.random.randrange(len(crowd.members)))
            clients += 1
        if crowd.ended():
            outcome.problems.append(f"a process ended by itself: {crowd.ended()} {trial.errors()} {failures(trial)}")
    finally:
        onlooker.end()
        crowd.end()
    outcome.problems += onlooker.problems[:3]
    outcome.notes = [f"{onlooker.looks} looks, the slowest {onlooker.slowest * 1000:.0f} ms"]
    return outcome, owners, clients


def failures(trial: Trial) -> str:
    """What the processes said of calls that failed, but for those that the log had no room for at the moment."""
    lines = trial.journal.read_text(errors="replace").splitlines()
    return "; ".join([line for line in lines if " failed " in line and " failed unavailable The log " not in line][-3:])


def run(context: Context) -> Outcome:
    """Lets a crowd live on one store, and compares the store with what all of them said."""
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    outcome, owners, clients = live(context, trial, context.count)
    outcome.done = context.count
    if failures(trial):
        outcome.problems.append(f"calls failed: {failures(trial)}")
    verdict = trial.check()
    if not verdict.good:
        outcome.problems.append(str(verdict))
        return outcome
    if owners == 0:
        outcome.problems.append("no owner was ever killed: the attack did not happen")
    figures = verdict.figures
    outcome.notes += [
        f"{owners} owners and {clients} clients killed",
        f"{figures['published']:,} published, {figures['done']:,} done",
    ]
    return outcome


def control(context: Context) -> str:
    """Takes the lock away: every process thinks that the store is its own, which must be noticed."""
    library = context.work / "nolock.so"
    execute("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, Path(__file__).with_name("nolock.c"))
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    outcome, _, _ = live(context, trial, 6, {"LD_PRELOAD": str(library)})
    verdict = trial.check(settle=False)
    problems = outcome.problems + ([] if verdict.good else [str(verdict)])
    return f"without the lock: {problems[0][:100]}" if problems else ""


ATTACK = Attack(
    name="share",
    about="3 publishers, 3 workers and an onlooker on one store; the owner is killed every two seconds",
    unit="seconds",
    count=20,
    long=3600,
    run=run,
    control=control,
)
