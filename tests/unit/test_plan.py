"""The execution plan's short form is read and printed without loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.plan import ExecutionPlan

sizes = st.integers(min_value=1, max_value=4096)


@given(sizes, sizes)
def test_short_form_round_trips(replicas: int, accumulation: int) -> None:
    plan = ExecutionPlan(replicas, accumulation)
    assert ExecutionPlan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    "text", ["", "dp0", "dp4-ga1", "dp4-ga0", "dp 4", "DP4", "dp4-", "ga2", "dp4\n"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted a plan"):
        ExecutionPlan.parse(text)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="data_parallel=0"):
        ExecutionPlan(0)
