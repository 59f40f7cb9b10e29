"""Frame lengths of mixed traffic. They are the same in each run, because the generator has a fixed seed."""

from collections.abc import Callable
from random import Random

SHORTEST, LONGEST = 60, 1514  # bytes of an Ethernet frame without its FCS


def imix(frames: int) -> list[int]:
    """Return lengths as on the Internet (IMIX): 7 of 64 bytes to 4 of 576 and 1 of 1514, in random order."""
    return Random(1).choices((64, 576, LONGEST), (7, 4, 1), k=frames)


def any_lengths(frames: int) -> list[int]:
    """Return random lengths, each equally likely."""
    return Random(1).choices(range(SHORTEST, LONGEST + 1), k=frames)


MIXTURES: dict[str, Callable[[int], list[int]]] = {"IMIX": imix, "random lengths": any_lengths}
