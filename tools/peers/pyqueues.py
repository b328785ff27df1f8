"""Drives the queues of PyPI that live in the process, as their own documentation uses them.

    pyqueues.py litequeue|persist-queue DIRECTORY BODIES publish|life SECONDS

Prints one line of JSON. They have no calls for several messages, so each call is one message.
"""

import json
import struct
import sys
import time


def read_bodies(path: str) -> list[bytes]:
    """Reads bodies, each behind its length in 32 bits."""
    with open(path, "rb") as file:
        data = file.read()
    bodies, offset = [], 0
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        bodies.append(data[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return bodies


def litequeue(directory: str):
    """Returns publish, finish and the synchronous setting of litequeue."""
    from litequeue import LiteQueue

    queue = LiteQueue(f"{directory}/queue.db")

    def finish() -> None:
        queue.done(queue.pop().message_id)

    return queue.put, finish, queue.conn.execute("PRAGMA synchronous").fetchone()[0]


def persist_queue(directory: str):
    """Returns publish, finish and the synchronous setting of persist-queue."""
    from persistqueue import SQLiteAckQueue

    queue = SQLiteAckQueue(directory, auto_commit=True)

    def finish() -> None:
        queue.ack(queue.get())

    return queue.put, finish, queue._conn.execute("PRAGMA synchronous").fetchone()[0]


def main() -> None:
    """Publishes, or publishes, takes and finishes, until the time is over."""
    kind, directory, path, work, seconds = sys.argv[1:]
    bodies = read_bodies(path)
    publish, finish, synchronous = litequeue(directory) if kind == "litequeue" else persist_queue(directory)
    times: list[float] = []
    start = last = time.perf_counter()
    while last < start + float(seconds):
        body = bodies[len(times) % len(bodies)]
        publish(body.decode("latin-1") if kind == "litequeue" else body)
        if work == "life":
            finish()
        now = time.perf_counter()
        times.append(now - last)
        last = now
    count = len(times)
    times.sort()
    micros = {name: times[int(share * (count - 1))] * 1e6 for name, share in (("p50", 0.5), ("p99", 0.99))}
    print(
        json.dumps(
            {
                "messages": count,
                "messagesPerSecond": round(count / (last - start)),
                "p50Micros": round(micros["p50"], 1),
                "p99Micros": round(micros["p99"], 1),
                "clientCPU": round(time.process_time() / (last - start), 2),
                "synchronous": synchronous,
            }
        )
    )


if __name__ == "__main__":
    main()
