"""The systems that stand beside Stalk: how each is started, loaded, killed and read back."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from attacks.load import Load
from attacks.machine import Place, find_tool, kill, run

HERE = Path(__file__).resolve().parent
# Modules of the distribution's packages belong to the distribution's Python.
SYSTEM_PYTHON = "/usr/bin/python3"
COMPLAINT = re.compile(r"warn|corrupt|bad |error|fatal|truncat|missing|crc|checksum|unexpected|damage", re.IGNORECASE)


class Outcome:
    """What a system holds when it is opened again."""

    def __init__(self, numbers: list[int], wrong: int, noticed: str, crashed: bool = False):
        self.numbers = set(numbers)
        self.wrong = wrong
        # What it said about damage, if anything.
        self.noticed = noticed
        self.crashed = crashed

    def lost(self, wanted: set[int]) -> int:
        """How many of these are not there."""
        return len(wanted - self.numbers)


class System:
    """One system with one setting."""

    title = ""
    client = ""
    python = sys.executable
    # Two systems of one family write the same files, so flipping bits in one of them is enough.
    family = ""

    def __init__(self):
        # What it complains of although nothing is wrong with its files, such as the machine's settings.
        self.usual: set[str] = set()

    def learn_usual(self, place: Place, directory: Path) -> None:
        """Opens an intact copy, and remembers what is said then."""
        opened = self.open(place, directory)
        opened.contents()
        self.usual |= {without_numbers(line) for line in opened.complaints()}

    def missing(self) -> str | None:
        """Why it can't be attacked here, or nothing."""

    def version(self) -> str:
        """Its version, as it says itself."""
        raise NotImplementedError

    def open(self, place: Place, directory: Path) -> "Opened":
        """Starts it on a directory."""
        return Opened(self, place, directory)

    def command(self, port: int, directory: Path) -> list | None:
        """How the server is started; a library has none."""


class Opened:
    """A system that was started on a directory."""

    def __init__(self, system: System, place: Place, directory: Path):
        self.system = system
        self.place = place
        self.where: object = directory
        self.server = None
        self.log = place.path / f"server-{time.monotonic_ns()}"
        self.load: Load | None = None
        port = free_port()
        if command := system.command(port, directory):
            self.where = port
            with open(self.log, "wb") as log:
                self.server = place.start(*command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.is_up = self._wait_until_up(port)
        else:
            self.is_up = True

    def _wait_until_up(self, port: int) -> bool:
        end = time.monotonic() + 20
        while time.monotonic() < end and self.server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return True
            except OSError:
                time.sleep(0.005)
        return False

    def _client(self, *words: object) -> list:
        return [self.system.python, HERE / "peer_load.py", self.system.client, self.where, *words]

    def start_load(self, first: int = 1, count: int | None = None, hold: bool = False) -> Load:
        """Publishes from a number on."""
        words = ["load", "--from", first, *(["--count", count] if count else []), *(["--hold"] if hold else [])]
        self.load = Load(self.place, self._client(*words))
        return self.load

    def start_worker(self, count: int) -> Load:
        """Connects; takes and finishes so many messages once it is told to go."""
        worker = Load(self.place, self._client("finish", "--count", count))
        worker.wait_for("connected", 1, 20)
        return worker

    def die(self) -> None:
        """SIGKILL: to the server, or to the process that uses the library."""
        if self.server:
            kill(self.server)
        if self.load:
            self.load.kill()

    def close(self) -> None:
        """Ends it in order."""
        if self.server:
            self.server.terminate()
            try:
                self.server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                kill(self.server)
        if self.load:
            self.load.kill()

    def said(self) -> str:
        """What the server wrote about itself."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def complaints(self) -> list[str]:
        """What the server complained of, but for what it always says."""
        lines = [line for line in self.said().splitlines() if COMPLAINT.search(line)]
        return [line for line in lines if without_numbers(line) not in self.system.usual]

    def contents(self) -> Outcome:
        """All that is there; then it is killed."""
        try:
            if not self.is_up:
                return Outcome([], 0, f"does not start: {self.said()[-200:]}", crashed=died_of_signal(self.server))
            done = run(*self._client("contents"), check=False)
            numbers = [int(number) for number in re.findall(r"^stored (\d+)$", done.stdout, re.MULTILINE)]
            wrong = len(re.findall(r"^wrong ", done.stdout, re.MULTILINE))
            noticed = "; ".join(self.complaints())
            if failed := re.findall(r"^failed (.*)$", done.stdout, re.MULTILINE):
                noticed += "; ".join(failed)
            if done.returncode > 0 and not noticed:
                noticed = done.stderr[-200:] or f"ended with {done.returncode}"
            return Outcome(numbers, wrong, noticed, crashed=done.returncode < 0 or died_of_signal(self.server))
        finally:
            self.die()


def without_numbers(line: str) -> str:
    """A line of a log without its times and process numbers."""
    return re.sub(r"\d+", "", line)


def died_of_signal(server: subprocess.Popen | None) -> bool:
    """Whether the server crashed."""
    return server is not None and (server.poll() or 0) < 0


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class BeanstalkdSystem(System):
    """beanstalkd with its binlog."""

    client = "Beanstalk"
    family = "beanstalkd"

    def __init__(self, title: str, *options: str):
        super().__init__()
        self.title = title
        self.options = options

    def missing(self) -> str | None:
        return None if find_tool("beanstalkd") else "needs beanstalkd"

    def version(self) -> str:
        return run("beanstalkd", "-v").stdout.strip()

    def command(self, port: int, directory: Path) -> list:
        return ["beanstalkd", "-l", "127.0.0.1", "-p", port, "-b", directory, *self.options]


class RedisSystem(System):
    """Redis with its append-only file, and no snapshots."""

    client = "Redis"
    family = "Redis"

    def __init__(self, title: str, policy: str):
        super().__init__()
        self.title = title
        self.policy = policy

    def missing(self) -> str | None:
        return None if find_tool("redis-server") else "needs redis-server"

    def version(self) -> str:
        found = re.search(r"v=([\d.]+)", run("redis-server", "--version").stdout)
        return f"Redis {found[1]}" if found else "Redis"

    def command(self, port: int, directory: Path) -> list:
        options = ["--bind", "127.0.0.1", "--port", port, "--dir", directory, "--save", "", "--daemonize", "no"]
        return ["redis-server", *options, "--appendonly", "yes", "--appendfsync", self.policy, "--logfile", ""]


class SQLiteSystem(System):
    """SQLite in WAL mode, synchronous=FULL."""

    title = "SQLite, WAL, `synchronous=FULL`"
    client = "SQLite"
    family = "SQLite"

    def version(self) -> str:
        import sqlite3

        return f"SQLite {sqlite3.sqlite_version}"


class LMDBSystem(System):
    """LMDB alone, default sync mode."""

    title = "LMDB, default mode"
    client = "LMDB"
    family = "LMDB"
    python = SYSTEM_PYTHON

    def missing(self) -> str | None:
        if not os.path.exists(SYSTEM_PYTHON) or run(SYSTEM_PYTHON, "-c", "import lmdb", check=False).returncode != 0:
            return "needs python3-lmdb"
        return None

    def version(self) -> str:
        code = "import lmdb; print('LMDB', '.'.join(map(str, lmdb.version())))"
        return run(SYSTEM_PYTHON, "-c", code).stdout.strip()


def peers() -> list[System]:
    """Everyone but Stalk."""
    return [
        BeanstalkdSystem("beanstalkd `-f 0`", "-f", "0"),
        BeanstalkdSystem("beanstalkd, default"),
        RedisSystem("Redis `appendfsync always`", "always"),
        RedisSystem("Redis `appendfsync everysec`", "everysec"),
        SQLiteSystem(),
        LMDBSystem(),
    ]
