"""Takes the process's own limits away while it runs: file descriptors, and the size that a file may have."""

import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from attacks.frame import Attack, Context, Outcome
from attacks.kill import life_seed
from attacks.machine import Place, fault_library, find_tool, run
from attacks.oracle import Life, Trial

# How long a limit is in force, and how long recovery may take.
HELD = 0.8
RECOVERY = 60
# Codes of the loader: all went well, a call failed, there is no room.
ENDINGS = (0, 1, 5)


def judge_end(trial: Trial, code: int | None) -> str:
    """What is wrong with a loader that ended by itself."""
    if code is None:
        return "it hangs"
    if code in ENDINGS:
        return "" if code == 0 or trial.failures() else f"it failed without a typed error: {trial.errors()}"
    name = signal.Signals(-code).name if code < 0 else f"exit {code}"
    return f"it died of {name}: {trial.errors()}"


def open_files(life: Life) -> int:
    """How many file descriptors a process has."""
    return len(os.listdir(f"/proc/{life.pid}/fd"))


def set_limit(life: Life, limit: int, value: int) -> None:
    """Changes the limit that is in force, and leaves the one it can be raised to."""
    resource.prlimit(life.pid, limit, (value, resource.prlimit(life.pid, limit)[1]))


# File descriptors


@dataclass
class Exhaustion:
    """What came of a life without file descriptors."""

    problem: str = ""
    failed: int = 0
    """How many calls failed."""
    was_ended: bool = False
    """Whether the Swift runtime gave up: libdispatch looks into /proc now and then, and traps when it can't."""


def trap_library(context: Context) -> dict:
    """The environment in which a process says where it trapped."""
    library = context.work / "trapsite.so"
    source = Path(__file__).with_name("trapsite.c")
    run("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl")
    return {"LD_PRELOAD": str(library)}


def exhaust(trial: Trial, seed: int, env: dict, *, gives_back: bool = True) -> Exhaustion:
    """One life that runs out of file descriptors and gets them back."""
    life = trial.start(seed, env=env)
    begin = trial.mark()

    def end(code: int) -> Exhaustion:
        if code in (-signal.SIGILL, -signal.SIGTRAP) and "/libdispatch" in trial.errors().rpartition("trapped in")[2]:
            return Exhaustion("", trial.said(begin, "failed"), True)
        return Exhaustion(judge_end(trial, code), trial.said(begin, "failed"))

    try:
        if not life.wait_for("published", 60):
            return Exhaustion(f"it did nothing: {trial.failures()} {trial.errors()}")
        time.sleep(0.1)
        soft = resource.prlimit(life.pid, resource.RLIMIT_NOFILE)[0]
        set_limit(life, resource.RLIMIT_NOFILE, max(3, open_files(life) - 4))
        begin = trial.mark()
        if (code := life.wait(HELD)) is not None:
            return end(code)
        failed = trial.said(begin, "failed")
        if gives_back:
            set_limit(life, resource.RLIMIT_NOFILE, soft)
        again = trial.mark()
        if trial.goes_on(life, again, RECOVERY if gives_back else 2):
            return Exhaustion("", failed)
        code = life.wait(0)
        return Exhaustion("it does not go on", failed) if code is None else end(code)
    except ProcessLookupError:
        return end(life.process.wait(20))
    finally:
        life.kill()


def run_descriptors(context: Context) -> Outcome:
    """Takes the descriptors of one store's owners away, life after life."""
    outcome = Outcome()
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    env = trap_library(context)
    failed = ended = 0
    for cycle in range(1, context.count + 1):
        came = exhaust(trial, life_seed(context, cycle), env)
        failed += came.failed
        ended += came.was_ended
        verdict = trial.check()
        outcome.done = cycle
        if came.problem or not verdict.good:
            outcome.problems.append(f"cycle {cycle}: {came.problem or verdict}")
            return outcome
    outcome.notes = [f"{failed} calls failed meanwhile", f"{ended} ended by the Swift runtime"]
    if failed + ended == 0:
        outcome.problems.append("no call failed: descriptors were never needed")
    return outcome


def control_descriptors(context: Context) -> str:
    """Descriptors that don't come back: a loader that goes on all the same would mean that nothing was taken away."""
    env = trap_library(context)
    for seed in range(1, 9):
        trial = Trial(context.stalk, context.work / f"store-{seed}", context.work / f"journal-{seed}")
        came = exhaust(trial, life_seed(context, seed), env, gives_back=False)
        if came.problem:
            return f"descriptors that stay away: {came.problem}"
    return ""


# File size


def start_piped(trial: Trial, seed: int, env: dict | None) -> tuple[Life, subprocess.Popen]:
    """Starts a loader whose journal goes through a pipe, since a limit on files would cut it short."""
    with open(trial.journal, "ab") as journal:
        keeper = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=journal)
    try:
        return trial.start(seed, output=keeper.stdin, env=env), keeper
    finally:
        keeper.stdin.close()


def shrink(trial: Trial, seed: int, limit: int, env: dict | None = None) -> str:
    """One life in which files may suddenly be no larger than a limit: what is wrong."""
    life, keeper = start_piped(trial, seed, env)
    try:
        if not life.wait_for("published", 60):
            return f"it did nothing: {trial.failures()} {trial.errors()}"
        set_limit(life, resource.RLIMIT_FSIZE, limit)
        begin = trial.mark()
        code = life.wait(HELD)
        if code is not None:
            return judge_end(trial, code)
        set_limit(life, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
        begin = trial.mark()
        if not trial.goes_on(life, begin, RECOVERY):
            return judge_end(trial, life.wait(1))
        return ""
    finally:
        life.kill()
        keeper.wait(20)


def run_size(context: Context) -> Outcome:
    """Lowers the largest size of a file under one store's owners, to limits that hit the log, the index or both."""
    outcome = Outcome()
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    failed = 0
    for cycle in range(1, context.count + 1):
        limit = [0, 64 << 10, 200 << 10, 1 << 20][cycle % 4]
        begin = trial.mark()
        problem = shrink(trial, life_seed(context, cycle), limit)
        failed += trial.said(begin, "failed")
        verdict = trial.check()
        outcome.done = cycle
        if problem or not verdict.good:
            outcome.problems.append(f"cycle {cycle}, files of {limit} bytes at most: {problem or verdict}")
            return outcome
    outcome.notes = [f"{failed} calls failed meanwhile"]
    if failed == 0:
        outcome.problems.append("no call failed: the limit was never met")
    return outcome


def control_size(context: Context) -> str:
    """A program that does not ignore the signal dies of the same limit; writes that hide it lose messages."""
    program = subprocess.Popen(
        ["dd", "if=/dev/zero", f"of={context.work / 'file'}", "bs=1k", "count=100"],
        stderr=subprocess.DEVNULL,
        preexec_fn=allow_small_files,
    )
    trial = Trial(context.stalk, context.work / "store", context.work / "journal")
    problem = judge_end(trial, program.wait(60))
    if "SIGXFSZ" not in problem:
        return ""
    with Place(context.work / "library") as place:
        env = fault_library(place) | {"FAULT_HIDE": "EFBIG"}
        for cycle in range(1, 6):
            shrink(trial, life_seed(context, cycle), 64 << 10, env)
            verdict = trial.check()
            if not verdict.good:
                count = verdict.count("lost", "revived", "forgotten", "misplaced", "damaged")
                died = "a program that does not ignore SIGXFSZ died"
                return f"{died}; {count} lost or damaged by writes that hid the limit"
    return ""


def allow_small_files() -> None:
    """Called in the child: Python ignores the signal, and its children would as well."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))


def probe() -> str | None:
    """Limits of another process can be changed on Linux alone."""
    return None if Path("/proc/self/fd").exists() and hasattr(resource, "prlimit") else "needs Linux"


DESCRIPTORS = Attack(
    name="fd",
    about="file descriptors run out under 4 publishers and 4 workers, and come back",
    unit="times",
    count=6,
    long=200,
    run=run_descriptors,
    control=control_descriptors,
    waits=True,
    probe=lambda: probe() or (None if find_tool("cc") else "needs cc, to build the library that names traps"),
)

SIZE = Attack(
    name="fsize",
    about="files may be no larger than a limit all at once (RLIMIT_FSIZE, SIGXFSZ)",
    unit="times",
    count=8,
    long=200,
    run=run_size,
    control=control_size,
    waits=True,
    probe=lambda: probe() or (None if find_tool("cc") else "needs cc, to build the library of the control"),
)
