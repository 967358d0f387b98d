"""A checkpoint is called corrupt when its bytes are wrong, and not for whatever else goes wrong
while it is read. Nor is it called full for whatever else goes wrong while it is written.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from headrace.api.models import PRESETS, resized
from headrace.api.plan import ExecutionPlan
from headrace.workloads.refusal import WorkloadError, reason_of
from headrace.workloads.storage import LocalStorage
from headrace.workloads.training import tensors
from headrace.workloads.training.families.build import FamilyBlueprint
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.soundness import damage
from headrace.workloads.training.switching import fill_initial
from headrace.workloads.training.world import World
from tests.workloads.attempts import Agent, a_manifest

SHAPE = resized(PRESETS["gpt2-tiny"], hidden=32, sequence_length=32)
BROKEN_DISK = Path("/proc/self/mem")
"""A file of which every read or write at its beginning is an input/output error."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world of this process alone."""
    found = World(dist.HashStore(), rank=0, size=1, device=torch.device("cpu"))
    yield found
    found.part()


def a_model(world: World) -> PlannedModel:
    return PlannedModel(
        FamilyBlueprint(SHAPE),
        ExecutionPlan(),
        world,
        precision="fp32",
        global_batch_size=4,
        weight_decay=0.1,
    )


@pytest.fixture
def saved(world: World, tmp_path: Path) -> Path:
    """A checkpoint's tensors."""
    model = a_model(world)
    fill_initial(model, 7)
    tensors.save_begun(LocalStorage(tmp_path), "saved", model).wait()
    return tmp_path / "saved"


def loading(saved: Path, model: PlannedModel) -> BaseException:
    """What is raised when the model takes up the checkpoint."""
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - it is looked at
        tensors.load(LocalStorage(saved.parent), str(saved), model, 1)
    return raised.value


def unreadable(file: Path) -> None:
    """From now on reading it is an error of the disk."""
    file.unlink()
    file.symlink_to(BROKEN_DISK)


@pytest.mark.parametrize("phase", ["allocate", "equip"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        dist.DistBackendError("NCCL error: remote process exited or there was a network error"),
        OSError(5, "Input/output error"),
    ],
)
def test_what_the_model_raises_while_it_takes_memory_is_told_as_it_is(
    world: World, saved: Path, monkeypatch: pytest.MonkeyPatch, phase: str, error: Exception
) -> None:
    def fails(_self: PlannedModel) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(PlannedModel, phase, fails)
    assert loading(saved, a_model(world)) is error


def test_memory_that_runs_out_within_torchs_reader_is_no_damage(
    world: World, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_given: Any, **_named: Any) -> Any:
        return torch.empty(10**15)

    monkeypatch.setattr(torch, "load", greedy)
    assert reason_of(loading(saved, a_model(world)))[0] == "OutOfMemory"


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_a_disk_that_cannot_be_read_is_no_damage(world: World, saved: Path, name: str) -> None:
    unreadable(saved / name)
    error = loading(saved, a_model(world))
    assert isinstance(error, WorkloadError)
    assert error.code == "CheckpointFailed"
    assert "OSError: [Errno 5]" in error.message
    assert "remove it" not in error.message
    # Nor is it set aside for that.
    with pytest.raises(WorkloadError, match=r"cannot be checked: \[Errno 5\]"):
        damage(LocalStorage(saved.parent), str(saved), None, rank=0, ranks=1)


def test_a_disk_that_cannot_be_written_fails_the_save(world: World, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "__0_0.distcp").symlink_to(BROKEN_DISK)
    model = a_model(world)
    fill_initial(model, 7)
    with pytest.raises(WorkloadError, match="could not be written to") as raised:
        tensors.save_begun(LocalStorage(tmp_path), "saved", model).wait()
    assert raised.value.code == "CheckpointFailed"
    assert "Earlier checkpoints are untouched" in raised.value.message


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwritten(file: Path) -> None:
    file.write_bytes(b"\0" * file.stat().st_size)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
@pytest.mark.parametrize("harm", [cut_short, overwritten, Path.unlink])
def test_wrong_bytes_are_damage(
    world: World, saved: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(saved / name)
    error = loading(saved, a_model(world))
    assert isinstance(error, WorkloadError)
    assert error.code == "CheckpointCorrupt"
    assert damage(LocalStorage(saved.parent), str(saved), None, rank=0, ranks=1)


def test_contact_that_is_lost_while_a_checkpoint_is_loaded_is_told_as_such(
    agent: Agent, store: Path
) -> None:
    agent.start(a_manifest(store, steps=2)).exits()
    told = {"TEST_MODULE": "tests.workloads.cut_off_on_resume", "TEST_CUT_OFF": "1"}
    run = agent.start(a_manifest(store), 2, attempt=2, plan="dp2-z1", environment=told)
    assert run.reasons() == {"CommunicationFailed"}
