"""doc/python.md: its blocks print what they show."""

import subprocess
import sys

from harness.places import finished
from harness.serving import ENVIRONMENT, Mount

from .markdown import ROOT, blocks

PAGE = (ROOT / "doc/python.md").read_text()
BLOCKS = [block for block in blocks(PAGE) if "import virtfs\n" in block.text]

# Runs the blocks one after another, each with names of its own, because starting Python takes long.
_RUN = """
import sys
for text in sys.stdin.read().split("\\0"):
    exec(compile(text, "doc/python.md", "exec"), {"__name__": "__main__"})
    print("-- done --", flush=True)
"""


def test_each_block_prints_what_the_page_shows(mount: Mount) -> None:
    pipe = subprocess.PIPE
    environment = {**ENVIRONMENT, "PYTHONWARNINGS": "ignore::ResourceWarning"}
    program = mount.start(sys.executable, "-c", _RUN, env=environment, cwd="/", stdin=pipe, stdout=pipe, stderr=pipe)
    assert program.stdin is not None
    program.stdin.write("\0".join(block.text for block in BLOCKS))
    program.stdin.close()
    program.stdin = None
    output, complaint = finished(program, 40)
    assert complaint == ""
    shown = [block.output for block in BLOCKS]
    assert output.split("-- done --\n")[:-1] == shown
    assert mount.units() == []


def test_each_block_shows_its_output() -> None:
    assert len(BLOCKS) > 6
    assert all(block.output for block in BLOCKS)
