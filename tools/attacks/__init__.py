"""The attacks on the real binary, in the order in which they run."""

from attacks import kill, power, syscalls

ALL = [kill.ATTACK, power.ATTACK, syscalls.ATTACK]
