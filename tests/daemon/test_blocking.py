"""harness.blocking detects calls in trio's thread that may block. It watches every server that the tests fork."""

import subprocess
import sys
from pathlib import Path

from harness import children

TESTS = Path(__file__).parents[1]
PROGRAM = """
import pwd, trio
from harness import blocking
blocking.watch()

async def main():
    await trio.to_thread.run_sync(pwd.getpwuid, 0)
    print("in a thread", flush=True)
    pwd.getpwuid(0)

pwd.getpwuid(0)
trio.run(main)
"""


def test_a_blocking_call_is_noticed_in_trio_s_thread_only() -> None:
    program = children.start(
        [sys.executable, "-c", PROGRAM], cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
    )  # fmt: skip
    output, _ = program.communicate(timeout=30)
    before, _, after = output.partition("in a thread\n")
    assert program.returncode == 0, output
    assert before == ""
    assert after.startswith("Error: blocking call in trio's thread: pwd.getpwuid\n")
    assert "in main" in after, "the report has the stack"
