"""Kills `stalk compact`, `stalk backup` and `stalk repair --apply` in the middle, or takes their power away.

Compacting and backing up must leave a store that holds everything, and a backup is there as a whole or not at all. A
repair that was cut short and run again must end as one that was not.
"""

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

from attacks.frame import Attack, Context, Outcome
from attacks.kill import life_seed
from attacks.machine import AttackError, Disk, Place, fake_sync, kill, missing, run as run_command
from attacks.oracle import Trial

KINDS = ("compact", "backup", "repair")
PAGE = 4096
SECONDS = 120


class Patient:
    """A store on a disk, and what is done to it."""

    def __init__(self, context: Context, place: Place, number: int):
        self.context = context
        self.place = place
        self.disk = Disk(place, "disk", "xfs" if number % 2 else "ext4")
        self.disk.make()
        self.disk.mount()
        self.trial = Trial(context.stalk, self.disk.mount_point / "store", place.path / "journal")
        self.backup = self.disk.mount_point / "backup"
        self.fill(number)

    def fill(self, number: int) -> None:
        """Lets a loader leave some thousand messages in the store, in LMDB and in the log."""
        life = self.trial.start(life_seed(self.context, number + 1), "--workers", "1", "--backlog", "1000000")
        if not life.wait_for("finished", 60):
            raise AttackError(f"the loader did nothing: {self.trial.failures()} {self.trial.errors()}")
        time.sleep(1)
        life.kill()
        verdict = self.trial.check(close=number % 4 < 2)
        if not verdict.good:
            raise AttackError(f"the store is not good before the attack: {verdict}")

    def damage(self, chance: random.Random) -> None:
        """Spoils some pages of LMDB, so that repair has something to do and messages are lost."""
        verdict = self.trial.check(close=True)
        if not verdict.good:
            raise AttackError(f"the store is not good before the damage: {verdict}")
        with open(self.trial.store / "index" / "data.mdb", "r+b") as file:
            pages = file.seek(0, 2) // PAGE
            for page in chance.sample(range(2, pages), min(6, pages - 2)):
                file.seek(page * PAGE + 64)
                file.write(chance.randbytes(512))
            # The damage must outlast the power cut.
            file.flush()
            os.fsync(file.fileno())

    def command(self, kind: str, store: Path) -> list[str]:
        """What is cut short."""
        words = {"compact": ["compact"], "backup": ["backup", self.backup], "repair": ["repair", "--apply"]}[kind]
        return [str(word) for word in (self.context.stalk, *words, "--store", store)]

    def finish(self, kind: str, store: Path, env: dict | None = None) -> float:
        """Runs the command to its end; how long it took."""
        begin = time.monotonic()
        run_command(*self.command(kind, store), seconds=SECONDS, **({"env": env} if env else {}))
        return time.monotonic() - begin

    def cut_short(self, kind: str, after: float, *, is_cut: bool) -> bool:
        """Runs the command for so long; whether it was still running."""
        process = self.place.start(
            *self.command(kind, self.trial.store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            pass
        was_running = process.poll() is None
        if is_cut:
            self.disk.cut_power()
        kill(process)
        if is_cut:
            self.disk.unmount()
            self.disk.mount()
        return was_running

    def judge_backup(self) -> str:
        """What is wrong with what is left of a backup: it may be missing, or there as a whole."""
        if not self.backup.exists() or not any(self.backup.iterdir()):
            return ""
        journal = self.place.path / "backup-journal"
        shutil.copy(self.trial.journal, journal)
        verdict = Trial(self.context.stalk, self.backup, journal).check(settle=False)
        shutil.rmtree(self.backup)
        return "" if verdict.good else f"the backup: {verdict}"

    def attack(self, kind: str, chance: random.Random) -> tuple[bool, str]:
        """One command that is cut short: whether it was, and what is wrong then."""
        twin = self.place.path / "twin"
        if kind == "repair":
            self.damage(chance)
        shutil.copytree(self.trial.store, twin)
        twin.chmod(0o700)
        took = self.finish(kind, twin)
        if kind == "backup":
            shutil.rmtree(self.backup)
        was_running = self.cut_short(kind, took * chance.uniform(0.02, 1), is_cut=chance.random() < 0.5)
        if kind == "repair":
            return was_running, self.judge_repair(twin)
        verdict = self.trial.check(settle=False)
        if not verdict.good:
            return was_running, str(verdict)
        if problem := self.judge_backup():
            return was_running, problem
        # What is left of the beginning must not be in the way.
        self.finish(kind, self.trial.store)
        verdict = self.trial.check(settle=False)
        return was_running, self.judge_backup() if verdict.good else f"run again: {verdict}"

    def judge_repair(self, twin: Path) -> str:
        """Runs the repair again: it must end as on the twin, where it was not cut short."""
        self.finish("repair", self.trial.store)
        found = []
        for store in (twin, self.trial.store):
            run_command(self.context.stalk, "verify", "--store", store, seconds=SECONDS)
            verdict = Trial(self.context.stalk, store, self.trial.journal).check(settle=False)
            if verdict.count("wrong", "invented", "doubled", "damaged", "unstable", "accounting"):
                return str(verdict)
            found.append({kind: verdict.count(kind) for kind in ("lost", "revived", "misplaced", "forgotten")})
        if found[0] == found[1]:
            return ""
        return f"after a whole repair {found[0]}, after one that was cut short {found[1]}"


def run(context: Context) -> Outcome:
    """The commands in turn, each on a store of its own."""
    outcome = Outcome()
    caught = dict.fromkeys(KINDS, 0)
    for number in range(context.count):
        kind = KINDS[number % len(KINDS)]
        chance = random.Random(f"{context.seed} {number}")
        with Place(context.work / f"care-{number}") as place:
            try:
                was_running, problem = Patient(context, place, number).attack(kind, chance)
            except AttackError as error:
                was_running, problem = False, str(error)
            if problem:
                outcome.problems.append(f"{kind}, time {number + 1}: {problem}")
            caught[kind] += was_running
            place.forget("disk.img")
        outcome.done += 1
    outcome.notes = [f"{count} of {kind} caught running" for kind, count in caught.items()]
    if context.count >= 6 and not any(caught.values()):
        outcome.problems.append("no command was caught while it ran")
    return outcome


def control(context: Context) -> str:
    """A backup whose syncs do nothing says that it is on the disk; after a power cut it must be broken or gone."""
    with Place(context.work / "care") as place:
        patient = Patient(context, place, 0)
        patient.finish("backup", patient.trial.store, fake_sync(place.path, "all"))
        patient.disk.cut_power()
        patient.disk.unmount()
        patient.disk.mount()
        if not patient.backup.exists() or not any(patient.backup.iterdir()):
            return "a backup without syncs is gone after a power cut"
        problem = patient.judge_backup()
        return f"a backup without syncs is broken after a power cut: {problem.split(';')[0]}" if problem else ""


ATTACK = Attack(
    name="care",
    about="compact, backup and repair --apply are killed or lose their power in the middle",
    unit="commands",
    count=6,
    long=300,
    run=run,
    control=control,
    probe=lambda: missing("mkfs.xfs", "cc"),
)
