"""The load on a peer, in a process of its own: publishes numbered bodies and says so, one line per event.

    peer_load.py CLIENT WHERE load [--from N] [--count N] [--hold]    publish until killed, or so many
    peer_load.py CLIENT WHERE finish [--count N]                      take and finish messages
    peer_load.py CLIENT WHERE contents                                list what is there

CLIENT is a class of peer_clients; WHERE is its port or its directory. Lines: `publishing N`, `published N`,
`failed WHY`, `connected`, `finishing`, `finished N`, `stored N` (a right body), `wrong BYTES` (another one). The load
ends after 300 failures; with --hold it stays open after the last message until it is killed. Finishing begins when a
line comes on stdin.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import peer_clients
from peer_clients import Refused, number_of

FAILURES_MAX = 300


def say(line: str) -> None:
    """One line, one write."""
    os.write(1, line.encode() + b"\n")


def load(make, first: int, count: int | None, hold: bool) -> None:
    """Publishes; connects again after a failure, as a client that must go on would."""
    failures, number, client = 0, first, None
    while failures < FAILURES_MAX and (count is None or number < first + count):
        say(f"publishing {number}")
        try:
            client = client or make()
            client.publish(number)
            say(f"published {number}")
        except (Refused, OSError) as error:
            failures += 1
            say(f"failed {error}")
            if not isinstance(error, Refused) or "closed" in str(error):
                client = None
        number += 1
    while hold:
        time.sleep(60)
    if client is not None and hasattr(client, "close"):
        client.close()


def finish(make, count: int | None) -> None:
    """Takes and finishes messages when it is told to; connected before, as a worker that waits is."""
    client, done = make(), 0
    say("connected")
    sys.stdin.readline()
    while count is None or done < count:
        say("finishing")
        try:
            number = client.finish()
        except Refused as error:
            say(f"failed {error}")
            return
        if number is None:
            return
        say(f"finished {number}")
        done += 1


def contents(make) -> None:
    """Lists what is there."""
    for stored in make().contents():
        number = number_of(stored)
        say(f"wrong {stored[:16]!r}" if number is None else f"stored {number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client")
    parser.add_argument("where")
    parser.add_argument("action", choices=["load", "finish", "contents"])
    parser.add_argument("--from", dest="first", type=int, default=1)
    parser.add_argument("--count", type=int)
    parser.add_argument("--hold", action="store_true")
    arguments = parser.parse_args()
    kind = getattr(peer_clients, arguments.client)
    where = int(arguments.where) if arguments.where.isdigit() else Path(arguments.where)

    def make():
        return kind(where)

    try:
        match arguments.action:
            case "load":
                load(make, arguments.first, arguments.count, arguments.hold)
            case "finish":
                finish(make, arguments.count)
            case "contents":
                contents(make)
    except (Refused, OSError) as error:
        say(f"failed {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
