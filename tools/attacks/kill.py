"""kill -9, again and again: four publishers and four workers die at random moments, and one store lives on."""

import shutil
import time
from pathlib import Path

from attacks.frame import Attack, Context, Outcome
from attacks.oracle import Trial


def life_seed(context: Context, cycle: int) -> int:
    """A seed that no other life of this run has."""
    return ((context.seed & 0xFFF) << 20) | cycle


def run(context: Context) -> Outcome:
    """Lets a store live and die as often as asked for."""
    outcome = Outcome()
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    published = undecided = held = 0
    for cycle in range(1, context.count + 1):
        life = trial.start(life_seed(context, cycle), "--durability", context.random.choice(["synced", "mixed"]))
        if context.random.random() < 0.8:
            life.wait_for("opened")
            time.sleep(context.random.uniform(0, 0.2))
        else:
            # Opening is killed too.
            time.sleep(context.random.uniform(0, 0.06))
        if life.process.poll() is not None:
            outcome.problems.append(f"cycle {cycle}: the loader ended by itself: {trial.failures()} {trial.errors()}")
            return outcome
        life.kill()
        verdict = trial.check(close=context.random.random() < 0.1)
        outcome.done = cycle
        if not verdict.good:
            outcome.problems.append(f"cycle {cycle}: {verdict}")
            return outcome
        published += verdict.figures["published"] - verdict.figures["settled"]
        undecided += verdict.figures["undecidedPresent"] + verdict.figures["undecidedAbsent"]
        held += verdict.figures["held"]
        if cycle % 100 == 0:
            context.say(f"{cycle} cycles")
    outcome.notes = [f"{published:,} published", f"{undecided:,} calls cut off", f"{held:,} held at the kill"]
    return outcome


def newest_segment(store: Path) -> Path:
    """The segment of the log that was written to last."""
    return max(store.glob("log/*.log"), key=lambda path: path.stat().st_mtime_ns)


def control(context: Context) -> str:
    """Plants losses of three kinds; each must be found."""
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    found = []

    def live(seed: int) -> None:
        life = trial.start(life_seed(context, seed))
        if not life.wait_for("finished"):
            raise RuntimeError(f"the loader did nothing: {trial.failures()} {trial.errors()}")
        time.sleep(0.2)
        life.kill()

    # A log that is an older copy of itself.
    live(1)
    trial.check()
    old = trial.copy(context.work / "old", context.work / "old-journal")
    live(2)
    stale = trial.copy(context.work / "stale", context.work / "stale-journal")
    shutil.rmtree(stale.store)
    shutil.copytree(old.store, stale.store)
    verdict = stale.check(settle=False)
    if not verdict.count("lost", "revived", "forgotten"):
        return ""
    found.append(f"an older copy: {verdict.count('lost')} lost, {verdict.count('revived')} revived")

    # A log that is not replayed: its frames are wiped, as if recovery passed them over.
    wiped = trial.copy(context.work / "wiped", context.work / "wiped-journal")
    for segment in wiped.store.glob("log/*.log"):
        segment.write_bytes(bytes(segment.stat().st_size))
    verdict = wiped.check(settle=False)
    if not verdict.count("lost", "damaged"):
        return ""
    found.append(f"no replay: {verdict.count('lost')} lost")

    # One acknowledged message that is gone, and one finished one that is back: the journal says otherwise.
    verdict = trial.check(settle=False)
    if not verdict.good:
        raise RuntimeError(f"the store itself is not good: {verdict}")
    with open(trial.journal, "a", encoding="utf-8") as journal:
        journal.write("\nlife 4294967295 many\npublishing 18446744069414584321 torture-0\n")
        journal.write("published 18446744069414584321 ZZZZZZZZZZZZZ\n")
    verdict = trial.check(settle=False)
    if verdict.count("lost") != 1:
        return ""
    found.append("one message: 1 lost")
    return "; ".join(found)


ATTACK = Attack(
    name="kill",
    about="kill -9 at random moments, 4 publishers and 4 workers on one store",
    unit="kills",
    count=200,
    long=10_000,
    run=run,
    control=control,
)
