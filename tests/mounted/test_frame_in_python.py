"""Some tests of `frame` again, with the Python loop. The other tests use the compiled loop, if it could be built."""

from collections.abc import Iterator

import pytest
from harness.serving import ENVIRONMENT, Mount

import virtfs

from .test_frame import (
    test_a_bridge_of_two_interfaces,
    test_a_frame_survives_both_ways,
    test_a_setting_takes_effect_between_two_frames,
    test_a_short_read_cuts_the_frame_and_loses_the_rest,
    test_appending_and_truncating_mean_nothing,
    test_going_down_wakes_the_reader,
    test_in_is_read_plus_dropped,
    test_many_frames_keep_borders_and_order,
    test_nonblocking,
    test_stat_tells_of_frames,
    test_the_queue_bounds_a_slow_reader,
    test_two_users_at_once,
    test_what_cannot_be_sent_is_counted,
)

__all__ = [
    "test_a_bridge_of_two_interfaces",
    "test_a_frame_survives_both_ways",
    "test_a_setting_takes_effect_between_two_frames",
    "test_a_short_read_cuts_the_frame_and_loses_the_rest",
    "test_appending_and_truncating_mean_nothing",
    "test_going_down_wakes_the_reader",
    "test_in_is_read_plus_dropped",
    "test_many_frames_keep_borders_and_order",
    "test_nonblocking",
    "test_stat_tells_of_frames",
    "test_the_queue_bounds_a_slow_reader",
    "test_two_users_at_once",
    "test_what_cannot_be_sent_is_counted",
]


@pytest.fixture(scope="module")
def served() -> Iterator[Mount]:
    """A mount whose server uses the Python loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "VIRTFS_COMPILED", "no")
        mount = Mount()
    yield mount
    wrong = mount.stop()
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def mount(served: Mount) -> Iterator[Mount]:
    yield served
    served.clean()


def test_version_names_the_python_loop(mount: Mount) -> None:
    assert mount.read("version") == f"virtfs {virtfs.__version__}, Python loop"
