"""Wake the pollers of text files. A text does not know its pollers, so each change makes virtfs check all pollers."""

import select
from functools import partial
from math import inf

import trio

from virtfs.core.ids import User
from virtfs.files.text import Text, Turn
from virtfs.forward.slices import give_way
from virtfs.fuse.answers import Answers
from virtfs.fuse.inodes_handles import Handles
from virtfs.fuse.parked import ready


async def made_for_poller(text: Text, user: User, turn: Turn, handles: Handles, answers: Answers) -> None:
    """Regenerate an outdated text, and wake the pollers of changed texts. turn: waits for the user's turn."""
    give_way.set(partial(turn, user))
    await text.renewed(user)
    await texts_changed(handles, answers)


async def texts_changed(handles: Handles, answers: Answers) -> float:
    """Wake pollers of texts that have changed. Yield to other tasks between two texts.

    An outdated text is not regenerated until a pause has passed (Text.known). Return the number of seconds until the
    first such pause ends, when the caller should call this function again. Return inf if no pause is pending.
    """
    again = inf
    for handle in list(handles.texts.values()):
        if handle.kh is not None:
            await trio.lowlevel.checkpoint()
            await handle.node.renew(handle.user)
            if handle.kh is not None and ready(handle) & select.POLLPRI:
                answers.notify(handle.kh)
                handle.kh = None
            else:
                again = min(again, handle.node.outdated())
    return again
