"""Programs in a real terminal: tmux, driven in its control mode (tmux(1), CONTROL MODE).

In this mode tmux reads commands from a pipe, answers between %begin and %end, and reports each output of the program in
the terminal. So a test can wait for the next output.
"""

import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.places import Place, finished
from harness.serving import ENVIRONMENT
from harness.waiting import PATIENCE, Stuck

_LOOK = 0.5  # seconds to wait for a report from tmux before looking anyway


class Screen:
    """A terminal in which a shell script runs. environment: that of tmux and the script."""

    def __init__(self, place: Place, directory: Path, script: str, environment: dict[str, str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        words = ["tmux", "-u", "-S", str(directory / "tmux"), "-f", "/dev/null", "-C"]
        size = ["-x", "80", "-y", "24"]
        self._tmux = place.start(*words, "new-session", *size, script, env=environment, **pipes)
        assert self._tmux.stdin is not None
        assert self._tmux.stdout is not None
        self._data = b""
        self._in, self._out = self._tmux.stdin, self._tmux.stdout
        self.resize(80, 24)

    def ask(self, command: str) -> list[str]:
        """Give tmux a command and return its answer."""
        self._in.write(f"{command}\n")
        self._in.flush()
        answer: list[str] | None = None
        while True:
            line = self._line()
            if answer is None:
                # The flag 1 marks answers to commands from the pipe.
                answer = [] if re.match(r"%begin \d+ \d+ 1", line) else None
            elif re.match(r"%(end|error) \d+ \d+ 1", line):
                assert line.startswith("%end"), f"{command}: {answer}"
                return answer
            else:
                answer.append(line)

    def _line(self) -> str:
        """Return the next line from tmux."""
        while b"\n" not in self._data:
            more = os.read(self._out.fileno(), 1 << 16)
            assert more, "tmux has ended"
            self._data += more
        line, _, self._data = self._data.partition(b"\n")
        return line.decode()

    def _wait(self, seconds: float) -> None:
        """Wait until tmux reports something, most likely output of the program."""
        select.select([self._out], [], [], seconds)
        while b"\n" in self._data or select.select([self._out], [], [], 0)[0]:
            self._line()

    def resize(self, width: int, height: int) -> None:
        """Change the size of the terminal."""
        self.ask(f"refresh-client -C {width}x{height}")

    def press(self, *keys: str) -> None:
        """Press keys: characters, or names such as Enter, Down and C-c."""
        self.ask(f"send-keys {' '.join(keys)}")

    def type(self, line: str) -> None:
        """Type a line of text and Enter."""
        self.ask(f"send-keys -l '{line}'")
        self.press("Enter")

    def text(self, colours: bool = False) -> str:
        """Return what the terminal shows. colours: include the escape sequences of colours and attributes."""
        return "\n".join(self.ask(f"capture-pane -p{'e' if colours else ''}")).rstrip()

    def until(self, pattern: str) -> str:
        """Wait until the terminal shows a text that matches, and return what the terminal shows."""
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, text := self.text(), re.MULTILINE):
            if time.monotonic() > end:
                raise Stuck(f"not within {PATIENCE:g} s: a terminal that shows {pattern!r}, but:\n{text}")
            self._wait(_LOOK)
        return text

    def close(self) -> None:
        """End tmux and the programs in the terminal."""
        self._in.write("kill-server\n")
        self._in.close()
        self._tmux.stdin = None
        finished(self._tmux)


Screens = Callable[..., Screen]  # the type of the fixture `screens`


@pytest.fixture
def screens(tmp_path: Path) -> Iterator[Screens]:
    """A function that starts a shell script in a terminal: screens(place, script, **environment)."""
    made: list[Screen] = []

    def make(place: Place, script: str, **environment: str) -> Screen:
        directory = tmp_path / f"terminal{len(made)}"
        directory.mkdir()
        made.append(Screen(place, directory, script, ENVIRONMENT | {"LC_ALL": "C.UTF-8"} | environment))
        return made[-1]

    yield make
    for screen in made:
        screen.close()
