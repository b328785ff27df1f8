"""What the attacks need of the machine: a place of their own, loop devices, file systems, power cuts.

Everything destructive happens below a directory of the attack's own, on loop devices that were attached here. Leaving
`Place` stops the processes, unmounts and detaches, also after an exception or a signal.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

# _IOR('X', 125, __u32): the file system stops at once. 2 stands for "without writing the journal out".
SHUTDOWN_REQUEST = 0x8004587D
SHUTDOWN_WITHOUT_LOG_FLUSH = 2
LOOP_MAJOR = 7

# name: (mkfs command, mount options)
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], "nodiscard"),
    "xfs": (["mkfs.xfs", "-q", "-f"], "nodiscard"),
    "ext4 data=writeback": (["mkfs.ext4", "-q", "-F"], "nodiscard,data=writeback"),
}


class AttackError(Exception):
    """The attack itself could not be carried out."""


def run(*command: object, seconds: float = 60, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Runs a command under a timeout, its output kept as text."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", timeout=seconds, check=False, **options
    )
    if check and done.returncode != 0:
        raise AttackError(f"{' '.join(words)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


def missing(*tools: str) -> str | None:
    """Why attacks on disks can't run here, or nothing: no root, no loop device, or a tool that is not there."""
    if os.geteuid() != 0:
        return "needs root, to mount file systems"
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices (/dev/loop-control)"
    wanted = ("losetup", "mkfs.ext4", "mount", "umount", *tools)
    absent = [tool for tool in wanted if find_tool(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    if run("losetup", "-f", check=False).returncode != 0:
        return "needs a free loop device"
    return None


def find_tool(name: str) -> str | None:
    """The path of a program, looked for where programs of the system stand as well."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Place:
    """A directory, and everything that was begun in it: leaving it stops, unmounts and detaches. Use it with `with`."""

    def __init__(self, path: Path):
        self.path = path
        self.cleanup = contextlib.ExitStack()
        self.handlers: dict = {}

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.handlers[number] = signal.signal(number, lambda number, _: sys.exit(128 + number))
        return self

    def __exit__(self, *failure) -> None:
        try:
            self.cleanup.close()
        finally:
            for number, handler in self.handlers.items():
                signal.signal(number, handler)

    def directory(self, name: str) -> Path:
        """A new directory in this place."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def forget(self, name: str) -> None:
        """Removes a large file, which its loop device may still use, from the directory."""
        (self.path / name).unlink(missing_ok=True)

    def start(self, *command: object, **options) -> subprocess.Popen:
        """Starts a process that is killed when the place is left."""
        process = subprocess.Popen([str(word) for word in command], start_new_session=True, **options)
        self.cleanup.callback(kill, process)
        return process


def kill(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """Ends a process and all of its session's group with a signal, and waits for it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=20)


def mounts() -> list[tuple[str, str]]:
    """All mount points with their sources."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            found.append((fields.split()[4].encode().decode("unicode_escape"), rest.split()[1]))
    return found


def cut_power(mount_point: Path) -> None:
    """Ends a file system as a power cut would: nothing reaches its device any more, not even the journal.

    Refuses whatever is not a mount point whose device is a loop device.
    """
    point = str(mount_point.resolve())
    sources = [source for mounted, source in mounts() if mounted == point]
    if not sources:
        raise AttackError(f"no power cut: {point} is not a mount point")
    source = sources[-1]
    if not source.startswith("/dev/loop") or not is_loop_device(source):
        raise AttackError(f"no power cut: {point} is on {source}, which is not a loop device")
    descriptor = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, SHUTDOWN_REQUEST, struct.pack("I", SHUTDOWN_WITHOUT_LOG_FLUSH))
    finally:
        os.close(descriptor)


def is_loop_device(path: str) -> bool:
    """Whether the path is a block device of the loop driver."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and os.major(status.st_rdev) == LOOP_MAJOR


class Disk:
    """A file behind a loop device, with a file system on it."""

    def __init__(self, place: Place, name: str, kind: str = "ext4", size: int = 512 << 20, image: Path | None = None):
        self.kind = kind
        self.mount_point = place.directory(f"{name}.mount")
        self.image = image or place.path / f"{name}.img"
        if image is None:
            with open(self.image, "wb") as file:
                file.truncate(size)
        self.device = run("losetup", "-f", "--show", self.image).stdout.strip()
        place.cleanup.callback(self.detach)

    def make(self, *options: str) -> None:
        """Makes the file system."""
        run(*FILE_SYSTEMS[self.kind][0], *options, self.device)

    def mount(self, options: str = "") -> Path:
        """Mounts the file system, which replays its journal."""
        wanted = ",".join(filter(None, [FILE_SYSTEMS[self.kind][1], options]))
        run("mount", "-t", self.kind.split()[0], "-o", wanted, self.device, self.mount_point)
        return self.mount_point

    def cut_power(self) -> None:
        """Nothing reaches the device any more."""
        cut_power(self.mount_point)

    def unmount(self) -> None:
        """Unmounts; waits for processes that were just killed to let go."""
        for wait in [0.01, 0.05, 0.1, 0.3, 1, 3, 5]:
            if not self.is_mounted():
                return
            if run("umount", self.mount_point, check=False).returncode == 0:
                return
            time.sleep(wait)
        raise AttackError(f"can't unmount {self.mount_point}: {run('umount', self.mount_point, check=False).stderr}")

    def is_mounted(self) -> bool:
        """Whether it is mounted."""
        return any(point == str(self.mount_point.resolve()) for point, _ in mounts())

    def detach(self) -> None:
        """Unmounts and gives the loop device back."""
        try:
            self.unmount()
        except AttackError:
            # A lazy unmount lets the rest be cleaned up; the device goes with its last user.
            run("umount", "-l", self.mount_point, check=False)
            raise
        finally:
            run("losetup", "-d", self.device, check=False)

    def free(self, name: str) -> None:
        """Gives back the room that a file takes."""
        (self.mount_point / name).unlink(missing_ok=True)

    def fill(self, leave: int, name: str = "filler") -> Path:
        """Takes the room of the file system but for so many bytes; returns the file that takes it."""
        path = self.mount_point / name
        taken, piece = 0, 16 << 20
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return path
        try:
            # Piece by piece: others take room meanwhile, and the last of it is not to be had in one.
            while piece >= 4096:
                status = os.statvfs(self.mount_point)
                if status.f_bavail * status.f_frsize - leave < piece:
                    piece //= 2
                    continue
                try:
                    os.posix_fallocate(descriptor, taken, piece)
                    taken += piece
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece //= 2
        finally:
            os.close(descriptor)
        return path


def fake_sync(directory: Path, mode: str) -> dict:
    """The environment in which syncs are not what they should be: a mode of fakesync.c, built in a directory."""
    library = directory / "fakesync.so"
    source = Path(__file__).with_name("fakesync.c")
    run("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl")
    return {"LD_PRELOAD": str(library), "STALK_FAKE_SYNC": mode}


def fault_library(place: Place) -> dict:
    """The environment in which calls on files can be made to fail; faultcall.c says how."""
    library = place.path / "faultcall.so"
    run("cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, Path(__file__).with_name("faultcall.c"), "-ldl")
    return {"LD_PRELOAD": str(library)}
