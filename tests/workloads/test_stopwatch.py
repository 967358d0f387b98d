"""What a step's time is divided into."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from headrace.workloads.training import stopwatch
from headrace.workloads.training.stopwatch import FORWARD, GRADIENTS, OPTIMIZER, Stopwatch


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock that goes on by a second with each look."""
    now = iter(range(1000))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(now)))
    return


@pytest.mark.usefixtures("seconds")
def test_every_forward_pass_counts_whoever_calls_it() -> None:
    watch = Stopwatch(torch.device("cpu"))
    run = nn.Linear(2, 2)
    watch.follow(run)
    watch.runs = True
    with watch.part(GRADIENTS):  # 0 to 7
        run(torch.ones(1, 2))
        run(torch.ones(1, 2))
        with watch.part(FORWARD):
            pass
    with watch.part(OPTIMIZER):
        pass
    assert watch.read() == (3.0, 7.0, 1.0)
    assert watch.read() == (0.0, 0.0, 0.0)


def test_nothing_is_measured_unasked() -> None:
    watch = Stopwatch(torch.device("cpu"))
    run = nn.Linear(2, 2)
    watch.follow(run)
    with watch.part(GRADIENTS):
        run(torch.ones(1, 2))
    assert watch.read() == (0.0, 0.0, 0.0)


def test_the_rest_of_making_gradients_is_backward_and_communication() -> None:
    parts = stopwatch.parts_of(1.0, 3.5, 0.5)
    assert (parts.forward, parts.backward_communication, parts.optimizer) == (1.0, 2.5, 0.5)
