"""Finds objects of virtfs that only the garbage collector frees.

virtfs starts no collection of old objects while it works, so an object in a reference cycle stays for an hour, with the
buffers that it holds and nobody accounts for. Every server that tests fork is watched: at the end of its mount, when
all interfaces are destroyed, it writes the types of such objects to its standard error, and the test fails.
"""

import gc
import sys
from collections import Counter

from virtfs.daemon.service import _Mount


def watch() -> None:
    """Report objects in reference cycles at the end of each mount of this process."""
    check = _Mount._check_memory

    def checked(mount: _Mount) -> None:
        check(mount)
        report()

    _Mount._check_memory = checked  # type: ignore[method-assign,assignment]


def report() -> None:
    """Write to standard error which objects of virtfs only the garbage collector would free."""
    gc.collect(1)  # what is young is freed soon: mostly exceptions, which refer to themselves through their traceback
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found = Counter(type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("virtfs."))
    gc.set_debug(0)
    gc.garbage.clear()
    if found:
        print(f"Error: these objects are freed by the garbage collector only: {dict(found)}", file=sys.stderr)
