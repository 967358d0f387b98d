"""Elastic data parallel: every running job gets its share, changed on arrival and finish.

1. As many jobs as fit with their minimum are admitted, in order, running ones where they are.
   What is left is dealt out in rounds, one step of size to the job that has least.
2. The shares are laid out with as few changes as they allow: a job whose share is what it holds
   stays, one that shrinks keeps a part of what it has. Only if somebody who was admitted finds no
   place that way is everybody laid out as in the first step.

What keeps the cluster calm: equals do not push each other out; where shares differ by one step,
the larger one stays where it is; a job that has not trained yet is not restarted only to grow; and
a job that recovers from a failure of its own comes after its equals, but keeps its share.

A job keeps off nodes that are under suspicion: it takes its minimum there only if there is no
other room, and else does not grow onto them.
"""

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.domain.ids import AcceleratorId, JobUid, NodeId
from controlplane.domain.job import JobSpec, Topology
from controlplane.domain.lifecycle import Stage
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import NOWHERE, Intent, JobRecord
from controlplane.domain.snapshot import ClusterSnapshot, Slot
from controlplane.placing.capacity import Capacity, Holding, Parts
from controlplane.placing.layout import (
    as_asked,
    has_room,
    has_room_everywhere,
    placement_on,
    reserved,
    reserved_rather_off,
    sizes_in,
    ways,
)
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
from controlplane.placing.waiting import Ahead, Question, Waits, question

_ON_ITS_WAY = frozenset(
    {
        ReasonCode.SHRUNK_FOR_OTHERS,
        ReasonCode.GROWN_INTO_FREE,
        ReasonCode.MOVED_OFF_NODE,
        ReasonCode.SPEC_CHANGED,
        ReasonCode.WAITING_FOR_RELEASE,
    }
)
"""Reasons of a job that holds nothing just now, but was given a place already."""


def equal_share(snapshot: ClusterSnapshot) -> Decision:
    """Where each job should run; see the module's docstring for the rule."""
    return _Round(snapshot).decide()


@dataclass(slots=True, eq=False)
class _Seat:
    """An admitted job.

    Attributes:
        record: The job.
        rank: Its place in the order of admission.
        sizes: Numbers of accelerators that it can have in this cluster.
        at: Where it runs or is about to run, and may stay; None if it has to find a place.
        own: The accelerators of ``at``.
        holding: What it is given.
        avoid: Nodes that it keeps off while it gets its minimum elsewhere.
        shut: Nodes from which nothing can join it where it runs.
    """

    record: JobRecord
    rank: int
    sizes: tuple[int, ...]
    at: Placement | None
    own: Parts
    holding: Holding
    avoid: frozenset[NodeId]
    shut: frozenset[NodeId] = NOWHERE

    @property
    def without(self) -> frozenset[NodeId]:
        """Nodes that it does not grow onto: those to avoid, unless it could not do without some of
        them; and those from which nothing can join it, though it keeps what it has there.
        """
        avoid = self.avoid if self.avoid.isdisjoint(self.holding.parts) else NOWHERE
        has_its_own = self.holding.count >= _count(self.own)
        return avoid | (self.shut if has_its_own else self.shut.difference(self.own))

    @property
    def uid(self) -> JobUid:
        """The job's uid."""
        return self.record.job.uid

    def size_above(self, count: int, limits: Mapping[JobUid, int] | None) -> int | None:
        """The next size above ``count``; None at its maximum or its limit."""
        limit = None if limits is None else limits[self.uid]
        if limit is not None and count >= limit:
            return None
        if count >= self.sizes[-1]:
            return None
        size = self.sizes[bisect_right(self.sizes, count)]
        return None if limit is not None and size > limit else size

    def grow(self, capacity: Capacity, quotas: Quotas, limits: Mapping[JobUid, int] | None) -> bool:
        """Makes its share larger by one step, if accelerators and quota allow."""
        size = self.size_above(self.holding.count, limits)
        while size is not None and not _grown(self, size, capacity, quotas):
            # Without plans, which may ask for room on one node, more is never easier to find.
            size = self.size_above(size, limits) if self.record.job.spec.plans else None
        return size is not None

    def turn(self) -> tuple[int, int, int]:
        """Whose turn it is to grow: who has least; of those, who is not restarted for it."""
        share = self.holding.count
        cost = 1 if self.at is None else (0 if share < _count(self.own) else 2)
        return (share, cost, self.rank)

    def keeps_all_but_the_plan(self, target: Placement) -> bool:
        """Whether the job runs where it should, but not as it should."""
        attempt = self.record.attempt
        if attempt is None or attempt.intent is not Intent.RUN or target is attempt.placement:
            return False
        return target.units == attempt.placement.units and target != attempt.placement

    def placement(self, capacity: Capacity) -> Placement:
        """Where it should run; the very placement that it has if nothing changes."""
        if self.at is not None:
            attempt, more = self.record.attempt, self.holding.count - _count(self.own)
            trained = attempt is not None and attempt.trained
            # To restart a job that has not trained yet only to grow would waste its start. What
            # it was given beyond what it has stays free for it.
            if (more == 0 or (more > 0 and not trained)) and self.holding.covers(self.own):
                return self.at
        return placement_on(self.record.job.spec, self.holding.parts, capacity)


class _Round:
    """One decision in the making."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.snapshot = snapshot
        self.away = nodes_to_leave(snapshot)
        self.closed = snapshot.conditions.closed
        self.quotas = Quotas(snapshot)
        self.targets: dict[JobUid, Placement] = {}
        self.taken = {
            (node.id, slot)
            for node in snapshot.nodes.values()
            for stray in node.strays
            for slot in stray.accelerators
        }

    def decide(self) -> Decision:
        records = candidates(self.snapshot, _standing)
        movable = [r for r in records if r.attempt is None or not self._fixed(r)]
        reasons: dict[JobUid, Reason] = dict.fromkeys(self.targets, RUNNING)
        admission = _Admission(self, sticky=True)
        admission.run(movable)
        if admission.scattered:
            again = _Admission(self, sticky=False)
            again.run(movable)
            if again.seats.keys() > admission.seats.keys():
                admission = again
        reasons.update(admission.reasons)
        seats = list(admission.seats.values())
        _deal(seats, admission.paper, admission.quotas)
        for seat in self._laid_out(seats) or seats:
            target = self.targets[seat.uid] = seat.placement(admission.paper)
            if seat.keeps_all_but_the_plan(target):
                reasons[seat.uid] = OTHER_PLAN
        return Decision(self.targets, reasons)

    def _fixed(self, record: JobRecord) -> bool:
        """Keeps a running job where it is if nothing can be said about it now: one of its nodes
        has not been heard of yet or was cordoned, or its queue was removed.
        """
        attempt = record.attempt
        if attempt is None or attempt.intent is not Intent.RUN:
            return False
        closed = bool(self.closed) and not self.closed.isdisjoint(attempt.placement.nodes)
        orphaned = not self.quotas.take(record.job)
        if not (closed or orphaned) or left_nodes(attempt.placement, self.away):
            return False
        self.targets[record.uid] = attempt.placement
        self.taken.update(attempt.placement.slots())
        self.quotas.use(record.job.spec.queue, attempt.placement.accelerator_count)
        return True

    def at(self, record: JobRecord, capacity: Capacity) -> Placement | None:
        """Where a job runs, or was meant to run next: what it may keep."""
        attempt = record.attempt
        if attempt is None:
            placement = record.next_placement
        else:
            placement = attempt.placement if attempt.intent is Intent.RUN else attempt.then
        if placement is None or cannot_stay(record, placement, self.away, capacity):
            return None
        if attempt is None and not placement.nodes.isdisjoint(record.avoids(self.snapshot.at)):
            return None
        wanted = as_wanted(record, placement, capacity)
        # What runs somewhere has room there, but what would begin is asked.
        if attempt is None and not has_room(record.job.spec, wanted.plan, wanted.slots(), capacity):
            return None
        return wanted

    def _laid_out(self, admitted: list[_Seat]) -> list[_Seat] | None:
        """Finds a place for every share with few changes; None if that leaves somebody out."""
        left = Capacity(self.snapshot, without=self.taken)
        quotas = self.quotas.copy()
        shares = {seat.uid: seat.holding.count for seat in admitted}
        seats: list[_Seat] = []
        moving: list[_Seat] = []
        for seat in admitted:
            part = _part(seat.record.job.spec, seat.own, shares[seat.uid], left)
            kept = left.claim(part) if part else None
            if kept is None:
                moving.append(seat)
            else:
                seats.append(replace(seat, holding=kept))
        moving.sort(key=lambda seat: -shares[seat.uid])
        for seat in moving:
            placed = _largest(seat, shares[seat.uid], left)
            if placed is None:
                return None
            seats.append(replace(seat, at=None, own={}, holding=placed))
        for seat in seats:
            quotas.use(seat.record.job.spec.queue, seat.holding.count)
        _deal(seats, left, quotas, shares)
        # What could not be laid out for one is there for another.
        _deal(seats, left, quotas)
        return seats


class _Admission:
    """Who gets its minimum. Sticky: running jobs keep theirs where they are, if they can."""

    def __init__(self, round_: _Round, *, sticky: bool) -> None:
        self.seats: dict[JobUid, _Seat] = {}
        self.reasons: dict[JobUid, Reason] = {}
        self.scattered = False
        self.paper = Capacity(round_.snapshot, without=round_.taken)
        self.quotas = round_.quotas.copy()
        self._round = round_
        self._sticky = sticky
        self._waits = Waits(round_.snapshot, self.paper)
        self._at: dict[JobUid, tuple[Placement, Parts]] = {}
        self._claims: dict[JobUid, Holding] = {}
        self._here: dict[JobUid, tuple[int, ...]] = {}
        self._order: list[JobRecord] = []
        self._answers: dict[Question, Reason] = {}

    def run(self, records: list[JobRecord]) -> None:
        """Goes through all candidates in order."""
        for record in records:
            if record.attempt is None and record.next_placement is None:
                continue
            at = self._round.at(record, self.paper)
            if at is not None:
                self._at[record.uid] = (at, at.by_node())
                self._order.append(record)
        for record in self._order if self._sticky else ():
            self._claim(record)
        for rank, record in enumerate(records):
            known = self._answers.get(question(record)) if record.attempt is None else None
            if known is not None:
                self.reasons[record.job.uid] = known
                continue
            holding = self._minimum(record)
            if isinstance(holding, Reason):
                self.reasons[record.uid] = holding
                continue
            self.quotas.use(record.job.spec.queue, holding.count)
            at, own = self._at.get(record.uid, (None, {}))
            attempt = record.attempt
            if attempt is None or at is None or attempt.intent is not Intent.RUN:
                ids = holding.ids().items()
                self._waits.gets(record.uid, [(name, one) for name, each in ids for one in each])
            self.reasons[record.uid] = RUNNING if at is not None else self._why_held(record)
            here = self._sizes(record)
            avoid, shut = record.avoids(self._round.snapshot.at), NOWHERE
            if avoid and attempt is not None and at is not None:
                shut = record.cannot_be_joined_from(self._round.snapshot.at)
            self.seats[record.uid] = _Seat(record, rank, here, at, own, holding, avoid - shut, shut)

    def _why_held(self, record: JobRecord) -> Reason:
        """Why an admitted job that has no place to keep is given one."""
        attempt = record.attempt
        if attempt is None or attempt.intent is not Intent.RUN:
            return RUNNING
        return cannot_stay(record, attempt.placement, self._round.away, self.paper) or RUNNING

    def _sizes(self, record: JobRecord) -> tuple[int, ...]:
        """Numbers of accelerators that it can have here. What runs has room, whatever is estimated
        of its spec now.
        """
        uid = record.job.uid
        known = self._here.get(uid)
        if known is None:
            at = self._at.get(uid) if record.attempt is not None else None
            known = sizes_in(record.job.spec, self.paper)
            if not known and at is not None:
                known = (at[0].accelerator_count,)
            self._here[uid] = known
        return known

    def _least(self, record: JobRecord) -> Iterator[int]:
        """Sizes of which the first one that finds a place is the job's minimum: the smallest alone,
        but where not all accelerators have the memory for it, a larger one may need less of each.
        """
        here = self._sizes(record)
        yield from here[:1]
        if len(here) > 1 and not has_room_everywhere(record.job.spec, self.paper):
            yield from here[1:]

    def _claim(self, record: JobRecord) -> None:
        """Sets the job's minimum aside where it is, if it is left there."""
        spec = record.job.spec
        own = self._at[record.uid][1]
        parts = (_part(spec, own, count, self.paper) for count in self._least(record))
        part = next(filter(None, parts), None)
        claim = self.paper.claim(part) if part else None
        if claim is not None:
            self._claims[record.uid] = claim

    def _minimum(self, record: JobRecord) -> Holding | Reason:
        spec = record.job.spec
        claim = self._claims.pop(record.uid, None)
        stays = claim is not None and record.attempt is not None
        never = None if stays else impossible(record, self.paper, self.quotas)
        if never is not None:
            if claim is not None:
                self.paper.give_back(claim)
            self._answers[question(record)] = never
            return never
        least = self._sizes(record)[0]
        left = self.quotas.left(spec.queue)
        if left is not None and left < least:
            if claim is not None:
                self.paper.give_back(claim)
            self._comes_first(record, Ahead(record, least, of_quota=True))
            return self._waits.for_quota(record, least, left)
        holding = claim or self._found(record, left)
        holding = holding or self._at_the_cost_of_later_ones(record, least)
        if holding is not None:
            return holding
        asked = ways(spec, least, self.paper)
        group = min(way.group for way in asked)
        available = max(self.paper.most(way.request, way.group) for way in asked)
        asking = as_asked(record, asked)
        if spec.accelerators.topology is not Topology.ANY or group > 1:
            self.scattered |= self.paper.total_left(asking.job.spec.accelerators) >= least
        self._comes_first(record, Ahead(asking, least))
        return self._waits.for_accelerators(asking, least, available)

    def _found(self, record: JobRecord, left: int | None) -> Holding | None:
        """A place for the job's minimum; ``left`` is what its queue may still hold."""
        avoid = record.avoids(self._round.snapshot.at)
        for count in self._least(record):
            if left is None or count <= left:
                holding = reserved_rather_off(record.job.spec, count, self.paper, avoid)
                if holding is not None:
                    return holding
        return None

    def _comes_first(self, record: JobRecord, ahead: Ahead) -> None:
        """Those who ask the same later wait behind this one: only less is left for them."""
        if record.attempt is None:
            behind = self._waits.behind(ahead.record, ahead.wanted, ahead)
            self._answers[question(record)] = behind

    def _at_the_cost_of_later_ones(self, record: JobRecord, least: int) -> Holding | None:
        """Takes what running jobs that come later in the order have, the last one's first."""
        avoid = record.avoids(self._round.snapshot.at)
        given_back: list[JobRecord] = []
        for later in reversed(self._order):
            claim = self._claims.pop(later.uid, None)
            if claim is None:
                continue
            self.paper.give_back(claim)
            given_back.append(later)
            holding = reserved_rather_off(record.job.spec, least, self.paper, avoid)
            if holding is not None:
                return holding
        for later in given_back:
            self._claim(later)
        return None


def _standing(record: JobRecord) -> int:
    """Among equals: who runs, who was given a place or lost it once without fault, who waits, who
    failed, or was set back again and again.
    """
    if record.attempt is not None:
        return 0
    if record.stage is Stage.BACKING_OFF:
        return 3 if record.failures or record.setbacks > 1 else 1
    return 1 if record.reason is not None and record.reason.code in _ON_ITS_WAY else 2


def _count(own: Parts) -> int:
    return sum(map(len, own.values()))


def _part(spec: JobSpec, own: Parts, count: int, capacity: Capacity) -> Parts | None:
    """``count`` of a job's accelerators, from the nodes where it has most; all if it has fewer.

    None if no plan can be laid out over a part of them.
    """
    if count >= _count(own):
        return own
    for group, request in ways(spec, count, capacity):
        chosen: dict[NodeId, Sequence[AcceleratorId]] = {}
        left = count
        for name, ids in sorted(own.items(), key=lambda part: -len(part[1])):
            size = min(left, len(ids) - len(ids) % group)
            if size > 0:
                chosen[name] = ids[:size]
                left -= size
        if left == 0 and (request is spec.accelerators or capacity.suits(request, _slots(chosen))):
            return chosen
    return None


def _slots(parts: Parts) -> list[Slot]:
    return [(name, each) for name, ids in parts.items() for each in ids]


def _largest(seat: _Seat, share: int, left: Capacity) -> Holding | None:
    """The job's share, or the next smaller size for which there is a place; rather a smaller one
    than one on nodes to avoid.
    """
    spec = seat.record.job.spec
    fitting = (
        reserved(spec, n, left, without)
        for without in dict.fromkeys((seat.without, NOWHERE))
        for n in reversed(seat.sizes)
        if n <= share
    )
    return next((holding for holding in fitting if holding is not None), None)


def _deal(
    seats: list[_Seat],
    capacity: Capacity,
    quotas: Quotas,
    limits: Mapping[JobUid, int] | None = None,
) -> None:
    """Deals out what is left: who has least grows by one step, until nobody can.

    Args:
        seats: Who takes part.
        capacity: What is left.
        quotas: What the queues may still hold.
        limits: Most that each may come to hold; None for no limit.
    """
    able = (seat for seat in seats if seat.size_above(seat.holding.count, limits) is not None)
    growing = [(seat.turn(), seat) for seat in able]
    heapq.heapify(growing)
    while growing:
        _, seat = growing[0]
        if seat.grow(capacity, quotas, limits):
            heapq.heapreplace(growing, (seat.turn(), seat))
        else:
            heapq.heappop(growing)


def _grown(seat: _Seat, size: int, capacity: Capacity, quotas: Quotas) -> bool:
    """Makes a share larger if accelerators and quota allow."""
    spec, more = seat.record.job.spec, size - seat.holding.count
    request = spec.accelerators
    if not quotas.allows(spec.queue, more):
        return False
    if not any(
        (way.request is request or capacity.suits(way.request, _slots(seat.holding.ids())))
        and capacity.extend(
            way.request, seat.holding, more, prefer=seat.own, group=way.group, without=seat.without
        )
        for way in ways(spec, size, capacity)
    ):
        if seat.own:
            return False
        # It has to be started anyway, so it may as well begin on a larger node, or another type.
        capacity.give_back(seat.holding)
        elsewhere = reserved(spec, size, capacity, seat.without)
        if elsewhere is None:
            again = capacity.claim(seat.holding.ids())
            assert again is not None
            seat.holding = again
            return False
        seat.holding = elsewhere
    quotas.use(spec.queue, more)
    return True
