"""AntMan (OSDI 2020) without sharing: jobs with a guarantee run within their tenant's quota and
preempt those without; accelerators and plan are as requested.

1. Jobs with a guarantee, in order of arrival: who is within the quota starts; if too little is
   free, jobs without a guarantee are preempted, the one that started last first, and only if that
   helps. Who does not fit is passed over.
2. The others, those that ran before first, then in order of arrival, on what is free.

A job that is preempted keeps its progress. See ``AntMan.assumptions``.
"""

from dataclasses import dataclass

from controlplane.baselines.layouts import (
    Layout,
    as_requested,
    placed,
    under_the_plan_asked_for,
    unmeasured,
)
from controlplane.domain.ids import QueueName
from controlplane.domain.job import ServiceClass
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.record import Intent
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes
from controlplane.placing.capacity import Capacity, Holding
from controlplane.placing.standing import Standing, Standings, holding_of


@dataclass(frozen=True, slots=True)
class AntMan:
    """The policy.

    Attributes:
        step_times: Knows how jobs may lie; speeds are not compared.
        spreads: Whether a job goes to any nodes for which its step times are known, the fastest
            that are free first, instead of waiting for the fastest.
    """

    step_times: StepTimes
    spreads: bool = False

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed, to be printed with every result."""
        return (
            "AntMan: accelerators are not shared (no step times of jobs that share one are known, "
            "and here an accelerator has one holder)",
            "AntMan: jobs with a guarantee start in order of arrival within their queue's quota; "
            "they preempt best-effort jobs, the one that started last first, none without need",
            "AntMan: best-effort jobs that ran before come first, then in order of arrival; who "
            "does not fit is passed over; decides on events",
            "AntMan: plans and numbers of accelerators never change; a job "
            + (
                "takes the fastest measured shares that are free"
                if self.spreads
                else "waits for the fastest measured shares of its plan (one node, or whole nodes)"
            ),
        )

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        """Where each job should run."""
        return _Round(self, snapshot).decide()


@dataclass(frozen=True, slots=True)
class _Victim:
    """A best-effort job that runs and may be preempted."""

    standing: Standing
    placement: Placement
    holding: Holding


class _Round:
    """One decision in the making."""

    def __init__(self, policy: AntMan, snapshot: ClusterSnapshot) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.now = Standings(snapshot, under_the_plan_asked_for)
        self.left = Capacity(snapshot, without=snapshot.holders)
        self.victims: list[_Victim] = []
        self.promised: dict[QueueName, int] = {}
        self.stopping: list[Holding] = []

    def decide(self) -> Decision:
        guaranteed: list[Standing] = []
        others: list[Standing] = []
        for each in self.now.jobs:
            attempt = each.record.attempt
            if attempt is not None and attempt.intent is Intent.RUN and each.place is not None:
                self._runs(each, each.place)
            elif attempt is None:
                (guaranteed if _is_guaranteed(each) else others).append(each)
        self.victims.sort(key=_started_at)
        self.stopping = self._stopping()
        for each in guaranteed:
            self._place_promised(each)
        for victim in self.victims:
            self._stays_if_allowed(victim)
        for each in sorted(others, key=lambda one: one.record.first_started_at is None):
            self._place_rest(each)
        return Decision(self.now.targets, self.now.reasons)

    def _runs(self, each: Standing, place: Placement) -> None:
        holding = holding_of(self.snapshot, place)
        if holding is None or _is_guaranteed(each):
            self.now.keep(each.record, place)
            queue = each.record.job.spec.queue
            if _is_guaranteed(each):
                self.promised[queue] = self.promised.get(queue, 0) + place.accelerator_count
        else:
            self.victims.append(_Victim(each, place, holding))

    def _stays_if_allowed(self, victim: _Victim) -> None:
        """A best-effort job stays unless its queue's quota went to jobs with a guarantee."""
        record, count = victim.standing.record, victim.placement.accelerator_count
        queue = record.job.spec.queue
        if self.now.quotas.allows(queue, count):
            self.now.keep(record, victim.placement)
        else:
            left = self.now.quotas.left(queue) or 0
            self.now.reasons[record.uid] = self.now.waits.for_quota(record, count, left)

    def _stopping(self) -> list[Holding]:
        """What jobs hold that are being stopped: free soon, and so good for a promise."""
        found = []
        for record in self.snapshot.jobs.values():
            attempt = record.attempt
            if attempt is not None and record.uid not in self.now.targets:
                units = tuple(unit for unit in attempt.units if attempt.holds(unit.index))
                held = Placement(attempt.placement.plan, units)
                if all(victim.standing.uid != record.uid for victim in self.victims):
                    found.append(holding_of(self.snapshot, held))
        return [holding for holding in found if holding is not None]

    def _place_promised(self, each: Standing) -> None:
        record, spec = each.record, each.record.job.spec
        layouts = self._layouts(each)
        if not layouts:
            self.now.reasons[each.uid] = unmeasured(spec)
            return
        wanted, whole = layouts[0].accelerators, self.now.quotas.whole(spec.queue)
        promised = self.promised.get(spec.queue, 0)
        if whole is not None and promised + wanted > whole:
            left = max(0, whole - promised)
            self.now.reasons[each.uid] = self.now.waits.for_quota(record, wanted, left)
            return
        target = self._placed(each, layouts) or self._placed_for_victims(each, layouts)
        if target is None:
            self.now.wait(record, wanted, self.left)
            return
        self.promised[spec.queue] = promised + wanted
        self.now.quotas.use(spec.queue, wanted)
        self.now.gets(record, target)

    def _placed_for_victims(self, each: Standing, layouts: tuple[Layout, ...]) -> Placement | None:
        """A place on what is being released, or on what best-effort jobs hold: the last ones that
        started are preempted, but none whose going does not help.
        """
        for holding in self.stopping:
            self.left.give_back(holding)
        self.stopping = []
        target = self._placed(each, layouts)
        gone: list[_Victim] = []
        while target is None and len(gone) < len(self.victims):
            victim = self.victims[-1 - len(gone)]
            self.left.give_back(victim.holding)
            gone.append(victim)
            target = self._placed(each, layouts)
        if target is None:
            for victim in gone:
                self._claim_again(victim)
            return None
        slots = set(target.slots())
        for victim in gone:
            if slots.isdisjoint(victim.placement.slots()):
                self._claim_again(victim)
            else:
                self.victims.remove(victim)
                self.now.wait(victim.standing.record, victim.placement.accelerator_count, self.left)
        return target

    def _claim_again(self, victim: _Victim) -> None:
        again = self.left.claim(victim.holding.ids())
        assert again is not None, "what was given back is there"

    def _place_rest(self, each: Standing) -> None:
        record, spec = each.record, each.record.job.spec
        layouts = self._layouts(each)
        if not layouts:
            self.now.reasons[each.uid] = unmeasured(spec)
            return
        wanted, left = layouts[0].accelerators, self.now.quotas.left(spec.queue)
        if left is not None and left < wanted:
            self.now.reasons[each.uid] = self.now.waits.for_quota(record, wanted, left)
            return
        target = self._placed(each, layouts)
        if target is None:
            self.now.wait(record, wanted, self.left)
            return
        self.now.quotas.use(spec.queue, wanted)
        self.now.gets(record, target)

    def _layouts(self, each: Standing) -> tuple[Layout, ...]:
        layouts = as_requested(self.policy.step_times, each.record.job.spec, self.now.empty)
        return layouts if self.policy.spreads else layouts[:1]

    def _placed(self, each: Standing, layouts: tuple[Layout, ...]) -> Placement | None:
        spec = each.record.job.spec
        found = (placed(spec, layout, self.left) for layout in layouts)
        return next((target for target in found if target is not None), None)


def _is_guaranteed(each: Standing) -> bool:
    return each.record.job.spec.service_class is ServiceClass.GUARANTEED


def _started_at(victim: _Victim) -> int:
    attempt = victim.standing.record.attempt
    assert attempt is not None, "it runs"
    return attempt.started_at
