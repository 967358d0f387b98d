"""The training loop of one rank."""

import contextlib
import gc
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from headrace.api.plan import ExecutionPlan
from headrace.workloads.control import (
    STOPPED,
    SUCCEEDED,
    Chronicle,
    ControlFolder,
    StopSignal,
)
from headrace.workloads.pace import SAVE_SECONDS, SWITCH_SECONDS, Pace
from headrace.workloads.refusal import LOSS_NOT_FINITE, WorkloadError
from headrace.workloads.rendezvous import RankGoneError, Rendezvous
from headrace.workloads.training.batches import Batch, on_device
from headrace.workloads.training.blueprint import Blueprint
from headrace.workloads.training.observing import Observer
from headrace.workloads.training.optimiser import Schedule
from headrace.workloads.training.order import SampleOrder
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import Samples
from headrace.workloads.training.saving import Saver
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.switching import Breakdown, switched
from headrace.workloads.training.world import World, lost_contact

_PLAN_LIMIT_SECONDS = 60.0
_COLLECT_STEPS = 50


@dataclass(slots=True)
class Progress:
    """How far this rank has come.

    Attributes:
        step: Steps done.
        loss: Loss of the last step; None before the first.
        checkpoint_step: Step of the newest checkpoint of this job, as rank 0 last told.
        step_seconds: Time of the last step.
    """

    step: int = 0
    loss: float | None = None
    checkpoint_step: int = 0
    step_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the ranks want of each other after a step; equal on all of them.

    Attributes:
        stop: Save and end.
        save: Save and go on.
        switch: Go on under another plan.
    """

    stop: bool
    save: bool
    switch: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with, plugged together by ``run``."""

    spec: TrainingSpec
    samples: Samples
    world: World
    saver: Saver
    rendezvous: Rendezvous
    control: ControlFolder
    stop: StopSignal
    chronicle: Chronicle
    pace: Pace


@dataclass(slots=True)
class Change:
    """A change of plan on the way.

    Attributes:
        before: The plan that was left.
        after: The plan that was taken up.
        step: Last step under the plan that was left.
        took: Where the time went between the two.
        first_step_seconds: Time of the first step after it; None before it is done.
    """

    before: str
    after: str
    step: int
    took: Breakdown
    first_step_seconds: float | None = None

    def told(self, usual_step_seconds: float) -> dict[str, object]:
        """For the agent: the breakdown, and for how long training stood still.

        Args:
            usual_step_seconds: Time of a later step under the new plan.
        """
        first = self.first_step_seconds or 0.0
        still = self.took.seconds + max(0.0, first - usual_step_seconds)
        seconds = {**asdict(self.took), "first_step": first, "stood_still": still}
        return {
            "from": self.before,
            "to": self.after,
            "step": self.step,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }


class Wish:
    """The plan that the agent asks for, as rank 0 sees it.

    Attributes:
        plan: What was asked for and is possible; None if nothing was.
    """

    def __init__(self, given: Parts, blueprint: Blueprint) -> None:
        self.plan: ExecutionPlan | None = None
        self._given = given
        self._blueprint = blueprint
        self._text = ""

    def look(self, current: ExecutionPlan) -> bool:
        """Whether another plan than the current one is asked for."""
        given = self._given
        if given.world.rank != 0:
            return False
        text = given.control.wanted_plan()
        if text != self._text:
            self._text = text
            self.plan = self._read(text) if text else None
        return self.plan is not None and self.plan != current

    def _read(self, text: str) -> ExecutionPlan | None:
        given = self._given
        try:
            plan = ExecutionPlan.parse(text)
            if plan.ranks != given.world.size:
                raise ValueError(
                    f"plan {text} is for {plan.ranks} ranks, but there are {given.world.size}"
                )
            problem = self._blueprint.problem_with(plan, given.spec.global_batch_size)
            if problem:
                raise ValueError(f"plan {text}: {problem}")
        except ValueError as error:
            # Training goes on as it was: a wish is no reason to lose work.
            given.chronicle.say(f"no change of plan: {error}")
            given.control.changed({"to": text, "refused": str(error)})
            return None
        return plan


@contextlib.contextmanager
def _collecting_by_hand() -> Iterator[None]:
    """Without pauses of Python's collector at moments of its own, at which other ranks would wait.

    As torchtitan does; a step makes hardly any garbage in cycles.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Trainer:
    """Trains from where the state stands to the last step, a stop, or a failure.

    Attributes:
        model: This rank's part of the model; another object after each change of plan.
        progress: How far it has come.
    """

    def __init__(self, given: Parts, model: PlannedModel, progress: Progress) -> None:
        self._given = given
        self.model = model
        self.progress = progress
        self._wish = Wish(given, model.blueprint)
        self._change: Change | None = None
        self._observer = Observer(given.world, given.control)
        self._prepared: tuple[int, ExecutionPlan, tuple[Batch, Batch]] | None = None
        spec = given.spec
        self._order = SampleOrder(
            samples=given.samples.count,
            global_batch_size=spec.global_batch_size,
            seed=spec.seed,
        )
        self._schedule = Schedule(spec.learning_rate, spec.warmup_steps, spec.steps)
        self._saved_at = time.monotonic()

    def run(self) -> str:
        """Train; returns the outcome. The final state is committed before it returns.

        Raises:
            RankGoneError: Another rank cannot be reached any more.
        """
        try:
            with _collecting_by_hand():
                return self._run()
        except RuntimeError as error:
            if lost_contact(error):
                raise RankGoneError(str(error)) from error
            raise

    def _run(self) -> str:
        given, progress = self._given, self.progress
        first = True
        while progress.step < given.spec.steps:
            wishes = self._step()
            if progress.step % _COLLECT_STEPS == 0:
                gc.collect(1)
            if first:
                given.chronicle.say(f"first step done: step {progress.step}")
                first = False
            with given.pace.during("saving", SAVE_SECONDS):
                given.saver.look()
            done = progress.step == given.spec.steps
            if done or wishes.stop or wishes.save or progress.step % given.spec.every_steps == 0:
                with given.pace.during("saving", SAVE_SECONDS):
                    given.saver.begin(self.model, progress.loss)
                self._saved_at = time.monotonic()
            if done or wishes.stop:
                with given.pace.during("saving", SAVE_SECONDS):
                    given.saver.finish()
            self._tell_commit()
            if wishes.stop and not done:
                return STOPPED
            if wishes.switch and not done:
                self._switch()
        return SUCCEEDED

    def _step(self) -> Wishes:
        """One optimizer step; returns what the ranks wish."""
        given, progress = self._given, self.progress
        began = time.monotonic()
        step = progress.step + 1
        given.pace.step_begins(step)
        self._observer.before(self.model, step)
        loss = self.model.gradients(*self._batch_of(step))
        wanted = self._wish.look(self.model.plan)
        told = given.world.summed([loss, given.stop.asked(), self._save_is_due(began), wanted])
        # All of it is on its way to the GPU before anything waits for it.
        self.model.update(self._schedule.rate(step))
        if step < given.spec.steps:
            self._prepare(step + 1)
        mean, stop, save, switch = told.tolist()
        self._observer.look()
        if not math.isfinite(mean):
            raise WorkloadError(
                LOSS_NOT_FINITE,
                f"the loss of step {step} is {mean}: training has come apart; lower the "
                f"learningRate or give it more warmupSteps.{given.saver.doubted()}",
            )
        progress.step = step
        progress.loss = mean
        progress.step_seconds = time.monotonic() - began
        given.pace.step_ended()
        self._observer.after(step, progress.step_seconds)
        self._tell()
        self._tell_change()
        return Wishes(stop > 0, save > 0, switch > 0)

    def _batch_of(self, step: int) -> tuple[Batch, Batch]:
        """This replica's inputs and targets of a step; prepared, unless the plan has changed."""
        if self._prepared is None or self._prepared[:2] != (step, self.model.plan):
            self._prepare(step)
        assert self._prepared is not None
        return self._prepared[2]

    def _prepare(self, step: int) -> None:
        given = self._given
        inputs, targets = given.samples.batch(self.model.mine(self._order.of_step(step)))
        device = given.world.device
        placed = (on_device(inputs, device), on_device(targets, device))
        self._prepared = (step, self.model.plan, placed)

    def _save_is_due(self, now: float) -> bool:
        limit = self._given.spec.every_seconds
        # Clocks differ, so rank 0 alone says when.
        return self._given.world.rank == 0 and limit > 0 and now - self._saved_at >= limit

    def _tell_commit(self) -> None:
        if self.progress.checkpoint_step != self._given.saver.committed_step:
            self._tell()

    def _tell(self) -> None:
        self.progress.checkpoint_step = self._given.saver.committed_step
        if self._given.world.rank == 0:
            self._given.control.progress(
                step=self.progress.step,
                loss=self.progress.loss,
                step_seconds=self.progress.step_seconds,
                checkpoint_step=self.progress.checkpoint_step,
            )

    # -- changing the plan ----------------------------------------------------------------

    def _switch(self) -> None:
        """Go on under the plan that rank 0 was asked for, without leaving the process."""
        given = self._given
        key = f"plan/{self.progress.step}"
        if given.world.rank == 0:
            given.rendezvous.put(key, str(self._wish.plan or self.model.plan))
        plan = ExecutionPlan.parse(given.rendezvous.outcome(key, _PLAN_LIMIT_SECONDS))
        before = self.model.plan
        given.pace.begin_anew()
        with given.pace.during("changing the plan", SWITCH_SECONDS):
            self.model, took = switched(self.model, plan)
        self._change = Change(str(before), str(plan), self.progress.step, took)
        given.chronicle.say(
            f"changed from {before} to {plan} after step {self.progress.step} in "
            f"{took.seconds:.2f} s"
        )

    def _tell_change(self) -> None:
        """Say what a change cost, once a second step shows how long a step takes now."""
        change = self._change
        if change is None:
            return
        if change.first_step_seconds is None:
            change.first_step_seconds = self.progress.step_seconds
            return
        self._change = None
        if self._given.world.rank == 0:
            self._given.control.changed(change.told(self.progress.step_seconds))
