"""What was not measured is refused with a sentence, before anything is learnt from it."""

import numpy as np
import pytest

from controlplane.pitot.run_times import RunTimeError, RunTimes, check
from tests.pitot.worlds import a_world

WORKLOADS = ["sort", "hash", "resize"]
PLATFORMS = ["a53", "xeon"]


def runs(**changes: object) -> RunTimes:
    columns: dict[str, object] = {
        "workload": [0, 1, 2],
        "platform": [0, 1, 0],
        "seconds": [1.0, 2.0, 3.0],
        "beside": [[-1], [0], [1]],
    }
    return RunTimes.of(**(columns | changes))  # type: ignore[arg-type]


def test_sound_rows_are_taken() -> None:
    check(runs(), WORKLOADS, PLATFORMS)
    assert runs().degree.tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"workload": [0, 1, 3]}, r"row 2: no workload 3, wanted 0 to 2"),
        ({"platform": [0, -1, 0]}, r"row 1: no platform -1, wanted 0 to 1"),
        ({"beside": [[-1], [9], [1]]}, r"row 1: no co-runner"),
        ({"seconds": [1.0, -2.0, 3.0]}, r"row 1: -2 s, wanted a time between"),
        ({"seconds": [0.0, 2.0, 3.0]}, r"row 0: 0 s, wanted a time between"),
        ({"seconds": [1.0, float("inf"), 3.0]}, r"row 1: inf s, wanted a time"),
        ({"seconds": [1.0, 2.0, float("nan")]}, r"row 2: nan s, wanted a time"),
    ],
)
def test_what_cannot_be_is_refused_by_row(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(RunTimeError, match=sentence):
        check(runs(**changes), WORKLOADS, PLATFORMS)


def test_an_observation_that_was_copied_is_refused() -> None:
    twice = runs().and_also(runs())
    with pytest.raises(RunTimeError, match="row 3: the same observation as row 0"):
        check(twice, WORKLOADS, PLATFORMS)


def test_many_faults_are_counted() -> None:
    with pytest.raises(RunTimeError, match=r"and 2 more$"):
        check(runs(workload=[5, 5, 5], platform=[7, 7, 0]), WORKLOADS, PLATFORMS)


@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e6])
def test_another_unit_is_told_from_seconds(factor: float) -> None:
    world = a_world(1)
    names = [str(each) for each in range(40)]
    check(world.runs, names, names)
    seconds = world.runs.seconds.copy()
    seconds[17] *= factor
    mixed = RunTimes(world.runs.workload, world.runs.platform, world.runs.beside, seconds)
    with pytest.raises(RunTimeError, match=r"row 17: .* wanted seconds"):
        check(mixed, names, names)


def test_rows_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(RunTimeError, match="wanted at most 3 co-runners, found 4"):
        runs(beside=np.zeros((3, 4)))
    with pytest.raises(RunTimeError, match="wanted 3 values of workload"):
        runs(workload=[0, 1])
    with pytest.raises(RunTimeError, match="wanted co-runners of 3 rows, found 2"):
        runs(beside=[[1], [1]])
