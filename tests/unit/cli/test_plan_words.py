"""Plans told in words."""

import pytest

from headrace.api.plan import ExecutionPlan
from headrace.cli.plan_words import explained, in_words, kind


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("dp1", "a single rank"),
        ("dp4-ga2", "data parallel over 4, 2 micro-batches"),
        ("z3-gc-offload", "a single rank, ZeRO-3, activations computed twice, offloaded"),
        (
            "dp2-tp2-pp2.zb-z2-ga4",
            "data parallel over 2, tensor parallel over 2, a pipeline of 2 ranks (zb), ZeRO-2, "
            "4 micro-batches",
        ),
    ],
)
def test_every_dimension_has_words(plan: str, words: str) -> None:
    plan = plan if not plan.startswith("z") else f"dp1-{plan}"
    assert in_words(ExecutionPlan.parse(plan)).startswith(words)


def test_a_kind_is_how_work_is_divided_whatever_the_numbers() -> None:
    one, same, other = (kind(ExecutionPlan.parse(text)) for text in ("dp4", "dp2-ga2", "dp4-z3"))
    assert one == same != other


def test_a_plan_of_another_release_stays_as_it_is() -> None:
    assert explained("cp2-dp4") == "cp2-dp4"
