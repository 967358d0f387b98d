"""What was fitted to measured steps becomes part of the state."""

from dataclasses import replace

import pytest

from controlplane.domain.clock import Instant
from controlplane.domain.codec import dump, load
from controlplane.domain.event import ModelFitted
from controlplane.domain.step_time_fit import StepTimeFit
from controlplane.engine import observations
from controlplane.engine.state import ClusterState
from tests.builders import a_cluster

FIT = StepTimeFit(
    "gpt2-tiny fp32 batch 8x64", "cpu", (("fixed_seconds", 1e-3),), (0.1,), 0.05, 1.7, 0.9, 7, 1.0,
    Instant(5),
)  # fmt: skip


def test_the_newest_fit_counts_and_survives_the_log_and_the_checkpoint() -> None:
    newer = replace(FIT, rows=10, at=Instant(9))
    world = a_cluster().tell(ModelFitted(FIT), ModelFitted(newer))
    known = {"gpt2-tiny fp32 batch 8x64 on cpu": replace(newer, fitted_at=world.now)}
    assert world.state.snapshot(world.now).fits == known
    assert world.replayed() == world.state
    assert load(dump(world.state, ClusterState), ClusterState) == world.state


def test_only_so_many_fits_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "FITS_KEPT", 2)
    fits = [replace(FIT, accelerator_type=kind) for kind in ("a", "b", "a", "c")]
    world = a_cluster().tell(*map(ModelFitted, fits))
    assert [fit.accelerator_type for fit in world.state.fits.values()] == ["a", "c"]
