"""Seeded mutation of inputs, without coverage."""

from collections.abc import Sequence
from random import Random

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Words and characters that parsers treat specially.
_TOKENS = (
    *b"create virt3 bridge0 in out impair delay loss inet # - 1e9 -1 99999999999999999999".split(),
    *b"0x % 0. / :: = , : K".split(),
    *(char.encode() for char in "\n\t\r\x0b\x85\u2028\u202e٣²İß\U0010ffff "),
    *(b"\xff", b"\xfe", b"\xed\xa0\x80", b"\0", b"\x1b[", b"\\040", b" - "),
)
LONGEST = 4096


def mutate(random: Random, corpus: Sequence[bytes]) -> bytes:
    """Return an input made from one or two of the corpus by up to eight changes."""
    data = bytearray(random.choice(corpus) if corpus else b"")
    for _ in range(1 + int(random.random() ** 3 * 8)):
        at = random.randrange(len(data) + 1)
        match random.randrange(9):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1 if data:
                data[at % len(data)] = random.randrange(256)
            case 2:
                data[at:at] = random.choice(_TOKENS)
            case 3:
                size = random.choice((1, 2, 4, 8))
                number = random.choice(_NUMBERS) & (1 << size * 8) - 1
                data[at : at + size] = number.to_bytes(size, random.choice(("little", "big")))
            case 4:
                del data[at : at + random.choice((1, 2, 4, 16, 64))]
            case 5:
                end = at + random.choice((1, 4, 16, 64))
                data[at:at] = data[at:end] * random.choice((1, 2, 30))
            case 6 if corpus:
                other = random.choice(corpus)
                begin = random.randrange(len(other) + 1)
                data[at:] = other[begin:]
            case 7:
                data[at:at] = random.randbytes(random.choice((1, 4, 20)))
            case _:
                del data[at:]
    return bytes(data[:LONGEST])
