"""A device that fails and heals under a working store: nothing is acknowledged that is not on it.

On Linux the first failed sync marks the pages clean, so after healing a second sync succeeds, and reading shows what
the device never got. A store must therefore stop at the first failure, and must not believe the page cache when it is
opened again. Even a page that is written again can be lost: ext4 does not know any more that its blocks are unwritten.
The device is nbdkit's memory behind its error filter, as a file by nbdfuse, behind a loop device.
"""

import os
import random
import subprocess
import time
from collections.abc import Callable

from attacks.frame import Attack, Context, Outcome
from attacks.machine import AttackError, Disk, Place, fake_sync, missing, run
from attacks.oracle import Trial

KINDS = ("ext4", "xfs")
# The file systems' own journals are left alone for a while: they would give up on a device that fails.
OPTIONS = {"ext4": "commit=300", "xfs": ""}
SIZE = "512M"


class FailingDevice:
    """A file that is a device; its writes fail while a switch is on."""

    def __init__(self, place: Place):
        self.switch = place.path / "fail"
        self.image = place.path / "device"
        socket, ready, said = place.path / "nbd", place.path / "nbdkit.pid", place.path / "device.err"
        self.image.touch()
        errors = ["error-pwrite=EIO", "error-pwrite-rate=100%", f"error-pwrite-file={self.switch}"]
        # Both wait to be told to end, in the reverse order.
        with open(said, "ab") as output:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
            server = ["nbdkit", "-f", "-U", socket, "-P", ready, "--filter=error", "memory", SIZE, *errors]
            place.start(*server, **quiet)
            # The socket is there before anybody listens; the file with the process's number comes after that.
            wait_until(ready.exists, lambda: f"nbdkit does not start: {said.read_text()}")
            place.start("nbdfuse", self.image, "--unix", socket, **quiet)
        place.cleanup.callback(run, "umount", self.image, check=False)
        wait_until(lambda: self.image.stat().st_size > 0, lambda: f"nbdfuse does not start: {said.read_text()}")

    def fail(self) -> None:
        """Every write fails from now on."""
        self.switch.touch()

    def heal(self) -> None:
        """Writes succeed again."""
        self.switch.unlink(missing_ok=True)


def wait_until(condition: Callable[[], bool], complaint: Callable[[], str], seconds: float = 60) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AttackError(complaint())
        time.sleep(0.02)


class Bench:
    """A failing device with a file system and a store on it."""

    def __init__(self, context: Context, place: Place, kind: str, number: int):
        self.context = context
        self.kind = kind
        self.number = number
        self.device = FailingDevice(place)
        self.disk = Disk(place, "disk", kind, image=self.device.image)
        self.disk.make()
        self.disk.mount(OPTIONS[kind])
        self.trial = Trial(context.stalk, self.disk.mount_point / "store", place.path / "journal")
        # How often the store was opened on the page cache that lies.
        self.trusted = 0

    def live_and_fail(self, chance: random.Random, env: dict | None = None) -> str:
        """One life in which the device fails and heals; returns what went wrong."""
        seed = ((self.context.seed & 0xFF) << 24) | (self.number << 12) | self.trial.lives
        life = self.trial.start(seed, "--durability", "synced", env=env)
        try:
            if not life.wait_for("published"):
                raise AttackError(f"the loader did nothing: {self.trial.failures()} {self.trial.errors()}")
            time.sleep(chance.uniform(0.05, 0.4))
            before = self.trial.journal.stat().st_size
            self.device.fail()
            begin = self.trial.journal.stat().st_size
            time.sleep(chance.uniform(0.1, 0.5))
            # A slow machine may not have written anything by now.
            deadline = time.monotonic() + 20
            while not env and not self.has_failed(before) and time.monotonic() < deadline:
                time.sleep(0.05)
            self.device.heal()
            # It goes on, or waits: what it acknowledges now counts too.
            life.wait(0.5)
        finally:
            life.kill()
        said = self.trial.journal.read_bytes()
        if not env and not self.has_failed(before):
            return "no call failed with storageFailed"
        published = numbers(said[begin:], b"published")
        if late := numbers(said[begin:], b"publishing") & published:
            return f"{len(late)} publishes were acknowledged that began after the device had failed"
        return ""

    def has_failed(self, begin: int) -> bool:
        """Whether a call was refused since a place in the journal because the storage had failed."""
        with open(self.trial.journal, "rb") as journal:
            journal.seek(begin)
            return b"storageFailed" in journal.read()

    def judge(self) -> str:
        """Opens the store on the healed device as it is, then after a power cut; returns what went wrong."""
        if self.is_writable():
            self.trusted += 1
            verdict = self.trial.check()
            if not verdict.good:
                return f"opened after healing: {verdict}"
            self.disk.cut_power()
        self.disk.unmount()
        self.disk.mount(OPTIONS[self.kind])
        verdict = self.trial.check()
        return "" if verdict.good else f"opened after healing and a power cut: {verdict}"

    def is_writable(self) -> bool:
        """Whether the file system lives: a failed write of its own journal ends it."""
        path = self.disk.mount_point / "probe"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.unlink()
        except OSError:
            return False
        return True


def numbers(journal: bytes, word: bytes) -> set[bytes]:
    """The numbers in the lines that begin with a word."""
    lines = [line.split() for line in journal.split(b"\n")[:-1]]
    return {line[1] for line in lines if len(line) > 1 and line[0] == word}


def run_attack(context: Context) -> Outcome:
    """Fails and heals a device, ext4 and XFS in turn."""
    outcome = Outcome()
    trusted = 0
    while outcome.done < context.count and not outcome.problems:
        kind = KINDS[outcome.done % len(KINDS)]
        chance = random.Random(f"{context.seed} {outcome.done}")
        with Place(context.work / f"device-{outcome.done}") as place:
            bench = Bench(context, place, kind, outcome.done + 1)
            if problem := bench.live_and_fail(chance) or bench.judge():
                outcome.problems.append(f"{kind}, time {outcome.done + 1}: {problem}")
            trusted += bench.trusted
        outcome.done += 1
    outcome.notes = [f"{trusted} opened again at once, on the page cache that lies"]
    for kind in KINDS:
        with Place(context.work / f"rewrite-{kind}") as place:
            if rewriting_is_lost(place, kind):
                outcome.notes.append(f"{kind} loses what is written again")
    return outcome


def control(context: Context) -> str:
    """The page cache lies on this kernel; and a store to which failed syncs look well loses what it acknowledged."""
    for kind in KINDS:
        with Place(context.work / f"lie-{kind}") as place:
            if not page_cache_lies(place, kind):
                return ""
    for index in range(5):
        with Place(context.work / f"blind-{index}") as place:
            bench = Bench(context, place, "ext4", 900 + index)
            problem = bench.live_and_fail(context.random, fake_sync(place.path, "errors")) or bench.judge()
            if problem:
                return f"a second sync succeeds without the data; failed syncs hidden: {problem.split(';')[0]}"
    return ""


def page_cache_lies(place: Place, kind: str) -> bool:
    """Whether a sync fails, then succeeds, and reading shows what the device does not have."""
    device = FailingDevice(place)
    disk = Disk(place, "disk", kind, image=device.image)
    disk.make()
    path = disk.mount(OPTIONS[kind]) / "file"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.pwrite(descriptor, b"A" * 4096, 0)
        os.fsync(descriptor)
        device.fail()
        os.pwrite(descriptor, b"B" * 4096, 0)
        first = sync_result(descriptor)
        device.heal()
        second = sync_result(descriptor)
        shown = os.pread(descriptor, 1, 0)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        stored = os.pread(descriptor, 1, 0)
    finally:
        os.close(descriptor)
    return (first, second, shown, stored) == (False, True, b"B", b"A")


def rewriting_is_lost(place: Place, kind: str) -> bool:
    """Whether data that was written again, and synced, after a failed write is not there after a power cut.

    So it is on ext4 with Linux 6.18, unless the file was taken out of memory before; a kernel may mend it.
    """
    device = FailingDevice(place)
    disk = Disk(place, "disk", kind, image=device.image)
    disk.make()
    path = disk.mount(OPTIONS[kind]) / "file"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.pwrite(descriptor, b"A" * 4096, 0)
        os.fsync(descriptor)
        device.fail()
        os.pwrite(descriptor, b"B" * 4096, 4096)
        sync_result(descriptor)
        device.heal()
        os.pwrite(descriptor, b"C" * 4096, 4096)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    disk.cut_power()
    disk.unmount()
    disk.mount()
    return path.read_bytes()[4096:8192] != b"C" * 4096


def sync_result(descriptor: int) -> bool:
    """Whether a sync succeeds."""
    try:
        os.fdatasync(descriptor)
    except OSError:
        return False
    return True


def probe() -> str | None:
    """Why it can't run here, or nothing."""
    if reason := missing("mkfs.xfs", "nbdkit", "nbdfuse", "cc"):
        return reason
    return None if os.path.exists("/dev/fuse") else "needs FUSE (/dev/fuse)"


ATTACK = Attack(
    name="device",
    about="a device returns EIO and heals, under ext4 and XFS",
    unit="failures",
    count=8,
    long=100,
    run=run_attack,
    control=control,
    probe=probe,
)
