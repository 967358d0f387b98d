"""Which accelerators of a node are taken, and in which order ranks lie on them."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.ids import AcceleratorId
from controlplane.domain.node import Accelerator
from controlplane.placing.islands import in_groups, picked, side_by_side

ISLANDS = st.text("ab.", max_size=8)


def accelerators(islands: str) -> list[Accelerator]:
    """One for each letter, in an island of that name; ``.`` for none."""
    return [
        Accelerator(AcceleratorId(f"{i}{each}"), "gpu", island=each.strip("."))
        for i, each in enumerate(islands)
    ]


def names(found: Sequence[Accelerator]) -> str:
    return " ".join(each.id for each in found)


def test_the_island_that_is_begun_is_used_up_first() -> None:
    assert names(picked(accelerators("aaaabb"), 2)) == "4b 5b"
    assert names(picked(accelerators("aaaabb"), 3)) == "0a 1a 2a"
    assert names(picked(accelerators("aaaabb"), 5)) == "0a 1a 2a 3a 4b"
    assert names(picked(accelerators("aa.bb"), 1)) == "2.", "who is alone is alone anyway"


def test_a_group_stays_in_an_island_where_that_has_as_many() -> None:
    assert names(picked(accelerators("aabbbb"), 4, group=4)) == "2b 3b 4b 5b"
    assert names(picked(accelerators("aaabbbb"), 6, group=2)) == "3b 4b 5b 6b 0a 1a"
    assert names(picked(accelerators("aaabbb"), 4, group=4)) == "0a 1a 2a 3b", "else it must not"


def test_the_jobs_own_come_first_and_then_their_neighbours() -> None:
    own = [AcceleratorId("5b"), AcceleratorId("9x")]
    assert names(picked(accelerators("aaabbb"), 2, own=own)) == "5b 3b"
    assert names(picked(accelerators("aabbb"), 2, beside={"b"})) == "2b 3b"
    assert names(picked(accelerators("aabb"), 1, own=[AcceleratorId("3b"), own[0]])) == "3b"


def test_ranks_of_a_group_are_numbered_over_one_island() -> None:
    assert names(side_by_side(accelerators("abab"), 2)) == "0a 2a 1b 3b"
    assert names(side_by_side(accelerators("aaabbbba"), 4)) == "0a 1a 2a 7a 3b 4b 5b 6b"
    assert names(side_by_side(accelerators("aaabbbb."), 2)) == "0a 1a 3b 4b 5b 6b 2a 7."
    assert names(side_by_side(accelerators("a..a"), 1)) == "0a 3a 1. 2."
    assert names(side_by_side(accelerators("...."), 2)) == "0. 1. 2. 3."


@given(ISLANDS, st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_groups_lie_within_islands_as_far_as_there_is_room(
    islands: str, groups: int, group: int
) -> None:
    free = accelerators(islands)
    count = min(groups * group, len(free) - len(free) % group)
    found = picked(free, count, group)
    assert len(found) == len(set(found)) == count
    assert set(found) <= set(free)
    if islands.strip("."):
        whole = Counter(islands.replace(".", ""))
        room = sum(each - each % group for each in whole.values()) + (
            islands.count(".") if group == 1 else 0
        )
        assert room == in_groups(free, group)
        laid_out = side_by_side(found, group)
        parts = [laid_out[i : i + group] for i in range(0, count, group)]
        together = sum(len({each.island or each.id for each in part}) == 1 for part in parts)
        assert together == min(room, count) // group
