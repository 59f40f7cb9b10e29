"""Every target takes the inputs of its corpus, and some random ones; `make fuzz` runs many more."""

import os
import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fuzz import mounted, sessions
from fuzz.corpus import FOLDER, corpus
from fuzz.mutate import mutate
from fuzz.run import SHARES, jobs
from fuzz.targets import TARGETS

INPUTS = 20  # mutated inputs of each target


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_mutations(name: str) -> None:
    seeds = corpus(name)
    assert seeds
    seed = random.SystemRandom().randrange(2**31)
    generator = random.Random(seed)
    for data in (*seeds, *(mutate(generator, seeds) for _ in range(INPUTS))):
        try:
            TARGETS[name](data)
        except Exception as failure:
            raise AssertionError(f"seed {seed}: {name} fails with {data!r}") from failure


@given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=64) | st.text(max_size=40).map(str.encode))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@example("ioctl", b"\xd4T\x04@")
@example("subuid", b"nobody:" + b"9" * 5000 + b":1")
@example("mount_table", b"1 2 0:1 / /a\rb\x0cc rw - tmpfs  rw")
@example("offload", bytes([1, 1, 54, 0, 1, 0, 255, 255, 0, 0]) + bytes(60))
@example("netlink", b"\x14\0\0\0" + bytes(8) + b"\x10")
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name](data)


def test_channel() -> None:
    sessions.fuzz(400, random.SystemRandom().randrange(2**31))


def test_every_target_has_a_share_and_a_corpus() -> None:
    assert {*TARGETS, "channel", "mount"} == {*SHARES}
    assert sum(SHARES.values()) == 1000
    assert {path.name for path in FOLDER.iterdir()} >= {*TARGETS}
    assert sum(inputs for _, inputs, _ in jobs([*SHARES], 1_000_000, "both")) == 1_000_000


def test_mount() -> None:
    assert os.geteuid() == 0, "needs root"
    ends = mounted.fuzz(300, random.SystemRandom().randrange(2**31), rounds=1)
    assert sum(ends.values()) == 300
