"""Why a program cannot be executed, as `virtfs shell` and `virtfs exec` say it."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from virtfs.cli.surroundings import sentence_of
from virtfs.cli.unstarted import TOO_MANY, refusal


@pytest.mark.parametrize(
    ("text", "mode", "status", "why"),
    [
        (b'cd "$VIRTFS"\n', 0o755, 126, "Exec format error: it has no #! line, such as #!/bin/bash"),
        (b"", 0o755, 126, "Exec format error: it has no #! line, such as #!/bin/bash"),
        (b"\x7fELF" + bytes(60), 0o755, 126, "Exec format error"),
        (
            b"#! /bin/sh\r\npwd\r\n",
            0o755,
            127,
            r'No such file or directory: its interpreter "/bin/sh\r" does not exist: '
            r"remove the line ends of Windows with sed -i 's/\r$//' FILE",
        ),
        (b"#!/nowhere -e\n", 0o755, 127, 'No such file or directory: its interpreter "/nowhere" does not exist'),
        (b"#!/bin/sh\n", 0o644, 126, "Permission denied: it is not executable: chmod +x makes it so"),
        (None, 0, 127, "No such file or directory"),
    ],
    ids=["no line", "empty", "ELF", "carriage return", "no interpreter", "not executable", "missing"],
)
def test_a_script_that_cannot_run(tmp_path: Path, text: bytes | None, mode: int, status: int, why: str) -> None:
    path = tmp_path / "lesson.sh"
    if text is not None:
        path.write_bytes(text)
        path.chmod(mode)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        subprocess.run([str(path)], check=False)
    expected = str(path) if len(str(path)) <= 64 else f"{str(path)[:64]}…"
    assert refusal(str(path), caught.value) == (f'"{expected}": {why}', status)


def test_a_name_is_looked_up_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    assert refusal("lesson", missing) == ('"lesson": command not found', 127)
    (tmp_path / "lesson").write_text("#!/nowhere\n")
    (tmp_path / "lesson").chmod(0o755)
    why = 'No such file or directory: its interpreter "/nowhere" does not exist'
    assert refusal("lesson", missing) == (f'"lesson": {why}', 127)


def test_a_lack_of_processes_names_the_limit() -> None:
    """The number of processes that a test may start is not its own, so nothing here reaches the limit."""
    failure = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    sentence = f"Resource temporarily unavailable: {TOO_MANY}"
    assert sentence_of(failure) == sentence
    assert refusal("/bin/true", failure) == (f'"/bin/true": {sentence}', 126)
