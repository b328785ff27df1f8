"""Stalk in the same attacks, through its own load and check."""

import random
from pathlib import Path

from attacks.load import Load
from attacks.machine import Disk, Place, run
from attacks.oracle import Life, Trial, Verdict
from attacks.peer_systems import Outcome, System


class StalkLoad:
    """A life of the loader, with the words of `Load`."""

    def __init__(self, life: Life):
        self.life = life
        self.process = life.process
        self.begin = self.mark()

    mark = Load.mark
    said = Load.said
    wait_for = Load.wait_for

    @property
    def output(self) -> Path:
        return self.life.journal


class StalkOutcome(Outcome):
    """What the check says. Its journal knows which messages were finished, so it counts what is lost by itself."""

    def __init__(self, verdict: Verdict, noticed: str):
        crashed = any("torture-check ended with -" in problem for problem in verdict.problems)
        # What no list of checked kinds explains means that the store was refused.
        if not verdict.figures or verdict.count("damaged"):
            noticed = noticed or str(verdict)
        wrong = verdict.count("wrong", "invented", "doubled", "misplaced", "revived", "forgotten", "halfDone")
        super().__init__([], wrong, noticed, crashed)
        self.verdict = verdict

    def lost(self, wanted: set[int]) -> int:
        return self.verdict.count("lost")


class StalkOpened:
    """A store that is used by a loader, which holds its messages and takes most of them again."""

    server = None

    def __init__(self, system: "StalkSystem", place: Place, directory: Path):
        self.system = system
        self.place = place
        self.trial = system.trial(place, directory)
        self.load: StalkLoad | None = None

    def start_load(self, publishers: int = 1, workers: int = 4) -> StalkLoad:
        """Publishes with so many tasks, takes and finishes with so many others."""
        tasks = ["--publishers", str(publishers), "--workers", str(workers)]
        life = self.trial.start(self.system.next_seed(), *tasks, "--durability", "synced")
        self.load = StalkLoad(life)
        self.place.cleanup.callback(life.kill)
        return self.load

    def die(self) -> None:
        """SIGKILL."""
        if self.load:
            self.load.life.kill()

    def contents(self) -> StalkOutcome:
        """Compares with the journal, after `stalk verify` has had its look."""
        verified = run(self.trial.stalk, "verify", "--store", self.trial.store, check=False)
        noticed = "" if verified.returncode == 0 else (verified.stdout + verified.stderr).strip()
        verdict = self.trial.check(settle=False)
        return StalkOutcome(verdict, noticed)


class StalkSystem(System):
    """Stalk with its defaults for durability."""

    title = "**Stalk**"
    family = "Stalk"

    def __init__(self, stalk: Path, seed: int):
        super().__init__()
        self.stalk = stalk
        self.trials: dict[Path, Trial] = {}
        self.seeds = random.Random(seed)

    def next_seed(self) -> int:
        """A seed for a life."""
        return self.seeds.randrange(1, 1 << 32)

    def version(self) -> str:
        return f"Stalk {run(self.stalk, '--version').stdout.strip()}"

    def trial(self, place: Place, directory: Path) -> Trial:
        """The store in a directory with its journal."""
        if directory not in self.trials:
            self.trials[directory] = Trial(self.stalk, directory, place.path / f"journal-{len(self.trials)}")
        return self.trials[directory]

    def open(self, place: Place, directory: Path) -> StalkOpened:
        return StalkOpened(self, place, directory)

    def prepare(self, place: Place, directory: Path, messages: int, is_closed: bool) -> set[int]:
        """A store with so many messages, of which none is finished."""
        opened = self.open(place, directory)
        load = opened.start_load(workers=0)
        load.wait_for("published", messages, 60)
        opened.die()
        if is_closed and not (verdict := opened.trial.check(close=True)).good:
            raise RuntimeError(f"the store is not good before the attack: {verdict}")
        return set()

    def copied(self, origin: Path, copy: Path) -> None:
        """A copy has the same journal."""
        self.trials[copy] = Trial(self.stalk, copy, self.trials[origin].journal)

    def fill_and_free(self, place: Place, directory: Path, disk: Disk) -> str:
        """What happens on a full disk; one loader goes on through all of it.

        Each loader has other sizes of segments and of its backlog, and some are content with the room that the store
        had reserved. So loaders follow until one is refused.
        """
        for _ in range(LOADERS):
            opened = self.open(place, directory)
            load = opened.start_load(publishers=4, workers=4)
            load.wait_for("published", 50, 30)
            full = load.mark()
            filler = disk.fill(leave=LEAVE)
            if load.wait_for("unpublished", 20, 5, begin=full):
                break
            filler.unlink()
            opened.die()
        refused = any(line.endswith("storageFull") for line in load.said("unpublished", begin=full))
        goes_on = load.wait_for("finished", 20, 10, begin=load.mark())
        filler.unlink(missing_ok=True)
        works = load.wait_for("published", 50, 30, begin=load.mark())
        opened.die()
        outcome = self.open(place, directory).contents()
        return full_text(False, refused, goes_on, works, outcome.lost(set()), outcome.verdict.count("revived"))


# What is left of the full disk.
LEAVE = 64 << 10
LOADERS = 20


def full_text(ended: bool, refused: bool, goes_on: bool, works: bool, lost: int, revived: int) -> str:
    """A cell of the table."""
    words = ["the server ends" if ended else "refused" if refused else "not refused"]
    words.append("finishing goes on" if goes_on else "finishing fails")
    words.append("works again when freed" if works else "needs a restart")
    words.append(f"{lost} lost" + (f", {revived} come back" if revived else ""))
    return "; ".join(words)
