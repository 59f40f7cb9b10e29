"""A program that runs a piece of Python repeatedly, each time in a fork, so that modules are imported only once."""

import subprocess
import sys

from harness import children
from harness.places import Place
from harness.serving import ENVIRONMENT

_LOOP = """
import os, sys, traceback
for line in sys.stdin:
    if (child := os.fork()) == 0:
        try:
            once(*line.split())
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forking:
    """A forking program, running in a place.

    code: Python source that defines once(), which takes words and prints lines.
    """

    def __init__(self, place: Place, code: str) -> None:
        self._program: subprocess.Popen[str] = children.start(
            place.command(sys.executable, "-c", code + _LOOP),
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def begin(self, *words: object) -> str:
        """Call once() in a fork.

        Returns the first line that once() prints, or, if it prints none, the line `status N` with its exit status.
        """
        assert self._program.stdin is not None
        print(*words, file=self._program.stdin, flush=True)
        return self._line()

    def status(self) -> int:
        """Wait for the fork to end. Returns its exit status, or -n if signal n ended it."""
        return int(self._line().removeprefix("status "))

    def close(self) -> None:
        """End the program."""
        self._program.communicate()

    def _line(self) -> str:
        assert self._program.stdout is not None
        return self._program.stdout.readline().strip()
