"""Save the state before each line of a script that destroys members of a bridge.

This is a program, which runs in namespaces of its own. Between two lines of a script, other tasks may save the state or
read ctl, and the server may be killed. Prints a JSON list with the text of the state file and that of ctl before each
line.
"""

import json
import os
import subprocess

import trio

from virtfs.core.ids import User
from virtfs.core.script import Script

from . import sweep

BEFORE = "create bridge0 up\ncreate 1 bridge bridge0\ncreate 2 persist bridge bridge0\nbridge0 -learn tap2"
SCRIPT = "destroy 1\ndestroy 2\ncreate 3\n"


async def main() -> None:
    found = []
    async with sweep.serving() as daemon:
        await daemon.say(BEFORE + "\n")

        async def turn(user: User) -> None:
            await daemon.made.state.keep()
            found.append([daemon.state.read_text(), daemon.made.state.text()])

        await daemon.made.commands.run(None, Script(), SCRIPT.encode(), sweep.SUPER, turn)
    print(json.dumps(found))


if __name__ == "__main__":
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    sweep.FAR_NAMESPACE = os.open("/proc/self/ns/net", os.O_RDONLY)
    trio.run(main)
