"""Equal shares in steps that jobs can use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.baselines.equal_counts import equal_counts

POWERS = (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [(3, (4, 2, 2)), (2, (4, 4)), (1, (8,)), (9, (1,) * 8 + (0,))],
)
def test_eight_accelerators_are_shared_equally(jobs: int, expected: tuple[int, ...]) -> None:
    assert equal_counts(8, [POWERS] * jobs) == expected


def test_a_job_whose_least_is_above_the_share_takes_it_if_it_is_free_afterwards() -> None:
    assert equal_counts(8, [(6,), (1, 2)]) == (6, 2)
    assert equal_counts(8, [(1, 2, 4), (6,)]) == (4, 0)
    assert equal_counts(8, [(16,), (1, 2, 4, 8)]) == (0, 8)


def test_nobody_gets_anything_of_nothing() -> None:
    assert equal_counts(0, [POWERS, POWERS]) == (0, 0)
    assert equal_counts(8, []) == ()


@given(
    st.integers(0, 40),
    st.lists(
        st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True).map(sorted), max_size=6
    ),
)
def test_all_that_is_given_is_usable_and_there(total: int, sizes: list[list[int]]) -> None:
    counts = equal_counts(total, sizes)
    assert sum(counts) <= total
    left = total - sum(counts)
    for count, able in zip(counts, sizes, strict=True):
        assert count in (0, *able)
        larger = [size for size in able if size > count]
        assert not larger or larger[0] - count > left
