"""The last error of each user. The file last_error shows it to that user."""

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from virtfs.core.errors import VirtError
from virtfs.core.ids import Uid, User
from virtfs.core.quoting import one_line
from virtfs.core.warning_text import is_warning, join_warnings
from virtfs.daemon.changes import Changes

log = logging.getLogger(__name__)

LOGGED = 1000  # maximum number of characters of an error in the log
REMEMBERED = 1024  # maximum number of users whose last error is kept


class _Error(NamedTuple):
    """An error. at: when it was set, in ns since 1970."""

    sentence: str
    at: int


_NONE = _Error("ok", 0)


class ErrorsByUser:
    """The last error of each user. If more than REMEMBERED users have an error, the oldest error is dropped."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._errors: OrderedDict[Uid, _Error] = OrderedDict()

    def remember(self, refusal: VirtError, user: User) -> VirtError:
        """Set the user's last error. Return `refusal`, so that the caller can raise it.

        A program may repeat a refused write many times a second, so the same error again is no change that wakes
        pollers. Only its time tells it from the error before.
        """
        self._set(refusal.strerror, user)
        return refusal

    def warn(self, sentences: Sequence[str], user: User) -> None:
        """Set the user's last error to warnings about a line that has taken effect. If there are none, do nothing."""
        if sentences:
            self._set(one_line(join_warnings(sentences)), user)

    def remember_beside(self, refusal: VirtError, user: User, since: int) -> None:
        """Set the user's last error, and keep the warnings that were set since a time, in ns since 1970."""
        before = self._errors.get(user.uid, _NONE)
        kept = before.at >= since and is_warning(before.sentence)
        self._set(f"{refusal.strerror}; {before.sentence}" if kept else refusal.strerror, user)

    def _set(self, sentence: str, user: User) -> None:
        log.debug("last_error of user %d: %s", user.uid, sentence[:LOGGED])
        before = self._errors.get(user.uid, _NONE)
        self._errors[user.uid] = _Error(sentence, time.time_ns())
        self._errors.move_to_end(user.uid)
        if len(self._errors) > REMEMBERED:
            self._errors.popitem(last=False)
        if sentence != before.sentence:
            self._changes.publish()

    def report(self, refusal: VirtError, user: User) -> None:
        """Set the user's last error. Use this for an error that the caller does not raise itself."""
        self.remember(refusal, user)

    def last_error(self, user: User) -> str:
        """Return the user's last error, or "ok"."""
        return self._errors.get(user.uid, _NONE).sentence

    def error_time(self, user: User) -> int:
        """Return when the user's last error was set, in ns since 1970, or 0 if there is none."""
        return self._errors.get(user.uid, _NONE).at
