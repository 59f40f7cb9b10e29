"""A check that an example has cleaned up."""

from harness.serving import Mount


def nothing_left(mount: Mount) -> None:
    """Assert that nothing that an example created is left."""
    assert mount.read("ctl") == ""
    assert mount.sh("ls bridge") == ""
    assert mount.links() == ["lo"]
    assert mount.ip("netns list") == ""
