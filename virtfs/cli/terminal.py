"""The terminal of `virtfs top`: curses, keys, and signals. It is restored however the program ends.

Signal handlers do not call curses: they only set a flag or raise Ended. The main loop calls curses. So no signal
interrupts curses in the middle of a call.
"""

import curses
import errno
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Final

from virtfs.cli.signals import unless_ignored
from virtfs.cli.top_view import Line
from virtfs.core.errors import VirtError

_KEYS: Final = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_PPAGE: "pageup",
    curses.KEY_NPAGE: "pagedown",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "escape",
    10: "enter",
    13: "enter",
    27: "escape",
    127: "escape",
}
_ESCAPE_DELAY = 25  # milliseconds after which ESC counts as a key and not as the start of an escape sequence
_GONE = 3  # a terminal that polls as readable this many times in a row but yields no input has been closed
_STYLES: Final = {"title": curses.A_BOLD, "heads": curses.A_UNDERLINE, "selected": curses.A_REVERSE}


class Ended(Exception):
    """A signal that ends the program has arrived. number: the signal."""

    def __init__(self, number: int) -> None:
        self.number = number


def shows_unicode(environment: Mapping[str, str]) -> bool:
    """Return whether the locale that the environment selects (locale(7)) uses UTF-8."""
    name = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    return "utf8" in name.lower().replace("-", "")


class Terminal:
    """The terminal as a screen of lines. The context manager takes over the terminal, and restores it at the end.

    Within the context, SIGTERM and SIGHUP raise Ended, and SIGTSTP restores the terminal before the process stops.
    """

    def __init__(self) -> None:
        """Check the terminal. VirtError ENOTTY: there is no terminal, or top does not support its type."""
        name = os.environ.get("TERM", "")
        if not (os.isatty(0) and os.isatty(1)):
            raise VirtError(errno.ENOTTY, "top needs a terminal: to print its list once, use virtfs ls")
        try:
            curses.setupterm(name or "unknown", 1)
        except curses.error:
            raise VirtError(errno.ENOTTY, f'unknown terminal type "{name}": set TERM') from None
        if not curses.tigetstr("cup"):
            raise VirtError(errno.ENOTTY, f'the terminal type "{name}" cannot move the cursor, as top requires')
        self.unicode = shows_unicode(os.environ)
        self._alarm = curses.A_BOLD
        self._stopping = self._changed = False
        self._nothing = 0
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> "Terminal":
        with ExitStack() as ending:
            ending.callback(os.close, self._woken)
            ending.callback(os.close, self._wake)
            # curses installs handlers for SIGWINCH and SIGTSTP unless these signals already have one.
            handlers = {signal.SIGTERM: _end, signal.SIGHUP: _end, signal.SIGTSTP: self._stop}
            handlers |= {signal.SIGWINCH: self._change, signal.SIGCONT: self._change}
            for number in unless_ignored(*handlers):
                ending.callback(signal.signal, number, signal.signal(number, handlers[number]))
            ending.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False))
            sys.stdout.flush()
            curses.set_escdelay(_ESCAPE_DELAY)
            ending.callback(_restore)
            self._screen = curses.initscr()
            self._begin()
            self._ending = ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def _begin(self) -> None:
        curses.noecho()
        curses.cbreak()
        self._screen.keypad(True)
        self._screen.nodelay(True)
        with suppress(curses.error):  # some terminals cannot hide the cursor
            curses.curs_set(0)
        if not os.environ.get("NO_COLOR"):  # https://no-color.org
            with suppress(curses.error):
                curses.start_color()
                curses.use_default_colors()
                if curses.has_colors():
                    curses.init_pair(1, curses.COLOR_RED, -1)
                    self._alarm = curses.A_BOLD | curses.color_pair(1)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _change(self, number: int, frame: FrameType | None) -> None:
        self._changed = True

    def size(self) -> tuple[int, int]:
        """Return the height and the width in cells."""
        return self._screen.getmaxyx()

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the lines on the screen. curses sends only the differences."""
        self._screen.erase()
        for y, line in enumerate(lines):
            text = line.text if self.unicode else line.text.replace("…", "~").encode("ascii", "replace").decode()
            with suppress(curses.error):  # addstr() fails after the last cell of the screen
                self._screen.addstr(y, 0, text, self._alarm if line.style == "alarm" else _STYLES.get(line.style, 0))
        self._screen.refresh()

    def wait(self, others: Sequence[int], seconds: float) -> list[int]:
        """Wait up to `seconds` for a key, a signal, or data on one of `others`.

        others: descriptors. Return those that are readable.
        """
        ready = select.select([0, self._woken, *others], [], [], max(0.0, seconds))[0]
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._stopping:
            self._pause()
        if self._changed:
            self._changed = False
            size = os.get_terminal_size(1)
            curses.resizeterm(max(1, size.lines), max(1, size.columns))
            self._screen.clear()  # redraws everything: after fg the terminal shows the output of the shell
        self._typed = 0 in ready
        return [fd for fd in ready if fd not in (0, self._woken)]

    def pressed(self) -> list[str]:
        """Return the keys that have been pressed: those of _KEYS by name, others as characters.

        Ended: the terminal has been closed.
        """
        found = []
        while (key := self._screen.getch()) != curses.ERR:
            found.append(_KEYS.get(key) or (chr(key) if 32 < key < 127 else ""))
        self._nothing = 0 if found or not self._typed else self._nothing + 1
        if self._nothing >= _GONE:
            raise Ended(signal.SIGHUP)
        return found

    def _pause(self) -> None:
        """Restore the terminal and stop the process, as SIGTSTP does. Return after SIGCONT."""
        self._stopping = False
        curses.endwin()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, before)
        self._changed = True


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(number)


def _restore() -> None:
    with suppress(curses.error):  # initscr() has failed, or the terminal has been closed
        curses.endwin()
