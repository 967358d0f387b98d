"""Where every job stands when a decision begins."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from controlplane.domain.ids import AcceleratorId, JobUid, NodeId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.node import Accelerator
from controlplane.domain.offering import accelerators_offered, offered, offered_to_choose
from controlplane.domain.placement import Placement
from controlplane.domain.reason import RECONFIGURES, Reason, ReasonCode
from controlplane.domain.record import AttemptRecord, Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from controlplane.placing.capacity import Capacity, Holding
from controlplane.placing.layout import has_room
from controlplane.placing.order import (
    OTHER_PLAN,
    RUNNING,
    Quotas,
    as_wanted,
    candidates,
    cannot_stay,
    impossible,
    left_nodes,
    nodes_to_leave,
)
from controlplane.placing.waiting import Waits

Possible = Callable[[JobRecord, Capacity], bool]
"""Says whether a job could run in the cluster if nobody else did."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One job.

    Attributes:
        record: The job.
        place: Where it is or is about to be, and may stay; None if it has none.
        moving: Whether it is on its way there: it starts, changes its plan, or waits for what it
            was promised to be released.
        leaving: Whether it is being stopped, and goes nowhere yet.
    """

    record: JobRecord
    place: Placement | None
    moving: bool
    leaving: bool

    @property
    def uid(self) -> JobUid:
        """The job's uid."""
        return self.record.job.uid

    @property
    def holds_its_place(self) -> bool:
        """Whether an attempt that shall run has it."""
        return self.place is not None and self.record.attempt is not None and not self.leaving

    @property
    def runs(self) -> bool:
        """Whether it runs there, and nothing is on its way."""
        return self.holds_its_place and not self.moving


Under = Callable[[JobRecord, Placement, Capacity], Placement | None]
"""The place where a job stays, under the plan that it should have there: the very same placement if
it has that one. None if it has to be laid out anew.
"""


def under_its_plan(record: JobRecord, place: Placement, capacity: Capacity) -> Placement | None:
    """A job keeps its plan as long as its spec names it; if that names none, it accumulates as it
    should now. See ``Under``.
    """
    if not record.job.spec.plans:
        return as_wanted(record, place, capacity)
    return place if place.plan in record.job.spec.plans else None


class Standings:
    """All jobs that could hold accelerators, with what is decided of them so far.

    Jobs of which nothing can be said now stay where they are: one of their nodes has not been heard
    of yet or was cordoned, or their queue was removed. Jobs that can never run here have their
    reason already.

    Attributes:
        jobs: The others, in order.
        targets: Where jobs should run.
        reasons: Why.
        quotas: What queues may still hold, with what stays for certain counted.
        taken: What nobody can be given.
    """

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        under: Under | None = None,
        possible: Possible | None = None,
        *,
        chooses_plans: bool = False,
    ) -> None:
        """Looks at every job.

        Args:
            snapshot: The cluster.
            under: Says under which plan a job stays where it is; if None, the one that it has,
                as long as its spec names it.
            possible: Knows of jobs that could run in a cluster that is empty, so that nobody needs
                to look for why they could not.
            chooses_plans: Whether plans are chosen for jobs that may run under any.
        """
        self.snapshot = snapshot
        self._under = under or under_its_plan
        self._possible = possible
        self.targets: dict[JobUid, Placement] = {}
        self.reasons: dict[JobUid, Reason] = {}
        self.quotas = Quotas(snapshot)
        self.taken: set[Slot] = {
            (node.id, each)
            for node in snapshot.nodes.values()
            for stray in node.strays
            for each in stray.accelerators
        }
        self.empty = Capacity(snapshot)
        self.waits = Waits(snapshot, self.empty)
        self._away = nodes_to_leave(snapshot)
        self._closed = snapshot.conditions.closed
        offers: Callable[[JobRecord], JobRecord] = offered
        if chooses_plans:
            offers = partial(offered_to_choose, most=accelerators_offered(snapshot))
        every = (self._standing(record) for record in candidates(snapshot, offers=offers))
        self.jobs = [standing for standing in every if standing is not None]

    def keep(self, record: JobRecord, placement: Placement) -> None:
        """The job is, or is about to be, where it should be."""
        self.targets[record.uid] = placement
        attempt = record.attempt
        other = attempt is not None and attempt.placement is not placement
        same_place = attempt is not None and attempt.placement.units == placement.units
        plan_only = other and same_place and attempt is not None and attempt.intent is Intent.RUN
        self.reasons[record.uid] = OTHER_PLAN if plan_only else RUNNING
        self.taken.update(placement.slots())
        self.quotas.use(record.job.spec.queue, placement.accelerator_count)

    def gets(self, record: JobRecord, placement: Placement) -> None:
        """The job starts there, or goes there."""
        self.targets[record.uid] = placement
        self.reasons.setdefault(record.uid, RUNNING)
        self.waits.gets(record.uid, placement.slots())

    def settle(
        self,
        asked: Sequence[tuple[Standing, int]],
        found: Mapping[JobUid, Placement],
        left: Capacity,
    ) -> None:
        """These jobs get what was found for them, or wait for the least that they could use.

        Args:
            asked: Jobs, each with the fewest accelerators that it could use.
            found: Where some of them should run.
            left: What is left then.
        """
        for each, _ in asked:
            if each.uid in found:
                self.gets(each.record, found[each.uid])
        for each, least in asked:
            if each.uid not in found:
                self.wait(each.record, least, left)

    def wait(self, record: JobRecord, wanted: int, left: Capacity) -> None:
        """The job waits for accelerators."""
        free = left.most(record.job.spec.accelerators)
        self.reasons[record.uid] = self.waits.for_accelerators(record, wanted, free)

    def left(self) -> Capacity:
        """What is not taken; what is being released counts as free."""
        return Capacity(self.snapshot, without=self.taken)

    def _standing(self, record: JobRecord) -> Standing | None:
        """Where a job stands; None if nothing is left to be decided of it."""
        if record.attempt is None:
            return self._idle(record)
        if record.attempt.intent is not Intent.RUN:
            return self._stopping(record, record.attempt)
        return self._running(record, record.attempt)

    def _idle(self, record: JobRecord) -> Standing | None:
        if self.snapshot.at < record.backoff_until:
            return None  # The failure that it recovers from stays its reason.
        known = self._possible is not None and self._possible(record, self.empty)
        never = None if known else impossible(record, self.empty, self.quotas)
        if never is not None:
            self.reasons[record.uid] = never
            return None
        place = record.next_placement
        if place is not None and self._can_begin(record, place):
            place = self._stay(record, place)
        else:
            place = None
        promised = place is not None and _on_its_way(record)
        return Standing(record, place, moving=promised, leaving=False)

    def _stopping(self, record: JobRecord, attempt: AttemptRecord) -> Standing:
        self.reasons[record.uid] = RUNNING
        then = attempt.then
        if then is not None and (
            self._is_closed(then) or cannot_stay(record, then, self._away, self.empty)
        ):
            then = None
        then = None if then is None else self._stay(record, then)
        return Standing(record, then, moving=then is not None, leaving=True)

    def _running(self, record: JobRecord, attempt: AttemptRecord) -> Standing | None:
        place = attempt.placement
        if self._stays_as_it_is(record, place):
            self.keep(record, place)
            return None
        wanted = self._stay(record, place)
        leaves = cannot_stay(record, place, self._away, self.empty)
        if leaves is None and wanted is None:
            leaves = OTHER_PLAN
        if leaves is not None:
            self.reasons[record.uid] = leaves
            return Standing(record, None, moving=False, leaving=False)
        starts = record.stage is Stage.STARTING
        changes = attempt.plan_change is not None or bool(attempt.leaving)
        return Standing(record, wanted, moving=starts or changes, leaving=False)

    def _stay(self, record: JobRecord, place: Placement) -> Placement | None:
        return self._under(record, place, self.empty)

    def _stays_as_it_is(self, record: JobRecord, place: Placement) -> bool:
        closed = self._is_closed(place)
        orphaned = not self.quotas.take(record.job)
        return (closed or orphaned) and not left_nodes(place, self._away)

    def _is_closed(self, place: Placement) -> bool:
        return bool(self._closed) and not self._closed.isdisjoint(place.nodes)

    def _can_begin(self, record: JobRecord, place: Placement) -> bool:
        """Whether the place that the job was promised can still be had."""
        if cannot_stay(record, place, self._away, self.empty):
            return False
        if not place.nodes.isdisjoint(record.avoids(self.snapshot.at)):
            return False
        if not has_room(record.job.spec, place.plan, place.slots(), self.empty):
            return False
        return holding_of(self.snapshot, place) is not None


def undisputed(jobs: Sequence[Standing], taken: Collection[Slot], quotas: Quotas) -> list[Standing]:
    """The same jobs, where each place is one job's, and within its queue's quota: who holds a place
    has it before who was only promised it.

    Args:
        jobs: In order; of two that were promised the same the first one keeps it.
        taken: What nobody can be given.
        quotas: What queues may hold; not counted down.
    """
    used, left = set(taken), quotas.copy()
    for each in jobs:
        if each.place is not None and each.holds_its_place:
            used.update(each.place.slots())
            left.use(each.record.job.spec.queue, each.place.accelerator_count)
    found = []
    for each in jobs:
        if each.place is not None and not each.holds_its_place:
            slots, queue = set(each.place.slots()), each.record.job.spec.queue
            if used.isdisjoint(slots) and left.allows(queue, len(slots)):
                used |= slots
                left.use(queue, len(slots))
            else:
                each = replace(each, place=None, moving=False)
        found.append(each)
    return found


def _on_its_way(record: JobRecord) -> bool:
    """Whether a job that holds nothing was given a place, and not told otherwise since."""
    if record.stage is Stage.BACKING_OFF:
        return True
    told = record.reason
    return told is not None and (
        told.code in RECONFIGURES or told.code is ReasonCode.WAITING_FOR_RELEASE
    )


def holding_of(snapshot: ClusterSnapshot, placement: Placement) -> Holding | None:
    """What a placement holds, for a ``Capacity``; None if some of it is not offered."""
    holding: Holding | None = None
    for name, ids in placement.by_node().items():
        found = _offered(snapshot, name, ids)
        if found is None or (holding is not None and holding.kind != found[0]):
            return None
        holding = holding or Holding(found[0])
        holding.add(name, found[1])
    return holding


def _offered(
    snapshot: ClusterSnapshot, name: NodeId, ids: Collection[AcceleratorId]
) -> tuple[str, list[Accelerator]] | None:
    """These accelerators of a node, with their type; None if they are not all offered."""
    for kind, every in snapshot.usable.get(name, {}).items():
        own = [each for each in every if each.id in ids]
        if len(own) == len(ids):
            return kind, own
    return None


def total_by_kind(snapshot: ClusterSnapshot, without: Iterable[Slot] = ()) -> dict[str, int]:
    """Accelerators of each type that are offered, and not among some."""
    gone = set(without)
    found: dict[str, int] = {}
    for name, offer in snapshot.usable.items():
        for kind, every in offer.items():
            count = sum((name, each.id) not in gone for each in every)
            found[kind] = found.get(kind, 0) + count
    return found


def kinds_of_nodes(snapshot: ClusterSnapshot) -> dict[NodeId, str]:
    """The type of each node's accelerators; empty where there are several."""
    return {
        name: next(iter(offer)) if len(offer) == 1 else ""
        for name, offer in snapshot.usable.items()
    }
