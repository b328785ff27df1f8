"""Prints the line coverage of each target from llvm-cov's summary, and fails where it is below what a target must have.

usage: coverage.py SUMMARY.json LEAST TARGET [...]
"""

import collections
import json
import sys


def main() -> int:
    summary, least, targets = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    lines = collections.Counter()
    covered = collections.Counter()
    with open(summary, encoding="utf-8") as file:
        for entry in json.load(file)["data"][0]["files"]:
            _, found, path = entry["filename"].partition("/Sources/")
            if not found or "/.build" in entry["filename"]:
                continue
            target = path.split("/")[0]
            lines[target] += entry["summary"]["lines"]["count"]
            covered[target] += entry["summary"]["lines"]["covered"]
    failed = []
    for target in sorted(lines):
        percent = 100 * covered[target] / lines[target]
        wanted = target in targets
        print(f"{target:14} {percent:6.2f}% of {lines[target]:5} lines{f', at least {least}%' if wanted else ''}")
        if wanted and percent < least:
            failed.append(target)
    missing = [target for target in targets if target not in lines]
    for target in failed + missing:
        print(f"coverage: {target} is covered too little", file=sys.stderr)
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
