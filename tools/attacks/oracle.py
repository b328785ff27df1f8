"""A store, the processes that live on it, and the journal that says what it must hold."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

CHECK_TIMEOUT = 180
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Called in a child before it becomes another program: it is killed when the thread that started it ends.

    A loader also watches its parent by itself, for what is run by strace and the like.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass
class Verdict:
    """What `stalk torture-check` said."""

    good: bool
    figures: dict = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def count(self, *kinds: str) -> int:
        """How many problems there are of these kinds."""
        return sum(self.figures.get(kind, 0) for kind in kinds)

    def __str__(self) -> str:
        return "good" if self.good else "; ".join(self.problems[:3])


class Life:
    """A loader that runs; what it reports goes to the end of the journal."""

    def __init__(self, process: subprocess.Popen, journal: Path) -> None:
        self.process = process
        self.journal = journal

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """Kills the loader, and all of its group, and waits until they are gone."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(30)

    def wait(self, timeout: float) -> int | None:
        """Waits for the end; None when the loader still runs."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def wait_for(self, word: str, timeout: float = 30) -> bool:
        """Waits until the journal has a line that begins with a word in this life."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            text = self.journal.read_text(errors="replace")
            life = text[text.rfind("\nlife ") :]
            if f"\n{word}" in life:
                return True
            if self.process.poll() is not None:
                return f"\n{word}" in self.journal.read_text(errors="replace")
            time.sleep(0.01)
        return False


class Trial:
    """One store and its journal, over as many lives as there are.

    The journal must not be on the file system that is attacked.
    """

    def __init__(self, stalk: Path, store: Path, journal: Path) -> None:
        self.stalk = stalk
        self.store = store
        self.journal = journal
        self.lives = 0

    def copy(self, store: Path, journal: Path) -> "Trial":
        """The same store somewhere else, as it is on the disk now."""
        shutil.copytree(self.store, store)
        if self.journal.exists():
            shutil.copy(self.journal, journal)
        return Trial(self.stalk, store, journal)

    def start(
        self,
        seed: int,
        *arguments: str,
        wrapper: list[str] | None = None,
        env: dict | None = None,
        output: object = None,
    ) -> Life:
        """Starts a loader; every life of a store needs a seed of its own.

        `wrapper` is a command that runs it, such as strace. `output` takes what it reports instead of the journal.
        """
        self.lives += 1
        command = [*(wrapper or []), str(self.stalk), "torture-load", "--store", str(self.store)]
        command += ["--seed", str(seed & 0xFFFFFFFF), *arguments]
        with open(self.journal, "ab") as journal, open(f"{self.journal}.err", "ab") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output or journal,
                stderr=errors,
                env={**os.environ, "SWIFT_BACKTRACE": "enable=no", **(env or {})},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return Life(process, self.journal)

    def check(self, *, settle: bool = True, close: bool = False, wrapper: list[str] | None = None) -> Verdict:
        """Compares the store with the journal, which is shortened when all is well."""
        settled = Path(f"{self.journal}.settled")
        command = [*(wrapper or []), str(self.stalk), "torture-check", "--json", "--store", str(self.store)]
        command += ["--journal", str(self.journal), "--settled", str(settled)]
        command += ["--close"] if close else []
        try:
            result = subprocess.run(
                command,
                capture_output=True,
                timeout=CHECK_TIMEOUT,
                preexec_fn=die_with_parent,
                env={**os.environ, "SWIFT_BACKTRACE": "enable=no"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Verdict(False, {}, [f"torture-check did not end in {CHECK_TIMEOUT} s"])
        try:
            figures = json.loads(result.stdout)
        except ValueError:
            text = (result.stdout + result.stderr).decode(errors="replace").strip()
            return Verdict(False, {}, [f"torture-check ended with {result.returncode}: {text}"])
        verdict = Verdict(figures["good"] and result.returncode == 0, figures, figures["problems"])
        if verdict.good and settle:
            os.replace(settled, self.journal)
        return verdict

    def mark(self) -> int:
        """The place in the journal up to which something was reported by now."""
        return self.journal.stat().st_size if self.journal.exists() else 0

    def said(self, begin: int, word: str) -> int:
        """How many whole lines behind a mark begin with a word."""
        with open(self.journal, "rb") as journal:
            journal.seek(begin)
            text = b"\n" + journal.read()
        return text.count(f"\n{word} ".encode())

    def goes_on(self, life: Life, begin: int, seconds: float) -> bool:
        """Waits until messages are published and finished behind a mark; whether it is so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.said(begin, "published") and self.said(begin, "finished"):
                return True
            if life.process.poll() is not None:
                return False
            time.sleep(0.02)
        return False

    def failures(self) -> list[str]:
        """What the last loader said of calls that failed, and what it wrote to its standard error."""
        lines = self.journal.read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("failed ")]

    def errors(self) -> str:
        """The last words of the loaders."""
        path = Path(f"{self.journal}.err")
        return path.read_text(errors="replace")[-500:].strip() if path.exists() else ""
