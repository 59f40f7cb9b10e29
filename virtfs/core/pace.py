"""The times at which the frames of a recording are sent."""

from errno import ERANGE
from typing import Final

from virtfs.core.errors import VirtError
from virtfs.core.quantities import INT64_MAX, format_factor

NANOSECOND: Final = 1_000_000_000
_YEAR: Final = 31_556_952 * NANOSECOND  # an average year of the Gregorian calendar


class Pace:
    """Scales the intervals of a recording by a factor."""

    def __init__(self) -> None:
        # The recorded time and the due time of the first frame that was sent at the current factor, and this factor.
        # None if there is no such frame yet.
        self._base: tuple[int, int, float] | None = None

    def due(self, recorded: int | None, factor: float, now: int) -> int:
        """Return the time at which a frame is due, on the clock of `now`.

        The frame is due at once if this time is not after `now`. The first frame is always due at once, and so is the
        first frame after a change of factor.
        recorded: nanoseconds since 1970, None if unknown. factor: 2 means twice as fast as recorded, 0 means as fast as
        possible. now: nanoseconds of any monotonic clock.
        VirtError ERANGE: the kernel's clocks cannot represent the due time. They count nanoseconds in 64 bits (ktime_t,
        include/linux/ktime.h). Two timestamps in pcapng can be that far apart, because a clock tick can be
        as long as a second.
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
            sentence = f"at pace {format_factor(factor)} the frame is due in {years} years; the limit is 292"
            raise VirtError(ERANGE, f"{sentence}: set a higher pace")
        return due
