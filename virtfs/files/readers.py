"""Makes texts about the whole mount for their readers.

A text shows all that happened before it was requested, so it must not be made before. The requests of one user that
wait together get one text, and the next one is made only after a pause. So making texts for a user takes at most a
third of the server's time, however many programs ask. Users do not share texts: otherwise one of them would wait for a
task that works at another user's turn.
"""

from collections.abc import Awaitable, Callable
from time import monotonic

import trio

from virtfs.core.ids import Uid, User
from virtfs.forward.slices import metered

CHEAP = 0.001  # seconds of processor time. After a text that took less, there is no pause.
PAUSE = 2  # the pause after a text, as a multiple of the processor time that it took
LONG = 0.005  # seconds of processor time. A text that took more is not made twice for one open and its first read.


class _Line:
    """The requests of one user, in the order of arrival. A text answers all requests up to the number `answered`.

    work: processor time that the last text took, in seconds. began, ended: when it was made (monotonic()).
    """

    __slots__ = ("answered", "asked", "began", "ended", "lock", "text", "waiting", "work")

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.asked = self.answered = self.waiting = 0
        self.text = b""
        self.work = self.began = self.ended = 0.0

    @property
    def rest(self) -> float:
        """The seconds until the pause is over."""
        return self.ended + PAUSE * self.work - monotonic() if self.work > CHEAP else 0.0


class Readers:
    """The readers of one text."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[Uid, _Line] = {}

    async def text(self, user: User, make: Callable[[User], Awaitable[bytes]]) -> bytes:
        """Return a text whose making has begun after this call.

        make: makes the text. An argument, since a reference to its object would be a cycle. Errors: those of `make`.
        """
        if (line := self._lines.get(user.uid)) is None:
            self._forget()
            line = self._lines[user.uid] = _Line()
        line.asked += 1
        line.waiting += 1
        asked = line.asked
        try:
            async with line.lock:
                if line.answered < asked:
                    await trio.sleep(max(line.rest, 0.0))
                    answered, line.began = line.asked, monotonic()
                    line.text, line.work = await metered(make(user))
                    line.answered, line.ended = answered, monotonic()
                return line.text
        finally:
            line.waiting -= 1
            if not line.waiting:
                line.text = b""  # a text may have several MB

    def lasts(self, user: User) -> float:
        """Return until when the text that a user has just got may be used again, for the same open (monotonic()).

        That is for as long as making it took.
        """
        line = self._lines.get(user.uid)
        return 2 * line.ended - line.began if line is not None and line.work > LONG else 0.0

    def _forget(self) -> None:
        self._lines = {uid: line for uid, line in self._lines.items() if line.waiting or line.rest > 0}
