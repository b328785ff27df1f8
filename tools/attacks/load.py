"""Runs the load on a peer, and keeps what it says outside the file system under attack.

A load writes one line per event. A *mark* is a place in its output: what stands before it was said before the mark was
taken, and what stands behind it was said later.
"""

import subprocess
import time
from pathlib import Path

from attacks.machine import Place, kill


class Load:
    """A process that says what it does, line by line, in a file."""

    def __init__(self, place: Place, command: list):
        self.output = place.path / f"load-{time.monotonic_ns()}"
        with open(self.output, "wb") as output, open(self.errors_path, "wb") as errors:
            self.process = place.start(*command, stdin=subprocess.PIPE, stdout=output, stderr=errors)

    @property
    def errors_path(self) -> Path:
        return self.output.with_suffix(".errors")

    def mark(self) -> int:
        """The place in the output up to which something was said by now."""
        return self.output.stat().st_size

    def said(self, word: str, begin: int = 0, end: int | None = None) -> list[str]:
        """What follows `word` in the lines between two marks that begin with it."""
        data = self.output.read_bytes()[begin:end]
        lines = data.decode("utf-8", "replace").split("\n")[:-1]
        return [line[len(word) + 1 :] for line in lines if line == word or line.startswith(f"{word} ")]

    def wait_for(self, word: str, count: int, seconds: float, begin: int = 0) -> bool:
        """Waits until so many lines begin with `word`; says whether they came."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if len(self.said(word, begin)) >= count:
                return True
            time.sleep(0.02)
        return len(self.said(word, begin)) >= count

    def go(self) -> None:
        """Tells a process that waits for a line to begin."""
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Ends the process with SIGKILL."""
        kill(self.process)

    def wait(self, seconds: float) -> int:
        """Waits for the process to end by itself."""
        return self.process.wait(timeout=seconds)

    def errors(self) -> str:
        """What the process wrote to stderr."""
        return self.errors_path.read_text(errors="replace")
