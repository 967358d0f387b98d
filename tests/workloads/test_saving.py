"""How states become checkpoints, as rank 0 of a training sees to it."""

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystem

from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan
from headrace.workloads import checkpoints
from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.control import Chronicle, ControlFolder
from headrace.workloads.refusal import WorkloadError
from headrace.workloads.rendezvous import Rendezvous
from headrace.workloads.storage import LocalStorage
from headrace.workloads.training.families.build import FamilyBlueprint
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.saving import Saver, _Draft
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.switching import fill_initial
from headrace.workloads.training.world import World
from tests.workloads.attempts import a_manifest


class Board:
    """What rank 0 tells the others."""

    rank = 0

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def put(self, key: str, value: object) -> None:
        self.told[key] = value


class Training:
    """A model of one rank, and its saves."""

    def __init__(self, store: Path, world: World) -> None:
        self.checkpoints = JobCheckpoints(LocalStorage(store), "job-1")
        self.board = Board()
        self.saver = Saver(
            self.checkpoints,
            cast("Rendezvous", self.board),
            TrainingSpec.from_manifest(a_manifest(store, keep=2)),
            Chronicle("rank 0"),
            ControlFolder(None),
            attempt=1,
            training={},
            fingerprint="data",
            committed_step=0,
        )
        self.model = PlannedModel(
            FamilyBlueprint(PRESETS["gpt2-tiny"]),
            ExecutionPlan(),
            world,
            precision="fp32",
            global_batch_size=4,
            weight_decay=0.1,
        )
        fill_initial(self.model, 7)

    def begun(self, step: int) -> _Draft:
        """Begin to save the state of a step."""
        self.model.step = step
        self.saver.begin(self.model, 1.5)
        draft = self.saver._draft
        assert draft is not None
        return draft

    def begin(self, step: int) -> Path:
        """Begin it, and wait until it is written; where its tensors come to lie."""
        draft = self.begun(step)
        draft.saving.wait()
        return Path(self.checkpoints.storage.location(draft.folder))

    def saved(self, step: int) -> Path:
        """Save it; its folder."""
        folder = self.begin(step)
        self.saver.finish()
        return folder.parent

    @property
    def steps(self) -> list[int]:
        return [found.marker.step for found in self.checkpoints.whole()]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found = World(dist.HashStore(), rank=0, size=1, device=torch.device("cpu"))
    yield found
    found.part()


@pytest.fixture
def training(tmp_path: Path, world: World) -> Training:
    return Training(tmp_path, world)


def test_what_torch_says_was_written_is_what_lies_there(training: Training) -> None:
    folder = training.begin(5)
    draft = training.saver._draft
    assert draft is not None
    sizes = {file.name: file.stat().st_size for file in folder.glob("*.distcp")}
    assert draft.saving.written() == sizes
    training.saver.finish()
    assert training.steps == [5]


def test_tensors_that_are_not_there_are_not_committed(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LISTING_SECONDS", 0.0)
    training.saved(5)
    (training.begin(6) / "__0_0.distcp").unlink()
    with pytest.raises(WorkloadError, match=r"rank 0 does not see __0_0\.distcp") as refused:
        training.saver.finish()
    assert training.board.told["checkpoint/6"][0] == refused.value.code == "CheckpointFailed"
    assert training.steps == [5]
    assert training.saver.committed_step == 5


def test_a_removal_that_fails_costs_no_checkpoint(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training.saved(4)
    training.saved(5)
    training.begin(6)

    def busy(path: str) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", f"{path}/.nfs0001")

    with monkeypatch.context() as patched:
        patched.setattr(training.checkpoints.storage, "remove", busy)
        training.saver.finish()
    assert "WARNING: not all checkpoints before step 6 were removed" in capsys.readouterr().out
    assert training.board.told["checkpoint/6"] is None
    assert training.saver.committed_step == 6
    assert training.steps == [4, 5, 6]
    training.saved(7)
    assert training.steps == [6, 7]


def test_a_store_that_fails_when_a_save_begins_is_a_checkpoint_that_failed(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> None:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(training.checkpoints.storage, "read", broken)
    with pytest.raises(WorkloadError, match=r"step 5 was not committed: .* cannot be") as refused:
        training.begin(5)
    assert refused.value.code == "CheckpointFailed"


def test_a_state_that_is_being_written_is_doubted_before_a_checkpoint(training: Training) -> None:
    training.saved(4)
    training.saved(5)
    training.begin(6)
    told = training.saver.doubted()
    assert told == (
        " The state of step 6 was being saved and does not count; the next attempt begins before it"
    )
    training.saver.settle()
    assert training.steps == [4, 5]


class Brimful(io.FileIO):
    """A file of which only the beginning is taken; by the time it is closed there is room again."""

    def write(self, data: Any) -> int:
        if self.tell() > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data) or 0


def test_a_store_that_was_full_is_told_though_it_has_room_again(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.saved(4)

    @contextmanager
    def opened(files: FileSystem, path: str, mode: str) -> Iterator[Any]:
        with Brimful(path, mode) as file:
            yield file

    with monkeypatch.context() as patched:
        patched.setattr(FileSystem, "create_stream", opened)
        training.begun(5)
        training.saver.settle()
    code, message = training.board.told["checkpoint/5"]
    assert (code, "has no room for 1.4 MB: No space" in message) == ("CheckpointStoreFull", True)
    training.saved(6)
    assert training.steps == [4, 6]


def test_the_part_of_a_last_save_that_a_full_store_took_is_removed(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.saved(4)
    draft = training.begin(5)

    def full(path: str, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.checkpoints.storage, "write", full)
    with pytest.raises(WorkloadError, match=r"has no room, free some: .* No space left") as refused:
        training.saver.finish()
    assert refused.value.code == "CheckpointStoreFull"
    assert not draft.exists()
    assert training.steps == [4]
