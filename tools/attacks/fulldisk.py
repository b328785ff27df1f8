"""A small disk fills up under a working store and is freed again: nothing is lost, and the store works again.

Each disk leaves the store another room, from less than it needs to begin with up to more than it uses. On some the
loader lives through it, on some it is killed or the power is cut while the disk is full, and it is opened on the full
disk.
"""

import random
import time

from attacks.frame import Attack, Context, Outcome
from attacks.machine import AttackError, Disk, Place, fault_library, missing
from attacks.oracle import Life, Trial

MIB = 1 << 20
# The room that a store has on each of the disks, in MiB: a store of the loader begins with 5 to 21.
ROOMS = (2, 4, 5, 6, 7, 8, 10, 11, 12, 14, 16, 18, 20, 23, 26, 30, 36, 44, 56, 72)
# XFS can't be smaller than 300 MiB, so a file takes what is too much; so it does on ext4.
DISK_BYTES = {"ext4": 128 * MIB, "xfs": 320 * MIB}
LEFT = (0, 0, 64 << 10, MIB, 4 * MIB)
# The longest that a store may take to use up the room that it had reserved; some need not to.
FULL_SECONDS = 4.0
REFUSALS = 5
FREE_SECONDS = 60.0


class SmallDisk:
    """A disk with little room, and a store on it."""

    def __init__(self, context: Context, place: Place, number: int, room: int, env: dict | None = None):
        self.context = context
        self.number = number
        self.env = env
        self.kind = list(DISK_BYTES)[number % 2]
        self.disk = Disk(place, "disk", self.kind, size=DISK_BYTES[self.kind])
        self.disk.make(*(["-m", "0"] if self.kind == "ext4" else []))
        self.disk.mount()
        self.rest = self.disk.fill(leave=room, name="rest")
        self.trial = Trial(context.stalk, self.disk.mount_point / "store", place.path / "journal")
        self.refused = 0
        self.is_too_small = False
        self.was_refused_open = False

    def live(self) -> Life:
        """A loader that was started; it may find no room to open its store."""
        seed = ((self.context.seed & 0xFF) << 24) | (self.number << 12) | self.trial.lives
        # More is published than is finished, so that the store must grow.
        load = ["--publishers", "8", "--workers", "1", "--backlog", "1000000"]
        return self.trial.start(seed, *load, "--durability", "synced", env=self.env)

    def opens_or_is_refused(self, life: Life) -> bool:
        """Whether the loader has opened its store; when it has not, it must have said that there is no room."""
        if life.wait_for("opened", 60):
            return True
        code = life.wait(20)
        last = self.trial.failures()[-1:]
        if code != 5 or not last or not last[0].startswith("failed storageFull"):
            raise AttackError(f"the store was not opened; the loader ended with {code} {last} {self.trial.errors()}")
        return False

    def free_and_see(self, life: Life) -> str:
        """Gives the room back; what is wrong when messages are not published and finished then."""
        self.disk.free("filler")
        self.disk.free("rest")
        if self.trial.goes_on(life, self.trial.mark(), FREE_SECONDS):
            return ""
        if life.process.poll() is not None:
            return f"the loader ended by itself: {self.trial.failures()[-1:]} {self.trial.errors()}"
        return f"nothing was published and finished in {FREE_SECONDS:.0f} s after the disk was freed"

    def fill(self, chance: random.Random) -> None:
        """Takes the room that is left while the loader works, but for a little."""
        begin = self.trial.mark()
        self.disk.fill(leave=chance.choice(LEFT))
        end = time.monotonic() + FULL_SECONDS
        while time.monotonic() < end and self.trial.said(begin, "failed storageFull") < REFUSALS:
            time.sleep(0.05)
        self.refused += self.trial.said(begin, "failed storageFull")

    def die(self, life: Life, *, is_cut: bool) -> None:
        """Kills the loader, or takes the power from its machine."""
        if is_cut:
            self.disk.cut_power()
        life.kill()
        if is_cut:
            self.disk.unmount()
            self.disk.mount()

    def judge(self, problem: str = "") -> str:
        """What is wrong with what is left, in a few words."""
        verdict = self.trial.check()
        return problem if verdict.good else f"{problem}; {verdict}".removeprefix("; ")

    def attack(self, chance: random.Random) -> str:
        """Fills the disk under the store, in one of three ways; what went wrong."""
        way = chance.choice(["live", "kill", "cut"])
        life = self.live()
        try:
            if self.opens_or_is_refused(life):
                time.sleep(chance.uniform(0.1, 0.6))
                self.fill(chance)
            else:
                self.is_too_small = True
                # What is left of the beginning must not be in the way.
                self.disk.free("rest")
                life = self.live()
                if not self.opens_or_is_refused(life):
                    return "it is not opened although there is room now"
            if way != "live":
                self.die(life, is_cut=way == "cut")
                life = self.live()
                if not self.opens_or_is_refused(life):
                    self.was_refused_open = True
                    self.disk.free("filler")
                    self.disk.free("rest")
                    life = self.live()
            problem = self.free_and_see(life)
            self.die(life, is_cut=chance.random() < 0.5)
            return self.judge(problem)
        finally:
            life.kill()


def run(context: Context) -> Outcome:
    """Fills one disk after the other."""
    outcome = Outcome()
    refused = too_small = shut = disks = 0
    for number in range(context.count):
        chance = random.Random(f"{context.seed} {number}")
        room = ROOMS[number % len(ROOMS)] * MIB
        with Place(context.work / f"disk-{number}") as place:
            small = SmallDisk(context, place, number, room)
            try:
                problem = small.attack(chance)
            except AttackError as error:
                problem = str(error)
            if problem:
                outcome.problems.append(f"{small.kind}, {room // MIB} MiB: {problem}")
            refused += small.refused
            disks += small.refused > 0
            too_small += small.is_too_small
            shut += small.was_refused_open
            place.forget("disk.img")
        outcome.done += 1
        context.say(f"{room // MIB} MiB, {small.refused} calls refused")
    outcome.notes = [
        f"{refused:,} calls refused on {disks} disks",
        f"{too_small} too small to begin with",
        f"{shut} not opened while they were full",
    ]
    if not refused and context.count > 5 and not outcome.problems:
        outcome.problems.append("no call was refused: no disk was ever full")
    return outcome


def control(context: Context) -> str:
    """Writes that found no room claim to have happened: what they stored must be missed."""
    for number in range(6):
        with Place(context.work / f"disk-{number}") as place:
            hiding = fault_library(place) | {"FAULT_HIDE": "ENOSPC"}
            small = SmallDisk(context, place, number, 30 * MIB, hiding)
            life = small.live()
            try:
                if not life.wait_for("published", 60):
                    raise RuntimeError(f"the loader did nothing: {small.trial.failures()} {small.trial.errors()}")
                small.disk.fill(leave=0)
                time.sleep(2)
            finally:
                life.kill()
            small.disk.free("filler")
            verdict = small.trial.check()
            if not verdict.good:
                count = verdict.count("lost", "revived", "forgotten", "misplaced", "damaged")
                return f"{count} lost or damaged by writes without room"
    return ""


ATTACK = Attack(
    name="fulldisk",
    about="ext4 and XFS with 2 to 72 MiB of room fill up and are freed, 4 publishers and 4 workers",
    unit="disks",
    count=len(ROOMS),
    long=500,
    run=run,
    control=control,
    probe=lambda: missing("mkfs.xfs", "cc"),
)
