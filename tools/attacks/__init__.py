"""The attacks on the real binary, in the order in which they run."""

from attacks import kill

ALL = [kill.ATTACK]
