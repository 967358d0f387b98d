"""AntMan's rules for sharing an accelerator against the released code."""

import pytest

from controlplane.baselines.antman_sharing import Use, accelerator_to_join, sleep_microseconds


def test_the_least_used_accelerator_with_memory_to_spare_is_joined() -> None:
    used = [Use(85, 4), Use(40, 20), Use(60, 8), Use(30, 12)]
    assert accelerator_to_join(used) == 3
    assert used[3].score == 70
    assert accelerator_to_join(used[:2]) is None


@pytest.mark.parametrize(
    ("throttle", "mini_batch", "sleep"),
    [(50, 100_000, 99_950), (25, 40_000, 119_950), (90, 100_000, 11_061), (99, 1_000, 0)],
)
def test_a_throttled_job_sleeps_after_each_mini_batch(
    throttle: int, mini_batch: int, sleep: int
) -> None:
    assert sleep_microseconds(throttle, mini_batch) == sleep


def test_nobody_sleeps_unthrottled_and_a_suspended_job_has_no_sleep() -> None:
    assert sleep_microseconds(100, 1_000) == 0
    with pytest.raises(ValueError, match="0 suspends"):
        sleep_microseconds(0, 1_000)
