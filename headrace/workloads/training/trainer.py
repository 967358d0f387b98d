"""The training loop of one rank."""

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked
from headrace.workloads.control import STOPPED, SUCCEEDED
from headrace.workloads.machine import Memory
from headrace.workloads.pace import SAVE_SECONDS, SWITCH_SECONDS
from headrace.workloads.refusal import LOSS_NOT_FINITE, WorkloadError
from headrace.workloads.training.batches import Batch, on_device
from headrace.workloads.training.observing import Observer
from headrace.workloads.training.optimiser import Schedule
from headrace.workloads.training.order import SampleOrder
from headrace.workloads.training.parts import Parts
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.stopwatch import Moment
from headrace.workloads.training.switching import Breakdown, resettled, switched
from headrace.workloads.training.wish import Wish
from headrace.workloads.training.world import Sums, meeting

RESIZING = "changing the number of ranks"

_COLLECT_STEPS = 50

_STEPS_AFTER_CHANGE = 4
"""So many are waited for before a change is told: one that bears its cost, and some that do not."""


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

    stop: bool = False
    save: bool = False
    switch: bool = False

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.stop or self.save or self.switch


@dataclass(frozen=True, slots=True)
class _Sent:
    """A step that the device was given, and may not have done.

    Attributes:
        step: Its number.
        since: When it could begin.
        told: Its loss and what the ranks wish, summed over them.
    """

    step: int
    since: Moment
    told: Sums


@dataclass(slots=True)
class Change:
    """A change of plan on the way.

    Attributes:
        before: The plan that was left.
        after: The plan that was taken up.
        step: Last step under the plan that was left.
        took: Where the time went between the two.
        prepare_seconds: How long newcomers took to be ready, while training went on.
        steps: Seconds of the steps after it.
    """

    before: str
    after: str
    step: int
    took: Breakdown
    prepare_seconds: float = 0.0
    steps: list[float] = field(default_factory=list)

    def told(self) -> dict[str, object]:
        """For the agent: the breakdown, and for how long training stood still, by how much longer
        than the later steps the first one was included. Nobody knows if there were none.
        """
        first = self.steps[0] if self.steps else 0.0
        usual = statistics.median(self.steps[1:]) if len(self.steps) > 1 else first
        still = self.took.seconds + max(0.0, first - usual)
        prepare = {"prepare": self.prepare_seconds} if self.prepare_seconds else {}
        seconds = {**prepare, **self.took.told(), "first_step": first, "stood_still": still}
        return {
            "from": self.before,
            "to": self.after,
            "step": self.step,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }


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


def _asked(given: Parts) -> Asked:
    """What is trained, as far as ranks know: what the model is called is not their business."""
    spec = given.spec
    return Asked("", 0, spec.global_batch_size, given.sequence_length, spec.precision)


class Trainer:
    """Trains from where the state stands to the last step, a stop, or a failure.

    Attributes:
        model: This rank's part of the model; another object after each change of plan.
        progress: How far it has come.
        left_to: Number of ranks to which this one left the training; None if it did not.
    """

    def __init__(self, given: Parts, model: PlannedModel, progress: Progress) -> None:
        self._given = given
        self.model = model
        self.progress = progress
        self._wish = Wish(given, model.blueprint)
        self.left_to: int | None = None
        self._change: Change | None = None
        self._sent: _Sent | None = None
        self._observer = Observer(given.control, _asked(given), Memory(model.world.device))
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
        """Train; returns the outcome. The final state is committed before it returns."""
        try:
            with _collecting_by_hand():
                return self._run()
        finally:
            self._wish.close()

    def _run(self) -> str:
        given, progress = self._given, self.progress
        first, start = True, progress.step
        while progress.step < given.spec.steps:
            wishes = self._step()
            if progress.step % _COLLECT_STEPS == 0:
                gc.collect(1)
            if first and progress.step > start:
                given.chronicle.say(f"first step done: step {progress.step}")
                first = False
            with given.watch.pace.during("saving", SAVE_SECONDS):
                given.saver.look()
            if wishes is None:
                self._tell_commit()
                continue
            done = progress.step == given.spec.steps
            if done or wishes.stop or wishes.switch:
                self._tell_change()  # with what is known of it: no later step will tell more
            if done:
                self._check_last_update()
            if done or wishes.stop or wishes.save or progress.step % given.spec.every_steps == 0:
                with given.watch.pace.during("saving", SAVE_SECONDS):
                    given.saver.begin(self.model, progress.loss)
                self._saved_at = time.monotonic()
            if done or wishes.stop:
                with given.watch.pace.during("saving", SAVE_SECONDS):
                    given.saver.finish()
            self._tell_commit()
            if wishes.stop and not done:
                return STOPPED
            if wishes.switch and not done:
                self._switch()
            if self.left_to is not None:
                return STOPPED
        return SUCCEEDED

    def _step(self) -> Wishes | None:
        """One optimizer step; returns what the ranks wish, None if a step is still on its way.

        A GPU has the next step already when the loss of the one before is looked at, as its work
        would have to wait for the CPU otherwise. Before they stop, save or change, ranks hear of
        all steps; they do it a step later than they wished to.
        """
        given, before = self._given, self._sent
        self._sent = sent = self._send((before.step if before else self.progress.step) + 1, before)
        wishes = self._hear(before) if before else Wishes()
        if before or not self.model.world.runs_ahead:
            given.watch.pace.step_ended()
        due = sent.step == given.spec.steps or sent.step % given.spec.every_steps == 0
        if not (wishes.any or due) and self.model.world.runs_ahead:
            return None
        self._sent = None
        return self._hear(sent)

    def _send(self, step: int, before: "_Sent | None") -> "_Sent":
        """Give the device a step, and bring the next one's batch."""
        given, began = self._given, time.monotonic()
        given.watch.pace.step_begins(step)
        given.control.step_begun = step
        since = before.told.moment if before else Moment(self.model.world.device)
        self._observer.before(self.model, step)
        loss = self.model.gradients(*self._batch_of(step))
        save_due = self._save_is_due(began)
        busy = given.saver.is_busy or save_due or step % given.spec.every_steps == 0
        wanted = self._wish.look(self.model, step, nothing_saved=not busy)
        told = self.model.world.summed([loss, given.stop.asked(), save_due, wanted])
        # All of it is on its way to the GPU before anything waits for it.
        self.model.update(self._schedule.rate(step))
        if step < given.spec.steps:
            self._prepare(step + 1)
        return _Sent(step, since, told)

    def _hear(self, sent: "_Sent") -> Wishes:
        """Wait for a step's loss, and tell of it."""
        progress = self.progress
        mean, stop, save, switch = sent.told.tolist()
        self._observer.look()
        if not math.isfinite(mean):
            raise WorkloadError(
                LOSS_NOT_FINITE,
                f"the loss of step {sent.step} is {mean}: training has come apart; lower the "
                f"learningRate or give it more warmupSteps.{self._given.saver.doubted()}",
            )
        progress.step, progress.loss = sent.step, mean
        progress.step_seconds = sent.told.moment.since(sent.since)
        self._observer.after(progress.step_seconds)
        self._tell()
        if self._change is not None:
            self._change.steps.append(progress.step_seconds)
            if len(self._change.steps) == _STEPS_AFTER_CHANGE:
                self._tell_change()
        return Wishes(stop > 0, save > 0, switch > 0)

    def _check_last_update(self) -> None:
        """See that the state is finite, which no loss will tell any more."""
        (total,) = self.model.world.summed([self.model.sum_of_state()]).tolist()
        if not math.isfinite(total):
            raise WorkloadError(
                LOSS_NOT_FINITE,
                f"after the last step, {self.progress.step}, weights or moments are not finite, "
                "although its loss was: training has come apart; lower the learningRate or give "
                f"it more warmupSteps.{self._given.saver.doubted()}",
            )

    def _batch_of(self, step: int) -> tuple[Batch, Batch]:
        """This replica's inputs and targets of a step; prepared, unless the plan has changed."""
        if self._prepared is None or self._prepared[:2] != (step, self.model.plan):
            self._prepare(step)
        assert self._prepared is not None
        return self._prepared[2]

    def _prepare(self, step: int) -> None:
        given = self._given
        given.control.step_begun = step
        inputs, targets = given.samples.batch(self.model.mine(self._order.of_step(step)))
        device = self.model.world.device
        placed = (on_device(inputs, device), on_device(targets, device))
        self._prepared = (step, self.model.plan, placed)

    def _save_is_due(self, now: float) -> bool:
        limit = self._given.spec.every_seconds
        # Clocks differ, so rank 0 alone says when.
        return self.model.world.rank == 0 and limit > 0 and now - self._saved_at >= limit

    def _tell_commit(self) -> None:
        if self.progress.checkpoint_step != self._given.saver.committed_step:
            self._tell()

    def _tell(self) -> None:
        self.progress.checkpoint_step = self._given.saver.committed_step
        if self.model.world.rank == 0:
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
        if self.model.world.rank == 0:
            given.rendezvous.put(key, str(self._wish.plan or self.model.plan))
        # Rank 0 may still be committing a checkpoint.
        plan = ExecutionPlan.parse(given.rendezvous.outcome(key, SAVE_SECONDS))
        before = self.model.plan
        if plan == before:
            return
        stays = plan.ranks == self.model.world.size and not self.model.world.is_worn
        settle = 0.0 if stays else self._settled(key)
        if not self._all_go(plan, key):
            return
        given.watch.pace.begin_anew()
        if stays:
            with given.watch.pace.during("changing the plan", SWITCH_SECONDS):
                self.model, took = switched(self.model, plan)
        else:
            took = replace(self._resized(plan), settle=settle)
        prepare = self._wish.prepare_seconds
        self._change = Change(str(before), str(plan), self.progress.step, took, prepare)
        given.chronicle.say(
            f"changed from {before} to {plan} after step {self.progress.step} in "
            f"{took.seconds:.2f} s"
        )

    def _settled(self, key: str) -> float:
        """Commit what is being saved, on all ranks; returns the seconds that it took.

        Only then may newcomers be told to come: they do not wait for anybody for long.
        """
        given, began = self._given, time.monotonic()
        board, world = given.rendezvous, self.model.world
        with given.watch.pace.during("saving", SAVE_SECONDS):
            given.saver.settle()
            board.put(f"{key}/settled/{world.rank}", True)
            for rank in range(world.size) if world.rank == 0 else ():
                board.outcome(f"{key}/settled/{rank}", SAVE_SECONDS)
        return time.monotonic() - began

    def _all_go(self, plan: ExecutionPlan, key: str) -> bool:
        """Whether all go over now, newcomers included; rank 0 knows."""
        given, progress = self._given, self.progress
        if self.model.world.rank == 0:
            go = self._wish.taken_up(plan, progress.step, progress.loss)
            given.rendezvous.put(f"{key}/go", go)
        return bool(given.rendezvous.outcome(f"{key}/go", SAVE_SECONDS))

    def _resized(self, plan: ExecutionPlan) -> Breakdown:
        """Go over together with newcomers, or leave those that the plan has no use for.

        Ranks meet anew for that, unless all that are needed are together already.
        """
        given, step = self._given, self.progress.step
        with given.watch.pace.during(RESIZING, SWITCH_SECONDS, needs_all=True):
            world = self.model.world
            if plan.ranks > world.size or world.is_worn:
                self._meet(max(plan.ranks, world.size))
                self.model, took = resettled(
                    self.model, plan, meeting(given.rendezvous, step), given.try_together
                )
            else:
                self.model, took = switched(self.model, plan)
            if plan.ranks < self.model.world.size:
                took = self._leave_to(plan.ranks, took)
        return took

    def _meet(self, ranks: int) -> None:
        given = self._given
        given.watch.meet(str(self.progress.step), ranks)
        given.rendezvous.ranks = ranks

    def _leave_to(self, ranks: int, took: Breakdown) -> Breakdown:
        """Go on with the first ranks, of which this may be none."""
        given, began = self._given, time.monotonic()
        self.model.world.let_go(ranks)
        given.watch.part_from(ranks)
        given.rendezvous.ranks = ranks
        if given.rendezvous.rank >= ranks:
            self.left_to = ranks
        return replace(took, leave=took.leave + time.monotonic() - began)

    def _tell_change(self) -> None:
        """Say what the last change cost, if that was not said."""
        change, self._change = self._change, None
        if change is not None and self.model.world.rank == 0:
            self._given.control.changed(change.told())
