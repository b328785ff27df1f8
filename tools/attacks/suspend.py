"""Stops the process for longer than its leases last, and lets the machine sleep for a day between two owners.

A stopped process is what a suspended virtual machine, a debugger or a paused container is. The machine's sleep comes
from a time namespace: its clock since boot is ahead, as it is after a suspend.
"""

import os
import shutil
import signal
import subprocess
import time

from attacks.frame import Attack, Context, Outcome
from attacks.kill import life_seed
from attacks.oracle import Trial

LEASE = 1
DAY = 86_400


def asleep(seconds: int) -> list[str]:
    """The command that runs a program after the machine has slept for so long."""
    return ["unshare", "--time", "--fork", "--kill-child", "--boottime", str(seconds)] if seconds else []


def stop(trial: Trial, seed: int, seconds: float) -> tuple[str, int, int]:
    """One life that stands still: what is wrong, how many receipts were stale, and how many deliveries followed."""
    life = trial.start(seed, "--lease", f"{LEASE}s")
    try:
        if not life.wait_for("taken", 60):
            return f"it did nothing: {trial.failures()} {trial.errors()}", 0, 0
        time.sleep(0.2)
        os.kill(life.pid, signal.SIGSTOP)
        time.sleep(seconds)
        begin = trial.mark()
        os.kill(life.pid, signal.SIGCONT)
        if not trial.goes_on(life, begin, 60):
            return f"it does not go on: {trial.failures()} {trial.errors()}", 0, 0
        time.sleep(0.4)
        with open(trial.journal, "rb") as journal:
            journal.seek(begin)
            stale = journal.read().count(b" staleReceipt")
        return "", stale, trial.said(begin, "taken")
    finally:
        life.kill()


def stalk(context: Context, store: object, slept: int, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a command on a store after the machine has slept."""
    command = [*asleep(slept), str(context.stalk), *arguments, "--store", str(store)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, input=b"later")


def comes(context: Context, store: object, slept: int, *, is_due: bool) -> bool:
    """Whether a message is delivered after the machine has slept for so long; what is due may take a while."""
    result = stalk(context, store, slept, "get", "q", "--wait", "20s" if is_due else "1s")
    if result.returncode != 0:
        raise RuntimeError(f"get failed: {result.stderr.decode(errors='replace')}")
    return result.stdout.strip() == b"later"


def publish_later(context: Context, name: str, delay: str) -> object:
    """A store with one message that is delayed."""
    store = context.work / name
    result = stalk(context, store, 0, "put", "q", "--delay", delay)
    if result.returncode != 0:
        raise RuntimeError(f"put failed: {result.stderr.decode(errors='replace')}")
    return store


def sleep_for_a_day(context: Context) -> list[str]:
    """A delay of 20 hours while the machine sleeps, and a loaded store that wakes a day later each time."""
    problems = []
    store = publish_later(context, "delayed", "20h")
    for slept, expected in [(0, False), (3600, False), (19 * 3600, False), (21 * 3600, True), (DAY, True)]:
        if comes(context, store, slept, is_due=expected) != expected:
            problems.append(f"delayed by 20 h, it is {'late' if expected else 'early'} after {slept} s of sleep")
    trial = Trial(context.stalk, context.work / "sleeper", context.work / "sleeper-journal")
    for day in range(4):
        life = trial.start(life_seed(context, 5000 + day), wrapper=asleep(day * DAY))
        if not life.wait_for("finished", 60):
            problems.append(f"it did nothing on day {day}: {trial.failures()} {trial.errors()}")
        time.sleep(0.3)
        life.kill()
        verdict = trial.check(wrapper=asleep(day * DAY))
        if not verdict.good:
            problems.append(f"day {day}: {verdict}")
            break
    return problems


def namespace_missing() -> str | None:
    """Why the machine's sleep can't be played here, or nothing."""
    if not shutil.which("unshare"):
        return "needs unshare"
    command = [*asleep(DAY), "cat", "/proc/uptime"]
    result = subprocess.run(command, capture_output=True, timeout=30, check=False)
    if result.returncode != 0:
        return f"needs time namespaces, as root: {result.stderr.decode(errors='replace').strip()}"
    return None


def run(context: Context) -> Outcome:
    """Stops one store's owners again and again, and lets another one's machine sleep."""
    outcome = Outcome()
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    stale = after = 0
    for cycle in range(1, context.count + 1):
        # Sometimes shorter than a lease, which then must hold.
        seconds = LEASE * (0.4 if cycle % 4 == 0 else 1.5)
        problem, refused, taken = stop(trial, life_seed(context, cycle), seconds)
        stale += refused
        after += taken
        verdict = trial.check()
        outcome.done = cycle
        if problem or not verdict.good:
            outcome.problems.append(f"cycle {cycle}: {problem or verdict}")
            return outcome
    outcome.notes = [f"{stale} receipts refused as stale", f"{after:,} deliveries afterwards"]
    reason = namespace_missing()
    if reason:
        outcome.skips.append(f"the machine's sleep: {reason}")
    else:
        outcome.problems += sleep_for_a_day(context)
        outcome.notes.append("4 days asleep")
    return outcome


def control(context: Context) -> str:
    """A message that comes before its time, in the journal and, where that can be played, by a clock that jumps."""
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    life = trial.start(life_seed(context, 1), "--messages", "50")
    if life.wait(120) != 0:
        raise RuntimeError(f"the loader failed: {trial.failures()} {trial.errors()}")
    taken = next(line for line in trial.journal.read_text().splitlines() if line.startswith("taken "))
    _, name, _, number, _ = taken.split(" ")
    with open(trial.journal, "a", encoding="utf-8") as journal:
        journal.write(f"early {name} {number} delivered 5 s before a lease ends\n")
    if trial.check(settle=False).count("early") != 1:
        return ""
    found = "1 early delivery in a journal"
    if namespace_missing():
        return found
    # For this clock a day has passed and for the tool an hour: it must say that the message came too early.
    store = publish_later(context, "delayed", "20h")
    return f"{found}; a message that came 19 hours early" if comes(context, store, DAY, is_due=True) else ""


ATTACK = Attack(
    name="suspend",
    about="the process stands still for longer than its leases; the machine sleeps for a day",
    unit="stops",
    count=8,
    long=400,
    run=run,
    control=control,
    waits=True,
)
