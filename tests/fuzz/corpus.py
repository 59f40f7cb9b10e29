"""The inputs that fuzzing starts from: good ones, and those that once found a fault.

The folder corpus has a folder for each target, and in it a file for each input. To keep an input that `make fuzz` has
reported, move its file there.
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def corpus(target: str) -> list[bytes]:
    """Return the inputs of a target."""
    return [path.read_bytes() for path in sorted((FOLDER / target).glob("*")) if path.is_file()]
