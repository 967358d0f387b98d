"""What ``headrace.train`` opens on: one call that trains a script's model."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor.parallel import ParallelStyle

from headrace.workloads import script
from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.control import SUCCEEDED, ControlFolder, StopSignal
from headrace.workloads.refusal import CANNOT_BE_TRAINED, StoppedBeforeTraining, WorkloadError
from headrace.workloads.storage import open_storage
from headrace.workloads.training import tensors
from headrace.workloads.training.blueprint import sizes_of
from headrace.workloads.training.own.blame import tell_in_a_sentence
from headrace.workloads.training.own.data_set import DataSet
from headrace.workloads.training.own.model import Step, ours
from headrace.workloads.training.own.settings import Settings
from headrace.workloads.training.own.task import OwnTask
from headrace.workloads.training.place import Place, without_headrace

_TOLD_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Trained:
    """How it ended.

    Attributes:
        rank: This process among those that trained; 0 may speak for all.
        step: Steps done.
        is_done: Whether these are all; if not, a stop was asked for and the script should end.
    """

    rank: int
    step: int
    is_done: bool
    _place: Place
    _task: OwnTask

    @torch.no_grad()
    def model(self) -> nn.Module:
        """The whole trained model on the CPU, whatever the plan was.

        It is made anew, and filled from the newest checkpoint, which has the last step.
        """
        seat, spec = self._place.seat, self._place.spec
        storage = open_storage(spec.store, seat.base)
        newest = JobCheckpoints(storage, seat.uid).whole()[-1]
        weights = tensors.weights(storage, newest.location, sizes_of(self._task.blueprint()))
        model = self._task.built()
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[ours(name)])
        return model


def run(
    model: Callable[[], nn.Module],
    data: DataSet,
    step: Step,
    *,
    blocks: Sequence[str] | None = None,
    tensor_parallel: Mapping[str, ParallelStyle] | None = None,
    settings: Settings | None = None,
) -> Trained:
    """Train to the end, to a stop, or to a failure.

    Every rank calls it with the same arguments. Under Headrace, mesh, plan, batch, number of steps
    and checkpoints are those of the job; otherwise those of ``settings``, on the ranks that
    torchrun started, or on one.

    Args:
        model: Makes the model, on the CPU and in float32. It is called under a fixed seed.
        data: Samples by index, as ``torch.utils.data.Dataset``; always the same one for an index.
        step: Model and batch (samples put together by torch's ``default_collate``) -> the loss of
            each sample, a tensor of shape (samples,).
        blocks: Names of the submodules that ZeRO-3 gathers, and activation checkpointing computes
            again, as one each; a list of modules stands for its entries. If left out, the entries
            of the largest list.
        tensor_parallel: Styles of ``torch.distributed.tensor.parallel`` by names of submodules,
            where a star stands for any one name, as ``parallelize_module`` takes them: how ranks of
            a plan with ``tp`` share the model. Without it, such plans are refused.
        settings: How to train without Headrace.

    Raises:
        WorkloadError: Something is not as it must be, and the message says what would help.
    """
    with _placed(settings) as place:
        task = OwnTask(
            model, data, step, blocks=blocks, tensor_parallel=tensor_parallel, spec=place.spec
        )
        end = place.trained(task)
        rank = place.rendezvous.rank
        if end.message and rank == 0 and script.place() is None:
            sys.stdout.write(f"{end.message}\n")
        return Trained(rank, end.step, end.outcome == SUCCEEDED, place, task)


@contextmanager
def _placed(settings: Settings | None) -> Iterator[Place]:
    place = script.place()
    if place is not None:
        yield place
        return
    tell_in_a_sentence()
    if settings is None:
        raise WorkloadError(
            CANNOT_BE_TRAINED,
            "wanted settings=train.Settings(...) outside of a job of Headrace, which has them in "
            "its manifest, got none",
        )
    spec, uid = settings.checked()
    stop = StopSignal(None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop.listen()
    stop.listen_to_keyboard()
    try:
        with without_headrace(
            uid, spec, plan=settings.plan, control=Console(spec.steps), stop=stop
        ) as alone:
            yield alone
    except StoppedBeforeTraining:
        raise SystemExit("stopped before the first step, so there is nothing to save") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Console(ControlFolder):
    """Tells people how far training is, where no agent wants to know."""

    def __init__(self, steps: int) -> None:
        super().__init__(None)
        self._steps = steps
        self._told_at = 0.0
        self._told = 0

    def progress(self, *, step: int, loss: float | None, **others: Any) -> None:
        """One line a second, and one for the last step."""
        now = time.monotonic()
        is_due = now - self._told_at >= _TOLD_EVERY_SECONDS or step == self._steps
        if is_due and step != self._told:
            self._told_at, self._told = now, step
            sys.stdout.write(f"step {step} of {self._steps}: loss {loss:.4f}\n")
            sys.stdout.flush()
