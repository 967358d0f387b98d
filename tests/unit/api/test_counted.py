"""Numbers of things, in words."""

import pytest

from headrace.api.counted import counted


@pytest.mark.parametrize(
    ("count", "word", "ending", "said"),
    [
        (0, "accelerator", "s", "0 accelerators"),
        (1, "accelerator", "s", "1 accelerator"),
        (3, "accelerator", "s", "3 accelerators"),
        (1, "micro-batch", "es", "1 micro-batch"),
        (2, "micro-batch", "es", "2 micro-batches"),
    ],
)
def test_one_of_a_thing_is_not_many(count: int, word: str, ending: str, said: str) -> None:
    assert counted(count, word, ending) == said
