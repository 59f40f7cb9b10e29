"""The marks of taps and bridges that outlive a killed server."""

from virtfs.host.marks import adopting, adopting_of, is_marked

MARK = "virtfs state 0123456789abcdef"


def test_a_bridge_that_adopts_names_its_members() -> None:
    alias = adopting(MARK, {7, 12})
    assert is_marked(alias, MARK)
    assert adopting_of(alias, MARK) == {7, 12}
    assert adopting_of(MARK, MARK) == frozenset()
    assert adopting_of(alias, "virtfs state other") == frozenset()


def test_an_alias_has_room_for_some_members() -> None:
    """ip-link(8) and the kernel limit an alias to 255 bytes. The newest interfaces are named then."""
    alias = adopting(MARK, range(1000, 2000))
    assert len(alias) <= 255
    assert max(adopting_of(alias, MARK)) == 1999
    assert len(adopting_of(alias, MARK)) > 30
