"""Sia (SOSP 2023): in every round an integer program gives each job one configuration.

A job that is data parallel may have any number of accelerators that Sia knows (powers of two within
a node, whole nodes) under the plan that it asks for; the batch stays, so goodput is throughput. One
with tensor or pipeline parallelism, or that is not elastic, is rigid. See ``sia_program`` for the
program and ``Sia.assumptions`` for what the papers leave open.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.baselines.layouts import (
    Layout,
    as_requested,
    requested,
    scaled,
    under_the_plan_asked_for,
    unmeasured,
)
from controlplane.baselines.seating import Seating, Wish, layout_of
from controlplane.baselines.sia_limits import Limits
from controlplane.baselines.sia_program import (
    Candidate,
    Configuration,
    allocation,
    counts,
    gains,
    restart_factor,
)
from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.job import JobSpec
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.record import Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import StepTimes
from controlplane.placing.standing import Standing, Standings, kinds_of_nodes


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

    def __post_init__(self) -> None:
        if self.power >= 0:
            raise ValueError(f"power: wanted one below 0, with which costs fall, got {self.power}")
        for name in ("switch_seconds", "round_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: wanted 0 or more, got {getattr(self, name)}")

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What had to be assumed, to be printed with every result."""
        return (
            "Sia: the global batch is fixed, so goodput is throughput",
            "Sia: the program counts nodes beside accelerators, and is solved again, at most 8 "
            "times, without a configuration for which there was no room (in the paper it counts "
            "accelerators only); both make it better on this trace",
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


@dataclass(frozen=True, slots=True)
class _Asking:
    """A job that takes part, with the configurations that it may get, ascending."""

    standing: Standing
    layouts: tuple[Layout, ...]
    gains: tuple[float, ...]

    def without(self, refused: Collection[tuple[JobUid, Layout]]) -> "_Asking":
        """The same without some; what the others gain does not depend on them."""
        uid = self.standing.uid
        pairs = zip(self.layouts, self.gains, strict=True)
        kept = [pair for pair in pairs if (uid, pair[0]) not in refused]
        return _Asking(self.standing, tuple(p[0] for p in kept), tuple(p[1] for p in kept))


_SOLUTIONS = 8
"""So often the program is solved at most: without what there was no room for the time before. Only
accelerators and nodes are counted in it, and not how jobs lie.
"""


class _Round:
    """One decision in the making."""

    def __init__(self, policy: Sia, snapshot: ClusterSnapshot) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.now = Standings(snapshot, under_the_plan_asked_for)

    def decide(self) -> Decision:
        between = self._laid_out_already()
        open_jobs = []
        for each in self.now.jobs:
            pinned = each.moving or (between and each.runs)
            if each.place is None or not pinned or not self._can_keep(each, each.place):
                open_jobs.append(each)
            else:
                self.now.keep(each.record, each.place)
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

    def _can_keep(self, each: Standing, place: Placement) -> bool:
        """Whether nobody else has it. What runs is within its quota; who is only promised a place
        has to be.
        """
        queue, count = each.record.job.spec.queue, place.accelerator_count
        allowed = each.holds_its_place or self.now.quotas.allows(queue, count)
        return allowed and self.now.taken.isdisjoint(place.slots())

    def _choose(self, jobs: Sequence[Standing]) -> None:
        """Solves the program for those whose place is not settled, and lays them out."""
        limits = Limits(self.snapshot, self.now.taken, self.now.quotas, self.now.empty)
        asking: list[_Asking] = []
        for each in jobs:
            layouts = self._layouts(each.record, limits)
            if layouts:
                asking.append(_Asking(each, layouts, self._gains(layouts, each.record.job.spec)))
                limits.add_wide(each.uid, layouts)
            elif each.place is not None and each.runs and self._can_keep(each, each.place):
                self.now.keep(each.record, each.place)
            else:
                self.now.reasons[each.uid] = unmeasured(each.record.job.spec)
        kinds = kinds_of_nodes(self.snapshot)
        left = asking
        for solutions_left in reversed(range(_SOLUTIONS)):
            candidates = [self._candidate(each, limits, kinds) for each in left]
            seating, refused = self._seated(left, candidates, limits, last=not solutions_left)
            if not refused:
                break
            left = [each.without(refused) for each in left]
        least = [(each.standing, each.layouts[0].accelerators) for each in asking]
        self.now.settle(least, seating.found, seating.left)

    def _seated(
        self,
        asking: Sequence[_Asking],
        candidates: Sequence[Candidate],
        limits: Limits,
        *,
        last: bool,
    ) -> tuple[Seating, set[tuple[JobUid, Layout]]]:
        """Solves the program and lays the jobs out; and what it chose for which there is no room.

        Args:
            asking: The jobs, with what they may get.
            candidates: The same for the program.
            limits: What there is.
            last: Whether a job without room for what was chosen gets something smaller.
        """
        chosen = allocation(
            candidates,
            limits.amounts,
            power=self.policy.power,
            none_costs=self.policy.none_costs,
        )
        seating = Seating(self.snapshot, self.now.left(), self.now.quotas.copy())
        wishes = []
        for each, candidate, taken in zip(asking, candidates, chosen, strict=True):
            if taken is None:
                continue
            layout, stays = each.layouts[taken], taken == candidate.previous
            if not (stays and seating.stay(each.standing, layout)):
                smaller = each.layouts[:taken][::-1] if last else ()
                wishes.append(Wish(each.standing, (layout, *smaller), self.policy.moves_others))
        seating.seat(wishes)
        lost = (wish for wish in wishes if wish.standing.uid not in seating.found)
        return seating, {(wish.standing.uid, wish.layouts[0]) for wish in lost}

    def _layouts(self, record: JobRecord, limits: Limits) -> tuple[Layout, ...]:
        """The job's configurations, ascending; nothing if none is known."""
        spec, times = record.job.spec, self.policy.step_times
        asked = requested(spec)
        known = () if self._is_rigid(spec) else scaled(times, spec, self.now.empty)
        if asked is None or not known:
            return _fastest(as_requested(times, spec, self.now.empty))
        if _replica(spec) > 1:
            valid = [
                each
                for each in known
                if each.accelerators in (asked[0], *counts(*limits.nodes(each.kind)))
            ]
        else:
            valid = [
                each
                for each in known
                if each.accelerators in counts(*limits.nodes(each.kind)) and limits.is_regular(each)
            ]
        layouts = _fastest(valid)
        if self.policy.bootstrap and layouts:
            most = max(layouts[0].accelerators, 2 * _most_held(record))
            layouts = tuple(each for each in layouts if each.accelerators <= most)
        return layouts

    def _candidate(self, each: _Asking, limits: Limits, kinds: Mapping[NodeId, str]) -> Candidate:
        standing, record = each.standing, each.standing.record
        age = (self.snapshot.at - record.job.submitted_at) / SECOND
        uses = (limits.uses(standing.uid, record.job.spec, layout) for layout in each.layouts)
        return Candidate(
            tuple(
                Configuration(layout.accelerators, gain, used)
                for layout, gain, used in zip(each.layouts, each.gains, uses, strict=True)
            ),
            layout_of(standing, each.layouts, kinds) if standing.runs else None,
            restart_factor(age, record.reconfigurations, self.policy.switch_seconds),
        )

    def _gains(self, layouts: Sequence[Layout], spec: JobSpec) -> tuple[float, ...]:
        """Throughputs in multiples of the least; of a rigid job its accelerators, on the slowest of
        the types.
        """
        if any(each.seconds == 0 for each in layouts):
            return tuple(float(each.accelerators) for each in layouts)
        unit = layouts[0].accelerators if self._is_rigid(spec) else _replica(spec)
        return gains([1 / each.seconds for each in layouts], unit)

    def _is_rigid(self, spec: JobSpec) -> bool:
        """Whether the job has the size that it asks for or none."""
        is_3d = _replica(spec) > 1 and not self.policy.scale_3d
        return not spec.elastic or spec.unit_per_node or is_3d


def _replica(spec: JobSpec) -> int:
    """Accelerators of one replica of the job's model."""
    asked = requested(spec)
    return 1 if asked is None else asked[1].tensor_parallel * asked[1].pipeline_parallel


def _fastest(layouts: Iterable[Layout]) -> tuple[Layout, ...]:
    """Of each size and type the first."""
    best: dict[tuple[int, str], Layout] = {}
    for each in layouts:
        best.setdefault((each.accelerators, each.kind), each)
    return tuple(best.values())


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
