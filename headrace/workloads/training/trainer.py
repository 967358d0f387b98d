"""The training loop of one rank."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from headrace.workloads.checkpoints import JobCheckpoints, Marker
from headrace.workloads.control import (
    STOPPED,
    SUCCEEDED,
    Chronicle,
    ControlFolder,
    StopSignal,
)
from headrace.workloads.refusal import CHECKPOINT_FAILED, RANK_FAILED, WorkloadError, no_room
from headrace.workloads.rendezvous import Rendezvous
from headrace.workloads.training.optimiser import FlatModel, Schedule
from headrace.workloads.training.order import SampleOrder, parts
from headrace.workloads.training.replicas import Replicas
from headrace.workloads.training.samples import Samples
from headrace.workloads.training.spec import TrainingSpec

EXTRA = 3
"""Numbers that travel with the gradients: loss, ranks asked to stop, whether to save."""

_LOSS, _STOP, _SAVE = range(EXTRA)
_SAVE_LIMIT_SECONDS = 3600.0


@dataclass(slots=True)
class Progress:
    """How far this rank has come.

    Attributes:
        step: Steps done.
        loss: Loss of the last step; None before the first.
        checkpoint_step: Step of the newest checkpoint of this job.
        step_seconds: Time of the last step.
    """

    step: int = 0
    loss: float | None = None
    checkpoint_step: int = 0
    step_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with, plugged together by ``run``."""

    spec: TrainingSpec
    flat: FlatModel
    samples: Samples
    replicas: Replicas
    checkpoints: JobCheckpoints
    rendezvous: Rendezvous
    control: ControlFolder
    stop: StopSignal
    chronicle: Chronicle
    attempt: int
    plan: str
    accumulation_steps: int
    save_tensors: Callable[[str], None]


class Trainer:
    """Trains from where the state stands to the last step, a stop, or a failure."""

    def __init__(self, given: Parts, progress: Progress) -> None:
        self._given = given
        self.progress = progress
        spec = given.spec
        self._order = SampleOrder(
            samples=given.samples.count,
            global_batch_size=spec.global_batch_size,
            seed=spec.seed,
        )
        self._schedule = Schedule(spec.learning_rate, spec.warmup_steps, spec.steps)
        self._saved_at = time.monotonic()

    def run(self) -> str:
        """Train; returns the outcome. The final state is committed before it returns."""
        given, progress = self._given, self.progress
        first = True
        while progress.step < given.spec.steps:
            stop, save = self._step()
            if first:
                given.chronicle.say(f"first step done: step {progress.step}")
                first = False
            done = progress.step == given.spec.steps
            if done or stop or save or progress.step % given.spec.every_steps == 0:
                self._save()
            if stop and not done:
                return STOPPED
        return SUCCEEDED

    def _step(self) -> tuple[bool, bool]:
        """One optimizer step; returns what the ranks wish: to stop, to save."""
        given, progress = self._given, self.progress
        began = time.monotonic()
        step = progress.step + 1
        given.flat.gradients.zero_()
        mine = parts(self._order.of_step(step), given.replicas.count)[given.replicas.rank]
        loss = torch.zeros((), device=given.flat.device)
        for chunk in parts(mine, given.accumulation_steps):
            if len(chunk):
                loss += self._backward(chunk)
        tail = given.flat.tail
        tail[_LOSS] = loss
        tail[_STOP] = float(given.stop.asked())
        tail[_SAVE] = float(self._save_is_due(began))
        numbers = given.replicas.add_up(given.flat.gradients, tail)
        if not math.isfinite(numbers[_LOSS]):
            raise WorkloadError(
                RANK_FAILED,
                f"the loss of step {step} is {numbers[_LOSS]}: training has come apart; lower the "
                "learningRate or give it more warmupSteps",
            )
        given.flat.update(self._schedule.rate(step), given.spec.weight_decay)
        progress.step = step
        progress.loss = numbers[_LOSS]
        progress.step_seconds = time.monotonic() - began
        self._tell()
        return numbers[_STOP] > 0, numbers[_SAVE] > 0

    def _backward(self, chunk: torch.Tensor) -> torch.Tensor:
        """Add a micro-batch's share of the gradients; returns its share of the mean loss."""
        given = self._given
        inputs, targets = given.samples.batch(chunk)
        if given.flat.device.type == "cuda":
            inputs = inputs.to(given.flat.device, non_blocking=True)
            targets = targets.to(given.flat.device, non_blocking=True)
        with torch.autocast(
            given.flat.device.type, dtype=torch.bfloat16, enabled=given.spec.precision == "bf16"
        ):
            # Divided by the global batch: summed over chunks and ranks it is the global mean.
            loss: torch.Tensor = given.flat.model.loss_sum(inputs, targets)  # type: ignore[operator]
            loss = loss / given.spec.global_batch_size
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _save_is_due(self, now: float) -> bool:
        given = self._given
        limit = given.spec.every_seconds
        # Clocks differ, so rank 0 alone says when.
        return given.replicas.rank == 0 and limit > 0 and now - self._saved_at >= limit

    def _tell(self) -> None:
        if self._given.replicas.rank == 0:
            self._given.control.progress(
                step=self.progress.step,
                loss=self.progress.loss,
                step_seconds=self.progress.step_seconds,
                checkpoint_step=self.progress.checkpoint_step,
            )

    def _save(self) -> None:
        """Commit the state of this step. Rank 0 writes; all ranks end alike if it cannot."""
        given, progress = self._given, self.progress
        key = f"checkpoint/{progress.step}"
        if given.replicas.rank == 0:
            try:
                self._write()
            except WorkloadError as error:
                given.rendezvous.put(key, [error.code, error.message])
                raise
            if given.replicas.count > 1:
                given.rendezvous.put(key, None)
        else:
            refused = given.rendezvous.outcome(key, _SAVE_LIMIT_SECONDS)
            if refused is not None:
                raise WorkloadError(str(refused[0]), str(refused[1]))
        progress.checkpoint_step = progress.step
        self._saved_at = time.monotonic()
        self._tell()

    def _write(self) -> None:
        given, progress = self._given, self.progress
        began = time.monotonic()
        store = given.checkpoints
        store.check_claim(given.attempt)
        folder = store.draft_folder(progress.step, given.attempt)
        given.save_tensors(folder)
        try:
            store.commit(
                Marker(
                    step=progress.step,
                    attempt=given.attempt,
                    plan=given.plan,
                    loss=progress.loss,
                    data_fingerprint=given.samples.fingerprint,
                    training=given.spec.fixed(),
                    folder=folder.rpartition("/")[2],
                )
            )
            store.keep_newest(given.spec.keep)
        except OSError as error:
            what = "has no room" if no_room(error) else "cannot be written"
            raise WorkloadError(
                CHECKPOINT_FAILED,
                f"the checkpoint of step {progress.step} was not committed: {store.storage.name} "
                f"{what}: {error}. Earlier checkpoints are untouched",
            ) from error
        seconds = time.monotonic() - began
        given.chronicle.say(f"checkpoint of step {progress.step} committed in {seconds:.2f} s")
