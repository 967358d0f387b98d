"""From the snapshot to the seats of a round: what each job can be given, has, and still needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from controlplane.domain.ids import AcceleratorId, JobUid, NodeId
from controlplane.domain.job import JobSpec, ServiceClass
from controlplane.domain.lifecycle import FINISHED
from controlplane.domain.offering import memory_need, plans_of, sizes
from controlplane.domain.placement import Placement
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import Shares, StepTimes, Way
from controlplane.placing.capacity import Capacity, Shape
from controlplane.placing.racks import Allowed
from controlplane.placing.shares import exists, shares_of
from controlplane.placing.standing import Standing
from controlplane.rubick.board import Parts
from controlplane.rubick.change_price import ChangePrice, price_of_changes
from controlplane.rubick.choices import Choice, Choices, choices_among
from controlplane.rubick.freedom import Freedom
from controlplane.rubick.in_place import Ranks, could_be_in_place
from controlplane.rubick.seat import UNKNOWN_SECONDS_LEFT, Given, Seat
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.tries import is_unlearnt, trying
from controlplane.rubick.worth import Flags, Wanting, Worths, worths
from headrace.api.plan import ExecutionPlan

_SECOND = 1e9
_ARRIVALS_SEEN_SECONDS = 3600.0
_ALIKE_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Promise:
    """What a guaranteed job must get at least.

    Attributes:
        steps_per_second: The speed of what it asks for; 0 where nobody can say.
        accelerators: The fewest with which it is as fast; what counts against the quota.
    """

    steps_per_second: float
    accelerators: int

    def kept_by(self, way: Way) -> bool:
        """Whether it is as fast, within rounding."""
        return way.steps_per_second >= self.steps_per_second * (1 - 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """What a job is offered.

    Attributes:
        choices: What it can be given; for a guaranteed job, what keeps its promise.
        promise: Of a guaranteed job; None for another.
        tight: Plans among the choices for which some accelerators that the job may use have no
            room.
    """

    choices: Choices
    promise: Promise | None = None
    tight: frozenset[ExecutionPlan] = frozenset()


class Menu:
    """What jobs can be given, computed once for those that are alike, and looked up by job."""

    def __init__(self, freedom: Freedom = Freedom.EVERYTHING) -> None:
        """Knows nothing yet.

        Args:
            freedom: What may differ from what jobs ask for.
        """
        self._freedom = freedom
        self._times: StepTimes | None = None
        self._memory: object = None
        self._of_job: dict[JobUid, tuple[JobSpec, Shape, int | None, Offer]] = {}
        self._alike: dict[tuple[object, ...], Offer] = {}

    def begin(self, step_times: StepTimes, snapshot: ClusterSnapshot) -> None:
        """Forgets what holds no more: other step times, other accelerators, jobs that are gone."""
        if step_times is not self._times or snapshot.memory != self._memory:
            self._of_job.clear()
            self._alike.clear()
        elif len(self._of_job) > 2 * len(snapshot.jobs) + 100:
            jobs = snapshot.jobs
            self._of_job = {uid: known for uid, known in self._of_job.items() if uid in jobs}
        if len(self._alike) > _ALIKE_KEPT:
            self._alike.clear()
        self._times, self._memory = step_times, snapshot.memory

    @property
    def times(self) -> StepTimes | None:
        """The step times that it was computed by; None before ``begin``."""
        return self._times

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way | None:
        """What is known of one way."""
        assert self._times is not None, "begin comes first"
        return self._times.way(spec, kind, plan, shares)

    def offer(self, record: JobRecord, quota: int | None, capacity: Capacity) -> Offer:
        """What the job is offered.

        Args:
            record: The job.
            quota: What its queue may hold; None for no limit.
            capacity: The cluster's accelerators.
        """
        spec = record.job.spec
        shape = capacity.shape(spec.accelerators)
        known = self._of_job.get(record.uid)
        if known is not None and known[0] is spec and known[1] == shape and known[2] == quota:
            return known[3]
        key = _question(spec, shape, quota)
        offer = self._alike.get(key)
        if offer is None:
            offer = self._alike[key] = self._made(spec, shape, quota, capacity)
        self._of_job[record.uid] = (spec, shape, quota, offer)
        return offer

    def _made(self, spec: JobSpec, shape: Shape, quota: int | None, capacity: Capacity) -> Offer:
        assert self._times is not None, "begin comes first"
        kinds = tuple(kind for kind, _ in shape)
        found = ((kind, self._times.ways(spec, kind)) for kind in kinds)
        # What has no room even if nobody else were there is neither promised nor waited for.
        ways = {
            kind: [way for way in each if exists(shape, kind, way.shares)]
            for kind, each in found
            if each
        }
        promise = None
        if spec.service_class is ServiceClass.GUARANTEED:
            promise = _promise(spec, ways)
        if not ways:
            choices = _as_asked(spec, shape, capacity)
        else:
            # What is too slow for the promise must not hide what is not.
            free = {
                kind: [
                    way
                    for way in each
                    if self._freedom.allows(spec, way)
                    and (promise is None or promise.kept_by(way))
                    and (quota is None or way.accelerators <= quota)
                ]
                for kind, each in ways.items()
            }
            choices = choices_among(_with_room(spec, free, capacity))
        if quota is not None:
            choices = choices.among(lambda each: each.accelerators <= quota)
        if promise is not None and promise.steps_per_second:
            fewest = min((each.accelerators for each in choices.every), default=0)
            promise = replace(promise, accelerators=fewest or promise.accelerators)
        elif promise is not None:
            least = promise.accelerators
            choices = choices.among(lambda each: each.accelerators >= least)
        plans = {each.plan for each in choices.every} if spec.model else set()
        tight = frozenset(plan for plan in plans if not _fits_all(spec, plan, capacity))
        return Offer(choices, promise, tight)


def _exists_anywhere(shape: Shape, kind: str, plan: ExecutionPlan) -> bool:
    """Whether there are as many accelerators as the plan takes, in groups that lie together."""
    group = plan.tensor_parallel
    return any(
        sum((size - size % group) * nodes for size, nodes in sizes) >= plan.ranks
        for sizes in dict(shape)[kind]
    )


def _question(spec: JobSpec, shape: Shape, quota: int | None) -> tuple[object, ...]:
    """All that an offer depends on."""
    request = spec.accelerators
    return (
        spec.model_type,
        spec.plans,
        spec.requested_plan,
        spec.model,
        spec.global_batch_size,
        spec.micro_batch_size_max,
        spec.elastic,
        spec.service_class,
        request,
        shape,
        quota,
    )


def _promise(spec: JobSpec, ways: Mapping[str, Sequence[Way]]) -> Promise:
    """What a guaranteed job must get: the speed of its request, on the best of the types."""
    wanted = spec.accelerators.asked_for
    best = 0.0
    for each in ways.values():
        for way in each:
            asked = spec.requested_plan in (None, way.plan) and way.accelerators == wanted
            best = max(best, way.steps_per_second if asked else 0.0)
    return Promise(best, wanted)


def _as_asked(spec: JobSpec, shape: Shape, capacity: Capacity) -> Choices:
    """A job of which nobody knows what its steps take: the fewest accelerators that are as many as
    it asks for, under the best of its plans, wherever there is room.
    """
    able = [n for n in sizes(spec) if n >= spec.accelerators.asked_for] or list(sizes(spec))[-1:]
    found = [
        Choice(kind, plan, (), count, 1.0, 1.0)
        for count in able
        for plan in plans_of(spec, count)
        for kind, _ in shape
        if _exists_anywhere(shape, kind, plan) and kind in _rooms(spec, plan, capacity)
    ]
    fewest = min((each.accelerators for each in found), default=0)
    return Choices(tuple(each for each in found if each.accelerators == fewest))


def _rooms(spec: JobSpec, plan: ExecutionPlan, capacity: Capacity) -> Mapping[str, Allowed]:
    """Nodes that the job may use and that have room for the plan, by type."""
    asked = capacity.with_room_for(spec.accelerators, memory_need(spec, plan))
    return capacity.allowed_nodes(asked)


def _fits_all(spec: JobSpec, plan: ExecutionPlan, capacity: Capacity) -> bool:
    """Whether whatever the job may run on has room for the plan, as far as that is estimated."""
    return capacity.has_room_for(spec.accelerators, memory_need(spec, plan))


def _with_room(
    spec: JobSpec, ways: Mapping[str, Sequence[Way]], capacity: Capacity
) -> Mapping[str, Sequence[Way]]:
    """Those whose plans fit the memory of whatever they may run on, as far as that is estimated; if
    none do, those for which some nodes have room. One without room would hide those that have it,
    if it is faster.
    """
    if not spec.model:
        return ways
    there = capacity.memory_for(spec.accelerators)

    def fits(kind: str, plan: ExecutionPlan) -> bool:
        need = memory_need(spec, plan)
        return need is None or all(need.fits(each) for each in there.get(kind, ()))

    sure = {kind: [way for way in every if fits(kind, way.plan)] for kind, every in ways.items()}
    if any(sure.values()):
        return sure
    return {
        kind: [way for way in every if kind in _rooms(spec, way.plan, capacity)]
        for kind, every in ways.items()
    }


class Seats:
    """The seats of a round, and what was found out on the way.

    Attributes:
        every: The seats, in the order of the standings.
        promises: Of guaranteed jobs.
        competition: Jobs that wait or are expected for each accelerator.
    """

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        standings: Sequence[Standing],
        capacity: Capacity,
        menu: Menu,
        settings: RubickSettings,
    ) -> None:
        """Looks at every job.

        Args:
            snapshot: The cluster.
            standings: Jobs that can be given something.
            capacity: All that is offered; nothing is used up.
            menu: What jobs can be given.
            settings: The knobs.
        """
        self.promises: dict[JobUid, Promise] = {}
        self._tight: list[frozenset[ExecutionPlan]] = []
        self._prices: dict[tuple[str, bool], ChangePrice] = {}
        self._ranks_of: dict[JobUid, Ranks] = {}
        self._must_restart: dict[tuple[Choices, str, tuple[int, ...]], Flags] = {}
        self._snapshot = snapshot
        self._capacity = capacity
        self._menu = menu
        self._settings = settings
        self._kinds: dict[NodeId, dict[AcceleratorId, str]] = {}
        self.competition = self._competition(standings)
        wanting = [self._wanting(each) for each in standings]
        found = worths(
            wanting,
            patience_seconds=settings.patience_seconds,
            patience_share=settings.patience_share,
            shortest_first=settings.shortest_first,
            competition=self.competition,
        )
        self.every = [
            self._seat(number, standing, want, worth)
            for number, (standing, want, worth) in enumerate(
                zip(standings, wanting, found, strict=True)
            )
        ]

    def _competition(self, standings: Sequence[Standing]) -> float:
        """``n / A``: those that wait now but for the one that is looked at, and as many as are
        expected, at the present rate, while a job would switch.
        """
        waiting = sum(1 for each in standings if not each.holds_its_place)
        now = self._snapshot.at
        recent = sum(
            1
            for record in self._snapshot.jobs.values()
            if now - record.job.submitted_at < _ARRIVALS_SEEN_SECONDS * _SECOND
        )
        expected = recent / _ARRIVALS_SEEN_SECONDS * max(30.0, self._settings.switch_seconds)
        whole = sum(
            len(every) for offer in self._snapshot.usable.values() for every in offer.values()
        )
        return (max(0, waiting - 1) + min(4.0, max(0.25, expected))) / max(1, whole)

    # -- one job --------------------------------------------------------------------------

    def _choices(self, record: JobRecord) -> Choices:
        queue = self._snapshot.queues.get(record.job.spec.queue)
        quota = queue.limit_accelerators if queue is not None else None
        offer = self._menu.offer(record, quota, self._capacity)
        self._tight.append(offer.tight)
        if offer.promise is not None:
            self.promises[record.uid] = offer.promise
        return offer.choices

    def _wanting(self, standing: Standing) -> Wanting:
        record = standing.record
        choices = self._choices(record)
        place = standing.place if standing.holds_its_place or standing.moving else None
        if place is None:
            switch = self._settings.switch_seconds
            steps = self._steps_left(record, 0.0)
            return Wanting(choices, steps, switch, restart_seconds=switch)
        seconds, price = self._held_seconds(record, place), self._price(record)
        return Wanting(
            choices,
            self._steps_left(record, seconds),
            price.in_memory,
            held_accelerators=place.accelerator_count,
            held_seconds=seconds,
            held_wait_seconds=self._still_switching(record),
            restart_seconds=price.restart,
            restarts=self._restarts(record, place, choices) if price.differs else None,
        )

    def _restarts(self, record: JobRecord, place: Placement, choices: Choices) -> Flags:
        """The choices that the job can only have by a restart."""
        ranks = self._ranks(record, place)
        number = {where: i for i, where in enumerate(dict.fromkeys(ranks))}
        lies = (ranks[0][0] if ranks else "", tuple(number[where] for where in ranks))
        known = self._must_restart.get((choices, *lies))
        if known is None:
            known = np.array([not could_be_in_place(ranks, each) for each in choices.every], bool)
            self._must_restart[choices, *lies] = known
        return known

    def _ranks(self, record: JobRecord, place: Placement) -> Ranks:
        """Where the job's ranks are; none if they end with every change."""
        if not record.job.spec.changes_plan_in_memory:
            return ()
        known = self._ranks_of.get(record.uid)
        if known is None:
            bins = {node: (kind, node) for kind, node in self._kinds_of(place)}
            there = [unit.node for unit in place.units for _ in unit.accelerators]
            known = tuple([bins[node] for node in there if node in bins])
            self._ranks_of[record.uid] = known
        return known

    def _ranks_that_run(self, standing: Standing) -> Ranks:
        """Those of a job that may not stay as it is, say because its spec names its plan no more:
        they can still change in memory.
        """
        attempt = standing.record.attempt
        if attempt is None or standing.leaving or standing.moving or not attempt.trained:
            return ()
        return self._ranks(standing.record, attempt.placement)

    def _price(self, record: JobRecord) -> ChangePrice:
        """What changes cost the job, as those of its model did."""
        spec = record.job.spec
        model = spec.model_type.partition(" ")[0]
        known = self._prices.get((model, spec.changes_plan_in_memory))
        if known is None:
            paid = [each for each in self._snapshot.switch_prices.values() if each.model == model]
            known = price_of_changes(paid if model else (), self._settings.switch_seconds)
            if not spec.changes_plan_in_memory:
                known = ChangePrice(known.restart, known.restart)
            self._prices[model, spec.changes_plan_in_memory] = known
        return known

    def _held_seconds(self, record: JobRecord, place: Placement) -> float:
        """What a step takes where the job is: as known for that way, else as it tells itself."""
        spec, shares = record.job.spec, shares_of(place)
        for kind in dict.fromkeys(kind for kind, _ in self._kinds_of(place)):
            way = self._menu.way(spec, kind, place.plan, shares)
            if way is not None:
                return way.seconds
        return record.progress.step_seconds or 1.0

    def _still_switching(self, record: JobRecord) -> float:
        """Until it trains, if it was started or changed just now."""
        attempt = record.attempt
        if attempt is None:
            return self._settings.switch_seconds
        change, price = attempt.plan_change, self._price(record)
        if change is not None:
            takes, since = price.in_memory, change.ordered_at
        elif attempt.running_at is None:
            takes, since = price.restart, attempt.started_at
        else:
            return 0.0
        return max(0.0, takes - (self._snapshot.at - since) / _SECOND)

    def _steps_left(self, record: JobRecord, seconds: float) -> float:
        """Steps that it still needs, those that it must have done since its last report left out;
        of a command of the user's own, the seconds that it is taken to need.
        """
        steps, attempt = record.job.spec.steps, record.attempt
        if not steps:
            return UNKNOWN_SECONDS_LEFT / (seconds or 1.0)
        left = float(steps - record.progress.step)
        if seconds and attempt is not None and attempt.trained and attempt.plan_change is None:
            since = max(record.progress.at, attempt.running_at or 0)
            left -= max(0, self._snapshot.at - since) / _SECOND / seconds
        return max(1.0, left)

    def _seat(self, number: int, standing: Standing, want: Wanting, worth: Worths) -> Seat:
        record, spec = standing.record, standing.record.job.spec
        guaranteed = spec.service_class is ServiceClass.GUARANTEED
        held = None
        if want.held_accelerators and standing.place is not None:
            held = Given(self._parts(standing.place), worth.of_keeping)
        left = want.held_wait_seconds + want.steps_left * want.held_seconds
        still = self._stood_still_seconds(record)
        stays = standing.moving or (
            held is not None
            and (self._is_left_in_peace(record) or is_unlearnt(record, self._snapshot))
        )
        tries = trying(record) is not None
        ranks: Ranks = ()
        if held is None:
            ranks = self._ranks_that_run(standing)
        elif standing.place is not None and (want.restarts is not None or tries):
            ranks = self._ranks(record, standing.place)
        return Seat(
            number,
            record.uid,
            spec.queue,
            want.choices,
            worth,
            rank=(-spec.priority, not guaranteed),
            promised=guaranteed,
            allowed=self._capacity.allowed_nodes(spec.accelerators),
            rather=self._rather(record),
            rooms={plan: _rooms(spec, plan, self._capacity) for plan in self._tight[number]},
            held=held,
            held_seconds_left=left if held is not None else 0.0,
            ends_within=self._ends_within(record, left) if held is not None else 0.0,
            steps_left=want.steps_left,
            switch_seconds=want.switch_seconds,
            restart_seconds=want.restart_seconds,
            ranks=ranks,
            stays=stays,
            tries=tries,
            starves_since=self._starves_since(record, still),
            starves_long=held is None and still >= 2 * self._settings.starving_seconds,
            topology=spec.accelerators.topology,
        )

    def _rather(self, record: JobRecord) -> dict[str, Allowed] | None:
        """Nodes that the job may use, without those under suspicion; None if none is."""
        avoided = record.avoids(self._snapshot.at)
        if not avoided:
            return None
        allowed = self._capacity.allowed_nodes(record.job.spec.accelerators)
        there = self._capacity.by_node()
        return {
            kind: dict.fromkeys(
                node for node in (there[kind] if nodes is None else nodes) if node not in avoided
            )
            for kind, nodes in allowed.items()
        }

    def _parts(self, place: Placement) -> Parts:
        kinds = self._kinds_of(place)
        return tuple(((kind, node), count) for (kind, node), count in kinds.items())

    def _kinds_of(self, place: Placement) -> dict[tuple[str, NodeId], int]:
        found: dict[tuple[str, NodeId], int] = {}
        for node, ids in place.by_node().items():
            known = self._kinds.get(node)
            if known is None:
                offer = self._snapshot.usable.get(node, {})
                known = self._kinds[node] = {e.id: kind for kind in offer for e in offer[kind]}
            for each in ids:
                if each in known:
                    where = (known[each], node)
                    found[where] = found.get(where, 0) + 1
        return found

    def _is_left_in_peace(self, record: JobRecord) -> bool:
        """Whether the job was started or changed just now, or as often as jobs may be."""
        attempt, most = record.attempt, self._settings.changes_at_most
        if most and record.reconfigurations >= most:
            return True
        if attempt is None or attempt.running_at is None:
            return True
        since = max(attempt.running_at, record.reconfigured_at)
        return self._snapshot.at - since < self._settings.cool_down_seconds * _SECOND

    def _ends_within(self, record: JobRecord, left: float) -> float:
        """In how many seconds a running job has ended, as far as is known."""
        spec = record.job.spec
        seconds = left if spec.steps else inf
        if spec.max_run_seconds:
            seconds = min(seconds, max(0.0, spec.max_run_seconds - self._held_ns(record) / _SECOND))
        return seconds

    def _held_ns(self, record: JobRecord) -> int:
        attempt = record.attempt
        now = 0 if attempt is None else self._snapshot.at - attempt.started_at
        return record.held_ns + now

    def _starves_since(self, record: JobRecord, still: float) -> float | None:
        """Since when it stands still that starves, or has begun at last; None if it does neither.

        Args:
            record: The job.
            still: How many seconds it stood still.
        """
        if record.stage in FINISHED or still < self._settings.starving_seconds:
            return None
        return self._snapshot.at / _SECOND - still

    def _waits_since(self, record: JobRecord) -> int:
        # How long it held something since it was resumed is not known, so of a job that was
        # suspended only the present wait counts.
        since: int = record.job.submitted_at
        if record.suspended_at:
            since = max(record.suspended_at, record.idle_since)
        return max(since, record.backoff_until)

    def _stood_still_seconds(self, record: JobRecord) -> float:
        """How long the job has waited: at a stretch, or by how much longer in all than it held
        something, whichever is more. Of one that runs: when it began, for as long as it has run
        less than it takes to starve; so whoever starved is not displaced at once, nor never.
        """
        now, attempt = self._snapshot.at, record.attempt
        since = self._waits_since(record)
        if attempt is None:
            at_a_stretch = now - max(since, record.idle_since)
            in_all = 0 if record.suspended_at else now - since - 2 * record.held_ns
            return max(at_a_stretch, in_all) / _SECOND
        run = now - attempt.started_at
        if record.suspended_at or run >= self._settings.starving_seconds * _SECOND:
            return 0.0
        return (attempt.started_at - since - 2 * record.held_ns) / _SECOND
