"""The commands of other processes, as error messages show them."""

import pytest

from virtfs.host.processes import _program_of


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("python3 -P -m virtfs mount -f /mnt", "virtfs mount -f /mnt"),
        ("python3 -X utf8 -W error script.py -v", "script.py -v"),
        ("python3 /usr/bin/virtfs mount", "/usr/bin/virtfs mount"),
        ("python3 -I -c print()", "python3 -I -c print()"),
        ("python3 - word", "python3 - word"),
        ("python3 -m", "python3 -m"),
        ("python3", "python3"),
    ],
)
def test_the_program_of_an_interpreter(line: str, program: str) -> None:
    assert _program_of(line.split()) == program.split()
