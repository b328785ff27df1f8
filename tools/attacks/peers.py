"""The same attacks on Stalk and on what stands beside it; writes the table of docs/durability.md.

A message counts as acknowledged when the system's answer has reached the client. What is counted lives outside the file
system under attack. The peers publish one message a call from one client; Stalk's load is that of its own check, with
one publisher and four workers.
"""

import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from attacks.machine import AttackError, Disk, Place, missing
from attacks.peer_stalk import LEAVE, StalkSystem, full_text
from attacks.peer_systems import System, peers

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "durability.md"
BEGIN = "<!-- begin: tools/torture --peers -->"
END = "<!-- end: tools/torture --peers -->"

KILLS = 10
CUTS = 5
FLIPS = 300
FLIP_MESSAGES = 200
AFTER_DEATH = 200
# Locks, and what lives only with the process: nothing is stored there.
UNFLIPPED = {"lock", "lock.mdb", "queue.db-shm", "ballast"}


@dataclass
class Flips:
    """What single flipped bits did."""

    tried: int = 0
    wrong: int = 0
    lost: int = 0
    crashed: int = 0
    noticed: int = 0


@dataclass
class Row:
    """What was seen of one system."""

    title: str
    kill_acknowledged: int = 0
    kill_lost: int = 0
    cut_acknowledged: int = 0
    cut_lost: int = 0
    after_death: int = 0
    after_death_tried: int = 0
    flips: Flips | None = None
    full: str = ""


def numbers(lines: list[str]) -> set[int]:
    """The numbers that lines begin with."""
    return {int(line.split()[0]) for line in lines}


def attack_by_kill(system: System, row: Row, work: Path, seed: int) -> None:
    """kill -9 while messages are published, again and again on one store."""
    chance = random.Random(seed)
    with Place(work / "kill") as place:
        directory = place.directory("store")
        wanted: set[int] = set()
        for life in range(KILLS):
            opened = system.open(place, directory)
            load = opened.start_load() if is_stalk(system) else opened.start_load(first=1 + life * 1_000_000)
            begin = load.mark()
            load.wait_for("published", 1, 20)
            time.sleep(chance.uniform(0.1, 0.4))
            opened.die()
            wanted |= numbers(load.said("published", begin))
        row.kill_acknowledged += len(wanted)
        row.kill_lost += system.open(place, directory).contents().lost(wanted)


def attack_by_power_cut(system: System, row: Row, work: Path, seed: int) -> None:
    """A power cut of an ext4 while messages are published, and what is acknowledged afterwards."""
    chance = random.Random(seed)
    for cut in range(CUTS):
        with Place(work / f"cut-{cut}") as place:
            disk = Disk(place, "disk")
            disk.make()
            directory = disk.mount() / "store"
            directory.mkdir(mode=0o700)
            opened = system.open(place, directory)
            load = opened.start_load()
            load.wait_for("published", 1, 20)
            time.sleep(chance.uniform(0.3, 0.8))
            before = load.mark()
            disk.cut_power()
            dead = load.mark()
            load.wait_for("publishing", AFTER_DEATH, 3, begin=dead)
            opened.die()
            dead = first_failure(load.output.read_bytes(), before, dead)
            wanted = numbers(load.said("published", end=before))
            tried = numbers(load.said("publishing", begin=dead)[:AFTER_DEATH])
            row.after_death_tried += len(tried)
            row.after_death += len(numbers(load.said("published", begin=dead)) & tried)
            disk.unmount()
            disk.mount()
            row.cut_acknowledged += len(wanted)
            row.cut_lost += system.open(place, directory).contents().lost(wanted)
            place.forget("disk.img")


def first_failure(output: bytes, begin: int, end: int) -> int:
    """Where the first call failed between two marks, or the second of them: the disk was dead by then.

    The cut takes a moment, and who stops at the first failure may have ended when it is over.
    """
    places = [output.find(word, begin, end) for word in (b"\nfailed ", b"\nunpublished ")]
    return min((place + 1 for place in places if place >= 0), default=end)


def attack_by_flips(system: System, work: Path, seed: int) -> Flips:
    """One flipped bit at a time: half of them in a store that was killed, half in one that was closed."""
    chance = random.Random(seed)
    flips = Flips()
    with Place(work / "flips") as place:
        for is_closed in (False, True):
            origin = place.directory(f"origin-{is_closed}")
            wanted = prepare(system, place, origin, is_closed)
            intact = copy_store(system, origin, place.path / "intact")
            if not is_stalk(system):
                system.learn_usual(place, intact)
            for index in range(FLIPS // 2):
                copy = copy_store(system, origin, place.path / f"copy-{is_closed}-{index}")
                flip_bit(copy, chance)
                judge_flip(flips, system.open(place, copy).contents(), wanted)
                shutil.rmtree(copy)
            shutil.rmtree(intact)
    return flips


def prepare(system: System, place: Place, directory: Path, is_closed: bool) -> set[int]:
    """Publishes what bits are flipped in."""
    if is_stalk(system):
        return system.prepare(place, directory, FLIP_MESSAGES, is_closed)
    opened = system.open(place, directory)
    load = opened.start_load(count=FLIP_MESSAGES, hold=not is_closed)
    if not load.wait_for("published", FLIP_MESSAGES, 60):
        raise AttackError(f"{system.title}: {load.errors()}")
    if is_closed:
        load.wait(20)
        opened.close()
    else:
        opened.die()
    return set(range(1, FLIP_MESSAGES + 1))


def copy_store(system: System, origin: Path, copy: Path) -> Path:
    """A copy of a store, with holes where there are zeros."""
    shutil.copytree(origin, copy, copy_function=copy_sparse)
    if is_stalk(system):
        copy.chmod(0o700)
        system.copied(origin, copy)
    return copy


def copy_sparse(source: str, target: str) -> None:
    """Copies a file."""
    with open(source, "rb") as reading, open(target, "wb") as writing:
        while block := reading.read(1 << 16):
            if block.count(0) == len(block):
                writing.seek(len(block), 1)
            else:
                writing.write(block)
        writing.truncate()
    shutil.copymode(source, target)


def judge_flip(flips: Flips, outcome, wanted: set[int]) -> None:
    """Counts what one flip did; what is not counted was harmless."""
    flips.tried += 1
    if outcome.crashed:
        flips.crashed += 1
    elif outcome.noticed:
        flips.noticed += 1
    elif outcome.wrong:
        flips.wrong += 1
    elif outcome.lost(wanted):
        flips.lost += 1


def flip_bit(directory: Path, chance: random.Random) -> None:
    """Flips a bit of a block of 512 bytes that is not all zeros, anywhere in the store's files."""
    blocks = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.name not in UNFLIPPED):
        data = path.read_bytes()
        for offset in range(0, len(data), 512):
            if data[offset : offset + 512].strip(b"\0"):
                blocks.append((path, offset, len(data[offset : offset + 512])))
    path, offset, length = chance.choice(blocks)
    offset += chance.randrange(length)
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0] ^ (1 << chance.randrange(8))
        file.seek(offset)
        file.write(bytes([byte]))


def attack_by_full_disk(system: System, row: Row, work: Path, _: int) -> None:
    """The disk fills up while messages are published, and is freed again."""
    with Place(work / "full") as place:
        disk = Disk(place, "disk", size=96 << 20)
        disk.make("-m", "0")
        directory = disk.mount() / "store"
        directory.mkdir(mode=0o700)
        if is_stalk(system):
            row.full = system.fill_and_free(place, directory, disk)
            return
        opened = system.open(place, directory)
        load = opened.start_load(count=50)
        load.wait(30)
        wanted = numbers(load.said("published"))
        worker = opened.start_worker(20)
        filler = disk.fill(leave=LEAVE)
        load = opened.start_load(first=1_000)
        load.wait_for("failed", 20, 60)
        ended = opened.server is not None and opened.server.poll() is not None
        load.kill()
        wanted |= numbers(load.said("published"))
        refused = bool(load.said("failed"))
        worker.go()
        worker.wait(30)
        finished = numbers(worker.said("finished"))
        filler.unlink()
        load = opened.start_load(first=1_000_000, count=50)
        load.wait(60)
        again = numbers(load.said("published"))
        opened.die()
        outcome = system.open(place, directory).contents()
        lost = outcome.lost((wanted | again) - finished)
        revived = len(outcome.numbers & finished)
        row.full = full_text(ended, refused, len(finished) == 20, len(again) == 50, lost, revived)


def is_stalk(system: System) -> bool:
    """Stalk has a load and a check of its own."""
    return isinstance(system, StalkSystem)


def attack(system: System, flipped: dict[str, Flips], work: Path, seed: int) -> Row:
    """All attacks on one system."""
    row = Row(system.title)
    for one in (attack_by_kill, attack_by_power_cut, attack_by_full_disk):
        one(system, row, work, seed)
    if system.family not in flipped:
        flipped[system.family] = attack_by_flips(system, work, seed)
    row.flips = flipped[system.family]
    return row


HEADER = (
    "system",
    "`kill -9`: acknowledged, lost",
    "power cut: acknowledged, lost",
    "acknowledged after the disk died",
    "bit flipped: wrong, lost, crash, noticed",
    "disk full and freed",
)


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    flips = row.flips
    return (
        row.title,
        f"{row.kill_acknowledged:,}, **{row.kill_lost:,}**",
        f"{row.cut_acknowledged:,}, **{row.cut_lost:,}**",
        f"{row.after_death:,} of {row.after_death_tried:,}",
        f"**{flips.wrong}**, **{flips.lost}**, {flips.crashed}, {flips.noticed}",
        row.full,
    )


def table(rows: list[Row], versions: list[str]) -> str:
    """The table as it stands in docs/durability.md."""
    lines = [HEADER, ("---", "---:", "---:", "---:", "---:", "---"), *map(cells, rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"Made by `tools/torture --peers` with {', '.join(versions)}.\n\n{text}"


def write_table(text: str, page: Path = PAGE) -> None:
    """Puts the table between its markers."""
    content = page.read_text()
    before, found, rest = content.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise AttackError(f"{page} has no markers for the table")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def blindness(rows: list[Row]) -> list[str]:
    """Which attacks found nothing in anybody, although some are known to lose under them: those show nothing."""
    found = []
    if not any(row.cut_lost for row in rows):
        found.append("nobody lost anything to a power cut, not even who syncs now and then")
    if not any(row.after_death for row in rows):
        found.append("nobody acknowledged anything after the disk had died")
    if not any(row.flips.wrong for row in rows):
        found.append("nobody gave out wrong bytes after a bit was flipped")
    if not any(row.full.startswith("refused") for row in rows):
        found.append("nobody was refused on a full disk")
    return found


def lost_by_stalk(rows: list[Row]) -> int:
    """Messages that Stalk lost; the others do what they do."""
    return sum(row.kill_lost + row.cut_lost + row.after_death + row.flips.lost + row.flips.wrong for row in rows[:1])


def compare(stalk: Path, only: list[str], seed: int, parent: str | None) -> int:
    """Attacks all systems, or those whose titles have one of the words; all of them make the table anew."""
    systems = [StalkSystem(stalk, seed), *peers()]
    if only:
        systems = [one for one in systems if any(word.lower() in one.title.lower() for word in only)]
    for reason in filter(None, [missing(), *(one.missing() for one in systems)]):
        print(f"peers: SKIPPED: {reason}")
        return 1
    rows, versions, flipped = [], [], {}
    for system in systems:
        begin = time.monotonic()
        work = Path(tempfile.mkdtemp(prefix="torture-peers-", dir=parent))
        rows.append(attack(system, flipped, work, seed))
        shutil.rmtree(work, ignore_errors=True)
        if (version := system.version()) not in versions:
            versions.append(version)
        print(f"{' | '.join(cells(rows[-1]))} | {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    text = table(rows, versions)
    print(text)
    if only:
        return 0
    write_table(text)
    problems = [f"the attack is blind: {problem}" for problem in blindness(rows)]
    if lost := lost_by_stalk(rows):
        problems.append(f"Stalk lost {lost}")
    for problem in problems:
        print(f"peers: FOUND: {problem}")
    return 1 if problems else 0
