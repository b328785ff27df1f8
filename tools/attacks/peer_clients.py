"""Small clients of the peers: publish a numbered body, finish a message, say what is stored.

A body tells its number and can be recognised as right or wrong byte by byte. Every `publish` returns once the peer has
acknowledged it, by the rules of that peer. A publish is one call and one message, as a simple producer does it.
"""

import contextlib
import hashlib
import socket
import sqlite3
import time
from pathlib import Path

BODY_SIZES = (100, 1500)


class Refused(Exception):
    """The peer answered that it can't."""


def body(number: int) -> bytes:
    """The body with this number: the number, then bytes that follow from it."""
    smallest, largest = BODY_SIZES
    length = smallest + number * 7919 % (largest - smallest)
    return b"%012d " % number + hashlib.shake_128(b"%d" % number).digest(length)


def number_of(stored: bytes) -> int | None:
    """The number of a body, or nothing when a byte of it is wrong."""
    with contextlib.suppress(ValueError):
        number = int(stored[:12])
        if stored == body(number):
            return number
    return None


class Beanstalk:
    """Speaks to beanstalkd; one tube, `default`."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.replies = self.socket.makefile("rb")

    def _reply(self) -> list[bytes]:
        words = self.replies.readline().split()
        if not words:
            raise Refused("connection closed")
        return words

    def publish(self, number: int) -> None:
        data = body(number)
        self.socket.sendall(b"put 0 0 600 %d\r\n%s\r\n" % (len(data), data))
        words = self._reply()
        if words[0] != b"INSERTED":
            raise Refused(words[0].decode())

    def finish(self) -> int | None:
        """Takes the next message and deletes it; returns its number, or nothing when none is left."""
        reserved = self._reserve()
        if reserved is None:
            return None
        job, data = reserved
        self.socket.sendall(b"delete %s\r\n" % job)
        words = self._reply()
        if words[0] != b"DELETED":
            raise Refused(words[0].decode())
        return number_of(data)

    def _reserve(self) -> tuple[bytes, bytes] | None:
        self.socket.sendall(b"reserve-with-timeout 0\r\n")
        words = self._reply()
        if words[0] == b"TIMED_OUT":
            return None
        if words[0] != b"RESERVED":
            raise Refused(words[0].decode())
        data = self.replies.read(int(words[2]) + 2)
        return words[1], data[:-2]

    def contents(self) -> list[bytes]:
        """All bodies; reserving keeps them from coming twice."""
        found = []
        while (reserved := self._reserve()) is not None:
            found.append(reserved[1])
        return found


class Redis:
    """Speaks to Redis; one list, `q`."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.replies = self.socket.makefile("rb")

    def call(self, *words: bytes):
        """One command and its reply; waits while Redis reads its file."""
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        for _ in range(1000):
            self.socket.sendall(b"".join(parts))
            try:
                return self._reply()
            except Refused as error:
                if not str(error).startswith("LOADING"):
                    raise
            time.sleep(0.02)
        raise Refused("still loading")

    def _reply(self):
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise Refused("connection closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Refused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return rest

    def publish(self, number: int) -> None:
        self.call(b"RPUSH", b"q", body(number))

    def finish(self) -> int | None:
        """Takes the next message off the list; returns its number, or nothing when none is left."""
        data = self.call(b"LPOP", b"q")
        return None if data is None else number_of(data)

    def contents(self) -> list[bytes]:
        """All bodies of the list."""
        return self.call(b"LRANGE", b"q", b"0", b"-1")


class SQLite:
    """A table of messages in WAL mode; each publish is a transaction of its own."""

    def __init__(self, directory: Path):
        self.connection = sqlite3.connect(directory / "queue.db", isolation_level=None, timeout=10)
        if self.connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
            raise Refused("no WAL mode")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS messages(id INTEGER PRIMARY KEY, body BLOB NOT NULL)")

    def publish(self, number: int) -> None:
        try:
            self.connection.execute("INSERT INTO messages(body) VALUES(?)", (body(number),))
        except sqlite3.Error as error:
            raise Refused(str(error)) from error

    def finish(self) -> int | None:
        """Takes the oldest message out; returns its number, or nothing when none is left."""
        try:
            row = self.connection.execute(
                "DELETE FROM messages WHERE id = (SELECT min(id) FROM messages) RETURNING body"
            ).fetchall()
        except sqlite3.Error as error:
            raise Refused(str(error)) from error
        return number_of(row[0][0]) if row else None

    def contents(self) -> list[bytes]:
        """All bodies, after SQLite's own check of its file."""
        try:
            found = self.connection.execute("PRAGMA integrity_check").fetchone()
            if found != ("ok",):
                raise Refused(f"integrity_check: {found}")
            return [bytes(row[0]) for row in self.connection.execute("SELECT body FROM messages")]
        except sqlite3.Error as error:
            raise Refused(str(error)) from error

    def close(self) -> None:
        """Closes; the WAL moves into the file."""
        self.connection.close()


class LMDB:
    """Bare LMDB in its default mode; each publish is a transaction of its own."""

    def __init__(self, directory: Path, map_size: int = 256 << 20):
        import lmdb  # apt: python3-lmdb, for the system's Python

        self.library = lmdb
        try:
            self.environment = lmdb.open(str(directory), map_size=map_size, create=True)
            with self.environment.begin() as transaction, transaction.cursor() as cursor:
                self.next = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 1
        except lmdb.Error as error:
            raise Refused(str(error)) from error

    def publish(self, number: int) -> None:
        try:
            with self.environment.begin(write=True) as transaction:
                transaction.put(self.next.to_bytes(8, "big"), body(number))
        except self.library.Error as error:
            raise Refused(str(error)) from error
        self.next += 1

    def finish(self) -> int | None:
        """Takes the oldest message out; returns its number, or nothing when none is left."""
        try:
            with self.environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                if not cursor.first():
                    return None
                data = bytes(cursor.value())
                cursor.delete()
        except self.library.Error as error:
            raise Refused(str(error)) from error
        return number_of(data)

    def contents(self) -> list[bytes]:
        """All bodies."""
        try:
            with self.environment.begin() as transaction, transaction.cursor() as cursor:
                return [bytes(value) for _, value in cursor]
        except self.library.Error as error:
            raise Refused(str(error)) from error

    def close(self) -> None:
        """Closes."""
        self.environment.close()
