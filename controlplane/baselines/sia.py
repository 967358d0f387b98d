"""Sia (SOSP 2023): in every round an integer program gives each job one configuration.

A job that is data parallel may have any number of accelerators that Sia knows (powers of two within
a node, whole nodes) under the plan that it asks for; the batch stays, so goodput is throughput. One
with tensor or pipeline parallelism, or that is not elastic, is rigid. See ``sia_program`` for the
program and ``Sia.assumptions`` for what the papers leave open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.baselines.layouts import Layout, as_requested, requested, scaled, unmeasured
from controlplane.baselines.seating import Seating, Wish, layout_of
from controlplane.baselines.sia_program import (
    Candidate,
    Configuration,
    allocation,
    counts,
    gains,
    restart_factor,
)
from controlplane.baselines.standing import Standing, Standings, kinds_of_nodes, total_by_kind
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.job import JobSpec
from controlplane.domain.policy import Decision
from controlplane.domain.record import Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes


@dataclass(frozen=True, slots=True)
class Sia:
    """The policy.

    Attributes:
        step_times: Knows the throughputs.
        switch_seconds: What a restart takes: S in the restart factor.
        round_seconds: What runs is laid out anew once a round; 0 for in every cycle.
        power: p, the exponent of a cost.
        none_costs: lambda, the cost of a job that gets nothing.
        scale_3d: Whether jobs with tensor or pipeline parallelism scale their replicas
            (``sia-dp3d``) instead of being rigid.
        bootstrap: Whether a job starts with one replica and at most doubles, as if its throughput
            were learned, instead of being known beforehand.
        moves_others: Whether smaller jobs are moved together to make room for larger ones.
    """

    step_times: StepTimes
    switch_seconds: float = 78.0
    round_seconds: float = 60.0
    power: float = -0.5
    none_costs: float = 1.1
    scale_3d: bool = False
    bootstrap: bool = False
    moves_others: bool = True

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed, to be printed with every result."""
        return (
            "Sia: the global batch is fixed, so goodput is throughput",
            "Sia: 3D-parallel jobs "
            + (
                "scale d with t and p kept, or run as requested where that is no configuration"
                if self.scale_3d
                else "are rigid, on as many accelerators as requested"
            ),
            f"Sia: S of the restart factor is {self.switch_seconds:g} s for every job, its "
            "restarts are its planned changes, preemptions included",
            "Sia: throughputs "
            + (
                "are the table's, but a job starts with one replica and at most doubles each time"
                if self.bootstrap
                else "are known for every configuration beforehand (oracle tables)"
            ),
            f"Sia: p {self.power:g}, lambda {self.none_costs:g}; of equally cheap allocations the "
            "one that changes fewest jobs, then the one that gives earlier jobs more",
            (
                f"Sia: what runs is laid out anew at most once in {self.round_seconds:g} s; jobs "
                "that arrive meanwhile take what is free (in the paper they wait for the round)"
                if self.round_seconds
                else "Sia: decides in every cycle (in the paper every 60 s)"
            ),
            "Sia: a job whose configuration stays keeps its accelerators"
            + (
                ", unless it is moved to make room for a larger job, which costs it a restart (in "
                "the paper's simulator a move is free)"
                if self.moves_others
                else " (in the paper's simulator a move is free)"
            ),
        )

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        """Where each job should run."""
        return _Round(self, snapshot).decide()


class _Round:
    """One decision in the making."""

    def __init__(self, policy: Sia, snapshot: ClusterSnapshot) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.now = Standings(snapshot)
        self.node_sizes = _node_sizes(snapshot)
        self.kinds = kinds_of_nodes(snapshot)

    def decide(self) -> Decision:
        between = self._laid_out_already()
        open_jobs = []
        for each in self.now.jobs:
            settled = each.place is not None and not each.leaving and not each.moving
            runs = settled and each.record.attempt is not None
            if each.place is not None and (each.moving or (runs and between)):
                free = self.now.taken.isdisjoint(each.place.slots())
                if free and self._within_quota(each):
                    self.now.keep(each.record, each.place)
                    continue
            open_jobs.append(each)
        self._choose(open_jobs)
        return Decision(self.now.targets, self.now.reasons)

    def _laid_out_already(self) -> bool:
        """Whether anything was ordered in this round before."""
        length = round(self.policy.round_seconds * SECOND)
        if not length:
            return False
        begin = Instant(self.snapshot.at - self.snapshot.at % length)
        return any(
            begin <= at < self.snapshot.at
            for record in self.snapshot.jobs.values()
            for at in _ordered_at(record)
        )

    def _within_quota(self, each: Standing) -> bool:
        place = each.place
        assert place is not None
        # What runs was within it; who is only promised a place has to be.
        runs = each.record.attempt is not None and not each.leaving
        return runs or self.now.quotas.allows(each.record.job.spec.queue, place.accelerator_count)

    def _choose(self, jobs: Sequence[Standing]) -> None:
        """Solves the program for those whose place is not settled, and lays them out."""
        taking: list[tuple[Standing, tuple[Layout, ...], Candidate]] = []
        for each in jobs:
            layouts = self._layouts(each.record)
            if layouts:
                taking.append((each, layouts, self._candidate(each, layouts)))
            elif each.uid not in self.now.targets:
                self.now.reasons[each.uid] = unmeasured(each.record.job.spec)
        chosen = allocation(
            [candidate for _, _, candidate in taking],
            self._limits(),
            power=self.policy.power,
            none_costs=self.policy.none_costs,
        )
        seating = Seating(self.snapshot, self.now.left(), self.now.quotas)
        wishes = []
        for (each, layouts, candidate), taken in zip(taking, chosen, strict=True):
            if taken is None:
                continue
            stays = taken == candidate.previous
            if not (stays and seating.stay(each, layouts[taken])):
                smaller = reversed(layouts[:taken])
                wishes.append(Wish(each, (layouts[taken], *smaller), self.policy.moves_others))
        seating.seat(wishes)
        for each, _, _ in taking:
            target = seating.found.get(each.uid)
            if target is not None:
                self.now.gets(each.record, target)
        for each, layouts, _ in taking:
            if each.uid not in seating.found:
                spec, least = each.record.job.spec, layouts[0].accelerators
                free = seating.left.most(spec.accelerators)
                self.now.reasons[each.uid] = self.now.waits.for_accelerators(
                    each.record, least, free
                )

    def _limits(self) -> dict[str, int]:
        """Accelerators of each type, and what queues with a quota may still hold."""
        limits = total_by_kind(self.snapshot, self.now.taken)
        for name in self.snapshot.queues:
            left = self.now.quotas.left(name)
            if left is not None:
                limits[f"queue {name}"] = left
        return limits

    def _layouts(self, record: JobRecord) -> tuple[Layout, ...]:
        """The job's configurations, ascending; nothing if none is known."""
        spec = record.job.spec
        asked = requested(spec)
        if asked is None:
            return ()
        replica = asked[1].tensor_parallel * asked[1].pipeline_parallel
        if self._is_rigid(spec, replica):
            return self._one_of_a_kind(as_requested(self.policy.step_times, spec, self.now.empty))
        known = scaled(self.policy.step_times, spec, self.now.empty)
        if not known:
            return self._one_of_a_kind(as_requested(self.policy.step_times, spec, self.now.empty))
        if replica > 1:
            valid = [
                each
                for each in known
                if each.accelerators == asked[0] or each.accelerators in self._counts(each.kind)
            ]
        else:
            valid = [each for each in known if self._is_configuration(each)]
        layouts = self._one_of_a_kind(valid)
        if self.policy.bootstrap and layouts:
            most = max(layouts[0].accelerators, 2 * _most_held(record))
            layouts = tuple(each for each in layouts if each.accelerators <= most)
        return layouts

    def _one_of_a_kind(self, layouts: Sequence[Layout]) -> tuple[Layout, ...]:
        """Of each size and type the fastest."""
        best: dict[tuple[int, str], Layout] = {}
        for each in layouts:
            best.setdefault((each.accelerators, each.kind), each)
        return tuple(best.values())

    def _counts(self, kind: str) -> tuple[int, ...]:
        size, nodes = self.node_sizes.get(kind, (0, 0))
        return counts(size, nodes)

    def _is_configuration(self, layout: Layout) -> bool:
        """Whether it is one of Sia's: within a node, or whole nodes."""
        size, _ = self.node_sizes.get(layout.kind, (0, 0))
        whole = len(layout.shares) == 1 or set(layout.shares) == {size}
        return whole and layout.accelerators in self._counts(layout.kind)

    def _candidate(self, each: Standing, layouts: Sequence[Layout]) -> Candidate:
        record, spec = each.record, each.record.job.spec
        runs = record.attempt is not None and not each.leaving and each.place is not None
        age = (self.snapshot.at - record.job.submitted_at) / SECOND
        factor = restart_factor(age, record.reconfigurations, self.policy.switch_seconds)
        quota = self.now.quotas.whole(spec.queue) is not None
        queue = (f"queue {spec.queue}",) if quota else ()
        return Candidate(
            tuple(
                Configuration(layout.accelerators, gain, (layout.kind or self._any(spec), *queue))
                for layout, gain in zip(layouts, self._gains(layouts, spec), strict=True)
            ),
            layout_of(each, layouts, self.kinds) if runs else None,
            factor,
        )

    def _gains(self, layouts: Sequence[Layout], spec: JobSpec) -> tuple[float, ...]:
        """Throughputs in multiples of the least; of a rigid job its accelerators, on the slowest of
        the types.
        """
        asked = requested(spec)
        assert asked is not None, "it has layouts"
        count, plan = asked
        if any(each.seconds == 0 for each in layouts):
            return tuple(float(each.accelerators) for each in layouts)
        replica = plan.tensor_parallel * plan.pipeline_parallel
        unit = count if self._is_rigid(spec, replica) else replica
        return gains([1 / each.seconds for each in layouts], unit)

    def _is_rigid(self, spec: JobSpec, replica: int) -> bool:
        """Whether the job has the size that it asks for or none."""
        return not spec.elastic or spec.unit_per_node or (replica > 1 and not self.policy.scale_3d)

    def _any(self, spec: JobSpec) -> str:
        """The type of which a job is counted that takes any: the one with most."""
        there = total_by_kind(self.snapshot)
        able = self.now.empty.allowed_nodes(spec.accelerators)
        return max(able, key=lambda kind: there.get(kind, 0), default="")


def _most_held(record: JobRecord) -> int:
    """Most accelerators that the job is known to have had."""
    held = [max(each.accelerators_before, each.accelerators_after) for each in record.switches]
    if record.restart is not None:
        held.append(record.restart.accelerators)
    if record.attempt is not None:
        held.append(record.attempt.placement.accelerator_count)
    return max(held, default=0)


def _ordered_at(record: JobRecord) -> list[Instant]:
    """When something was last ordered about the job."""
    attempt = record.attempt
    if attempt is None:
        return []
    orders = [attempt.started_at]
    if attempt.intent is not Intent.RUN:
        orders.append(attempt.intent_at)
    if attempt.plan_change is not None:
        orders.append(attempt.plan_change.ordered_at)
    return orders


def _node_sizes(snapshot: ClusterSnapshot) -> dict[str, tuple[int, int]]:
    """Accelerators of the largest node of each type, and how many nodes there are of it."""
    found: dict[str, tuple[int, int]] = {}
    for offer in snapshot.usable.values():
        for kind, every in offer.items():
            size, nodes = found.get(kind, (0, 0))
            found[kind] = (max(size, len(every)), nodes + 1)
    return found
