"""The attacks on the real binary, in the order in which they run."""

from attacks import care, clock, device, fulldisk, kill, limits, power, share, soak, suspend, syscalls

ALL = [
    kill.ATTACK,
    share.ATTACK,
    power.ATTACK,
    device.ATTACK,
    fulldisk.ATTACK,
    care.ATTACK,
    syscalls.ATTACK,
    limits.DESCRIPTORS,
    limits.SIZE,
    suspend.ATTACK,
    clock.ATTACK,
    soak.ATTACK,
]
