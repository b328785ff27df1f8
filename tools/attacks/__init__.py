"""The attacks on the real binary, in the order in which they run."""

from attacks import clock, device, fulldisk, kill, limits, power, soak, suspend, syscalls

ALL = [
    kill.ATTACK,
    power.ATTACK,
    device.ATTACK,
    fulldisk.ATTACK,
    syscalls.ATTACK,
    limits.DESCRIPTORS,
    limits.SIZE,
    suspend.ATTACK,
    clock.ATTACK,
    soak.ATTACK,
]
