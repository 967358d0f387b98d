"""Islands from a table of links."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from agent.nvlink import islands

GPUS = tuple("abcdefgh")
CUBE_MESH = ("ab", "ac", "ad", "ae", "bc", "bd", "bf", "cd", "cg", "dh", "ef", "eg", "eh", "fg")


def found(*links: str) -> str:
    """The island of each GPU, ``.`` for none."""
    table = {frozenset(link) for link in links}
    names = islands(GPUS, lambda one, other: frozenset((one, other)) in table)
    assert tuple(names) == GPUS
    return "".join(name or "." for name in names.values())


def test_machines_as_they_are_built() -> None:
    assert found() == "........", "PCIe alone"
    assert found(*map("".join, combinations(GPUS, 2))) == "00000000", "NVSwitch"
    assert found("ab", "cd", "ef", "gh") == "00112233", "bridges over pairs"
    assert found(*(pair for four in ("abcd", "efgh") for pair in _pairs(four))) == "00001111"
    assert found(*CUBE_MESH) == "00000000", "not each with each, but all over others"
    assert found("bh", "gc") == ".01...10"


def _pairs(members: str) -> list[str]:
    return ["".join(pair) for pair in combinations(members, 2)]


@given(st.lists(st.sampled_from(list(combinations(GPUS, 2))), max_size=8))
def test_who_is_linked_is_together_and_who_is_together_is_linked_by_a_way(
    links: list[tuple[str, str]],
) -> None:
    table = set(map(frozenset, links))
    names = islands(GPUS, lambda one, other: frozenset((one, other)) in table)
    assert all(names[one] == names[other] != "" for one, other in links)
    for gpu in GPUS:
        reached, seen = {gpu}, set[str]()
        while reached - seen:
            seen |= reached
            reached |= {b for link in table for b in link if link & seen}
        same = {other for other in GPUS if names[other] == names[gpu] != ""}
        assert (same or {gpu}) == reached
