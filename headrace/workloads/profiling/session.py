"""A list of plans, one after the other, within a time; failures are rows too.

After an error the ranks may be in the middle of a collective, from which there is no way back in
the process. So a rank that fails appends its row and ends; torchrun starts all ranks anew, and they
go on behind what the file has. A rank that is alone goes on without a restart.
"""

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headrace.api.feasible_plans import infeasible
from headrace.api.memory import GIB, PeakMemory, estimated_peak_bytes
from headrace.api.models import ModelShape
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_file import rows_in
from headrace.api.profile_rows import (
    RETRIED,
    Asked,
    LinkRow,
    PlanRow,
    Row,
    Status,
    flat,
    with_rates,
)
from headrace.workloads.machine import free_host_bytes, this_machine
from headrace.workloads.profiling.links import measured_links
from headrace.workloads.profiling.measuring import Length, Measuring, TimeIsOverError
from headrace.workloads.refusal import OUT_OF_MEMORY, reason_of
from headrace.workloads.training.families.build import FamilyBlueprint
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.switching import Breakdown, fill_initial, switched
from headrace.workloads.training.world import World, lost_contact

if TYPE_CHECKING:
    from torch.distributed import Store

SEED = 1
_STUCK_SECONDS = 180.0
_REASON_CHARACTERS = 300
NO_PLAN = "-"


def plan_begun(board: "Store") -> str:
    """The plan on which the ranks work, or worked when they ended."""
    return board.get("begun").decode() if board.check(["begun"]) else NO_PLAN


class StartAnewError(Exception):
    """The ranks must be started again to go on."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is measured.

    Attributes:
        shape: The model, with the sequence length that was asked for.
        plans: In this order.
        file: Where rows are appended.
    """

    asked: Asked
    shape: ModelShape
    plans: Sequence[ExecutionPlan]
    length: Length
    file: Path


class Clock:
    """Seconds that are left; rank 0 asks it for all."""

    def __init__(self, since_start: Callable[[], float], seconds: float) -> None:
        self._since_start, self._seconds = since_start, seconds

    def left(self) -> float:
        """Seconds until the time is over."""
        return self._seconds - self._since_start()


class _Watch:
    """Calls when nothing has moved for too long, from a thread of its own."""

    def __init__(self, give_up: Callable[[ExecutionPlan], None]) -> None:
        self._give_up = give_up
        self._moved = 0.0

    def has_moved(self) -> None:
        """The time counts from now."""
        self._moved = time.monotonic()

    @contextmanager
    def over(self, plan: ExecutionPlan) -> Iterator[None]:
        """Watch what happens inside, which works on a plan."""
        self.has_moved()
        is_done = threading.Event()

        def watch() -> None:
            while not is_done.wait(max(0.0, self._moved + _STUCK_SECONDS - time.monotonic())):
                if time.monotonic() > self._moved + _STUCK_SECONDS:
                    self._give_up(plan)
                    return

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            is_done.set()


class Session:
    """One life of the ranks.

    Args:
        task: What is measured.
        world: The ranks.
        board: Where ranks leave word that outlives a restart.
        batch: Inputs and targets of a global batch.
        clock: Seconds that are left.
    """

    def __init__(
        self,
        task: Task,
        world: World,
        board: "Store",
        batch: tuple[Tensor, Tensor],
        clock: Clock,
    ) -> None:
        self._task, self._world, self._board, self._clock = task, world, board, clock
        self._machine = this_machine(world.device)
        self._watch = _Watch(self._give_up)
        self._measuring = Measuring(world, batch, lambda: clock.left() <= 0, self._watch.has_moved)
        self._host_bytes = free_host_bytes()
        self._model: PlannedModel | None = None
        self._longest = 0.0

    def run(self) -> None:
        """Measure what the file does not have yet.

        Raises:
            StartAnewError: A plan failed, and the ranks with it.
        """
        if self._world.rank == 0:
            self._blame_who_began()
        known = self._world.gathered(self._known())[0]
        if not known["links"]:
            self._measure_links()
        # What an earlier life could not change to is begun from the seed.
        again: set[str] = set(known["again"])
        plans = [plan for plan in self._task.plans if str(plan) not in known["done"]]
        plans.sort(key=lambda plan: str(plan) not in again)
        for index, plan in enumerate(plans):
            if self._time_is_over():
                self._leave_out(plans[index:])
                break
            self._plan(plan, is_fresh=str(plan) in again)
        self._board.set("begun", NO_PLAN)

    def _known(self) -> dict[str, Any]:
        if self._world.rank != 0:
            return {}
        rows = rows_in(self._task.file)
        mine = [row for row in rows if isinstance(row, PlanRow) and row.asked == self._task.asked]
        return {
            "done": [row.plan for row in mine if row.status not in RETRIED],
            "again": [row.plan for row in mine if row.status is Status.SWITCH_FAILED],
            "links": any(
                isinstance(row, LinkRow)
                and row.accelerators == self._world.size
                and row.machine.device == self._machine.device
                for row in rows
            ),
        }

    def _blame_who_began(self) -> None:
        """A plan that was begun by ranks that ended without a word."""
        begun = plan_begun(self._board)
        if begun != NO_PLAN and begun not in self._known()["done"] + self._known()["again"]:
            heard = self._board.get("heard").decode() if self._board.check(["heard"]) else ""
            reason = "a rank ended without a word, as when the kernel kills it for host memory"
            reason = f"{reason}; another one: {heard}" if heard else reason
            reason = reason[:_REASON_CHARACTERS]
            self._append(self._row(begun, Status.FAILED, reason=reason))
        self._board.set("begun", NO_PLAN)

    def _measure_links(self) -> None:
        for link, size, seconds, bandwidth in measured_links(self._world):
            if self._world.rank == 0:
                row = LinkRow(
                    link, self._world.size, size, seconds, bandwidth, self._machine, _now()
                )
                self._append(row)
                _say(f"{link}: {bandwidth / 1e9:.1f} GB/s")

    def _time_is_over(self) -> bool:
        # What took the longest so far may come again.
        return bool(self._world.gathered(self._clock.left() < self._longest)[0])

    def _leave_out(self, plans: Sequence[ExecutionPlan], reason: str = "the time was over") -> None:
        if self._world.rank == 0:
            for plan in plans:
                self._append(self._row(str(plan), Status.NOT_MEASURED, reason=reason))
            _say(f"{reason}: {len(plans)} not measured")

    # -- one plan ---------------------------------------------------------------------------

    def _plan(self, plan: ExecutionPlan, *, is_fresh: bool) -> None:
        refused = self._world.gathered(self._refusal(plan))[0]
        if refused:
            if self._world.rank == 0:
                self._append(self._row(str(plan), Status.INFEASIBLE, reason=refused))
                _say(f"{plan}: {refused}")
            return
        began = self._clock.left()
        if self._world.rank == 0:
            self._board.set("begun", str(plan))
        with self._watch.over(plan):
            is_measured = self._attempt(plan, is_fresh=is_fresh)
        self._longest = max(self._longest, began - self._clock.left())
        if not is_measured:
            self._plan(plan, is_fresh=True)

    def _attempt(self, plan: ExecutionPlan, *, is_fresh: bool) -> bool:
        """Whether a row was written; else the change to the plan failed, and it is begun anew."""
        in_switch = False
        try:
            if is_fresh or not self._has_room_to_change(plan):
                self._discard()
            in_switch = self._model is not None
            took = self._enter(plan)
            in_switch = False
            assert self._model is not None
            figures = self._measuring.of(self._model, self._task.length)
        except TimeIsOverError:
            self._leave_out([plan], f"the time was over in {plan}; more --seconds would help")
            return True
        except Exception as error:
            self._tell(plan, error, in_switch=in_switch)
            if self._world.size > 1:  # the others may not have failed
                raise StartAnewError(str(plan)) from error
        else:
            if self._world.rank == 0:
                row = self._measured(plan, figures, took)
                self._append(row)
                _say(_told(row))
            return True
        # Not before the error is gone, whose frames hold on to tensors.
        self._discard()
        return not in_switch

    def _enter(self, plan: ExecutionPlan) -> Breakdown | None:
        """Change to the plan, or begin with it."""
        if self._model is not None:
            model, self._model = self._model, None
            self._model, took = switched(model, plan)
            return took
        self._model = PlannedModel(
            FamilyBlueprint(self._task.shape),
            plan,
            self._world,
            precision=self._task.asked.precision,
            global_batch_size=self._task.asked.global_batch,
            weight_decay=0.01,
        )
        fill_initial(self._model, SEED)
        return None

    def _discard(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.retire()
            del model
        gc.collect()
        self._measuring.memory.reset()

    def _tell(self, plan: ExecutionPlan, error: Exception, *, in_switch: bool) -> None:
        """Leave word of a failure; one to change to the plan is no failure of the plan."""
        code, message = reason_of(error)
        status = Status.OUT_OF_MEMORY if code == OUT_OF_MEMORY else Status.FAILED
        if in_switch:
            status = Status.SWITCH_FAILED
        last = message.strip().splitlines()[-1][:_REASON_CHARACTERS]
        if not lost_contact(error):
            self._tell_failure(plan, status, last)
        else:
            self._board.set("heard", last)  # whoever was lost may know better

    def _tell_failure(self, plan: ExecutionPlan, status: Status, reason: str) -> None:
        """The first rank that fails tells for all."""
        mine = str(self._world.rank)
        first = self._board.compare_set(f"failed/{plan}/{status}", "", mine).decode()
        if first == mine:
            self._append(self._row(str(plan), status, reason=reason))
            _say(f"{plan}: {status}: {reason}")

    def _give_up(self, plan: ExecutionPlan) -> None:
        """Nothing moves any more; only a restart helps."""
        with suppress(Exception):
            reason = f"nothing moved for {_STUCK_SECONDS:.0f} s"
            self._tell_failure(plan, Status.FAILED, reason)
        os._exit(1)

    # -- what is possible -------------------------------------------------------------------

    def _refusal(self, plan: ExecutionPlan) -> str:
        """Why it makes no sense to try; empty if it does."""
        task = self._task
        if plan.ranks > self._world.size:
            return f"wanted {plan.ranks} accelerators, got {self._world.size}"
        found = infeasible(task.shape, plan, global_batch_size=task.asked.global_batch)
        if found is not None:
            return found.message
        needed = self._needed(plan)
        lasting = needed.states + needed.gradients
        if self._world.device.type == "cuda":
            there = torch.cuda.get_device_properties(self._world.device).total_memory
            if lasting > there:
                return (
                    f"weights, gradients and moments alone take {lasting / GIB:.1f} GiB of "
                    f"{there / GIB:.1f} GiB"
                )
            # What the allocator adds is left out: it may come out lower.
            least = needed.accelerator_bytes - needed.reserved
            if least > there:
                return f"takes about {least / GIB:.1f} GiB of {there / GIB:.1f} GiB"
        on_host, free = needed.host_bytes * plan.ranks, self._host_bytes
        if plan.offload and on_host > free:
            return f"takes {on_host / GIB:.1f} GiB of {free / GIB:.1f} GiB of free host memory"
        return ""

    def _has_room_to_change(self, plan: ExecutionPlan) -> bool:
        """Whether host memory holds two states: that of a plan with offload is freed at the end."""
        if self._model is None or not (plan.offload and self._model.plan.offload):
            return True
        both = [self._needed(each).host_bytes * each.ranks for each in (plan, self._model.plan)]
        return sum(both) <= self._host_bytes

    def _needed(self, plan: ExecutionPlan) -> PeakMemory:
        asked = self._task.asked
        return estimated_peak_bytes(
            self._task.shape, plan, asked.global_batch, precision=asked.precision
        )

    # -- rows -------------------------------------------------------------------------------

    def _row(self, plan: str, status: Status, *, reason: str = "") -> PlanRow:
        ranks = ExecutionPlan.parse(plan).ranks
        return PlanRow(
            self._task.asked,
            plan,
            status,
            placement=str(ranks),
            reason=reason,
            parameters=self._task.shape.parameters,
            machine=self._machine,
            date=_now(),
        )

    def _measured(
        self, plan: ExecutionPlan, figures: dict[str, Any], took: Breakdown | None
    ) -> PlanRow:
        first, iteration = figures.pop("first_step"), figures["iteration"]
        measured = replace(self._row(str(plan), Status.MEASURED), **figures)
        row = with_rates(measured, self._task.shape)
        if took is None:
            return row
        parts: dict[str, Any] = {f"switch_{name}": seconds for name, seconds in took.told().items()}
        return replace(row, **parts, stood_still=took.seconds + max(0.0, first - iteration))

    def _append(self, row: Row) -> None:
        """One write, so that ranks never mix their lines."""
        descriptor = os.open(self._task.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, json.dumps(flat(row)).encode() + b"\n")
        finally:
            os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _told(row: PlanRow) -> str:
    assert row.iteration is not None
    switch = f", switch {row.switch:.2f} s" if row.switch is not None else ""
    peak = f", peak {row.peak_process / GIB:.2f} GiB" if row.peak_process else ""
    return (
        f"{row.plan}: {1000 * row.iteration:.1f} ms, {row.tokens_rate:.0f} tokens/s{peak}{switch}"
    )
