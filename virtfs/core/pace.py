"""The times at which frames of a recording are sent again."""

from errno import ERANGE
from typing import Final

from virtfs.core.errors import VirtError
from virtfs.core.quantities import INT64_MAX, format_factor

NANOSECOND: Final = 1_000_000_000
_YEAR: Final = 31_556_952 * NANOSECOND  # of the Gregorian calendar, on average


class Pace:
    """Scales the intervals of a recording by a factor."""

    def __init__(self) -> None:
        self._base: tuple[int, int, float] | None = None  # a recorded time, when it was due, the factor

    def due(self, recorded: int | None, factor: float, now: int) -> int:
        """Return when a frame is due, in ns of the clock of `now`; `now` or earlier means at once.

        recorded: ns since 1970, None if unknown. factor: 2 is twice as fast as recorded, 0 as fast as possible. now: ns
        of any monotonic clock. The first frame is due at once, and so is the first after a change of factor.
        VirtError ERANGE: the time is beyond the kernel's clocks, which count ns in 64 bits (ktime_t,
        include/linux/ktime.h). pcapng timestamps can be that far apart, because a tick can be as long as a second.
        """
        if recorded is None or not factor:
            self._base = None
            return now
        if self._base is None or self._base[2] != factor:
            self._base = recorded, now, factor
        begun, due, _ = self._base
        due += int((recorded - begun) / factor)
        if due > INT64_MAX:
            years = (due - now) // _YEAR
            raise VirtError(
                ERANGE, f"at pace {format_factor(factor)} the frame is due in {years} years; the limit is 292"
            )
        return due
