"""When the frames of a recording are due again."""

from errno import ERANGE
from typing import Final

from virtfs.core.errors import VirtError
from virtfs.core.quantities import INT64_MAX, format_factor

NANOSECOND: Final = 1_000_000_000
_YEAR: Final = 31_556_952 * NANOSECOND  # of the Gregorian calendar, on average


class Pace:
    """Keeps the recorded distances, times a factor. It is told the time, in ns of any clock that does not jump."""

    def __init__(self) -> None:
        self._base: tuple[int, int, float] | None = None  # a recorded time, when that was due, and at which factor

    def due(self, recorded: int | None, factor: float, now: int) -> int:
        """When a frame of that recorded time is due, in ns; `now` or before is at once.

        recorded: ns since 1970, None for a frame whose time is not known. factor: 2 is twice as fast as recorded, 0 as
        fast as it goes. The first frame is due at once, and so is the first after the factor has changed.
        VirtError ERANGE: the kernel's clocks do not reach that time. They count ns in 64 bits (ktime_t,
        include/linux/ktime.h), while pcapng has ticks of any length up to a second.
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
                ERANGE, f"at pace {format_factor(factor)} the frame is due in {years} years; clocks count 292"
            )
        return due
