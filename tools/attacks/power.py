"""Power cuts of a real file system under a store that works: what was acknowledged must be there afterwards.

The cut is the file system's own shutdown request, without writing out the journal: what was not synced is gone. The
image of the disk is a file behind a loop device.
"""

import random
import time

from attacks.frame import Attack, Context, Outcome
from attacks.machine import FILE_SYSTEMS, Disk, Place, fake_sync, missing
from attacks.oracle import Trial, Verdict

# So many cuts one image sees; its store lives on from one to the next.
CUTS_OF_AN_IMAGE = 10
# A segment is used again only in a life whose segments have its size. Small ones were written to their end before, so
# that writing them again changes nothing that the file system's journal must write out, the names among it.
SMALL_SEGMENTS = ("--segment-bytes", str(1 << 18))


class Machine:
    """A machine whose power is cut again and again: a disk and the store on it."""

    def __init__(self, context: Context, place: Place, kind: str, number: int, options: str = ""):
        self.context = context
        self.number = number
        self.options = options
        self.disk = Disk(place, "disk", kind)
        self.disk.make()
        self.disk.mount(options)
        self.trial = Trial(context.stalk, self.disk.mount_point / "store", place.path / "journal")

    def seed(self) -> int:
        """A seed that no other life of this run has."""
        return ((self.context.seed & 0xFF) << 24) | (self.number << 12) | self.trial.lives

    def live_and_cut(self, chance: random.Random, *arguments: str, env: dict | None = None) -> Verdict:
        """One life of the store that ends with a power cut; one in five ends while the store is still being opened."""
        life = self.trial.start(self.seed(), *arguments, env=env)
        try:
            if chance.random() < 0.2:
                time.sleep(chance.uniform(0.005, 0.15))
            else:
                life.wait_for("opened")
                time.sleep(chance.uniform(0.05, 0.6))
            self.disk.cut_power()
            # What is acknowledged after the cut stands in the journal too.
            time.sleep(chance.uniform(0, 0.1))
        finally:
            life.kill()
        return self.boot()

    def boot(self, **options: bool) -> Verdict:
        """The power is back."""
        self.disk.unmount()
        self.disk.mount(self.options)
        return self.trial.check(**options)


def run(context: Context) -> Outcome:
    """So many cuts, over the kinds of file systems in turn."""
    outcome = Outcome()
    image = published = undecided = 0
    cuts = dict.fromkeys(FILE_SYSTEMS, 0)
    while outcome.done < context.count:
        kind = list(FILE_SYSTEMS)[image % len(FILE_SYSTEMS)]
        image += 1
        chance = random.Random(f"{context.seed} {image}")
        with Place(context.work / f"image-{image}") as place:
            machine = Machine(context, place, kind, image)
            for cut in range(1, min(CUTS_OF_AN_IMAGE, context.count - outcome.done) + 1):
                verdict = machine.live_and_cut(chance, "--durability", "synced")
                outcome.done += 1
                cuts[kind] += 1
                if not verdict.good:
                    outcome.problems.append(f"{kind}, image {image}, cut {cut}: {verdict}")
                    break
                published += verdict.figures["published"] - verdict.figures["settled"]
                undecided += verdict.figures["undecidedPresent"] + verdict.figures["undecidedAbsent"]
            place.forget("disk.img")
    outcome.notes = [f"{count} {kind}" for kind, count in cuts.items() if count]
    outcome.notes += [f"{published:,} published", f"{undecided:,} calls cut off"]
    return outcome


def control(context: Context) -> str:
    """Syncs that do nothing, of everything and of directories alone: both must lose messages."""
    found = []
    for mode, live in [("all", lose_everything), ("directories", lose_names)]:
        with Place(context.work / mode) as place:
            lost = live(context, place, fake_sync(place.path, mode))
        if not lost:
            return ""
        found.append(f"no sync of {'anything' if mode == 'all' else mode}: {lost} lost")
    return "; ".join(found)


def lose_everything(context: Context, place: Place, env: dict) -> int:
    """A disk that lies about every sync."""
    machine = Machine(context, place, "ext4", 900)
    for _ in range(10):
        verdict = machine.live_and_cut(context.random, env=env)
        if not verdict.good:
            return verdict.count("lost", "damaged")
    return 0


def lose_names(context: Context, place: Place, env: dict) -> int:
    """Without the sync of `log/` a segment that was used again under a new name has its old one after the cut.

    The journal of the file system would write the name out in a while anyway, so the cut comes soon.
    """
    machine = Machine(context, place, "ext4", 901, "commit=300")
    for _ in range(10):
        life = machine.trial.start(machine.seed(), "--messages", "100", *SMALL_SEGMENTS)
        if life.wait(60) is None:
            life.kill()
            raise RuntimeError(f"the loader did not end: {machine.trial.errors()}")
        if not machine.trial.check(close=True).good:
            raise RuntimeError("the store is not good before the attack")
        life = machine.trial.start(machine.seed(), *SMALL_SEGMENTS, env=env)
        life.wait_for("published")
        machine.disk.cut_power()
        life.kill()
        verdict = machine.boot()
        if not verdict.good:
            return verdict.count("lost", "damaged")
    return 0


ATTACK = Attack(
    name="power",
    about="power cuts of ext4, XFS and ext4 data=writeback under 4 publishers and 4 workers",
    unit="cuts",
    count=30,
    long=1_000,
    run=run,
    control=control,
    probe=lambda: missing("mkfs.xfs", "cc"),
)
