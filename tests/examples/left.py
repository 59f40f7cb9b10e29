"""What an example leaves."""

from harness.serving import Mount


def nothing_left(mount: Mount) -> None:
    """Assert that what an example made is gone."""
    assert mount.read("ctl") == ""
    assert mount.sh("ls bridge") == ""
    assert mount.links() == ["lo"]
    assert mount.ip("netns list") == ""
