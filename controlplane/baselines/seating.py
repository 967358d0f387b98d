"""Lays jobs out in few moves: who keeps its size stays, the others get what is left, the largest
first. Where that leaves a job without room though there is enough in all, smaller jobs on single
nodes are moved together, as few accelerators as will do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.baselines.layouts import Layout, placed, with_room
from controlplane.domain.ids import JobUid, NodeId
from controlplane.domain.placement import Placement
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.placing.capacity import Capacity, Holding
from controlplane.placing.order import Quotas
from controlplane.placing.shares import shares_of
from controlplane.placing.standing import Standing, holding_of


@dataclass(frozen=True, slots=True)
class Wish:
    """A job that is to be laid out.

    Attributes:
        standing: The job.
        layouts: How, the wanted one first; the next ones only if there is no room for it.
        pays: Whether others are moved to make room for the wanted one.
    """

    standing: Standing
    layouts: tuple[Layout, ...]
    pays: bool = True


@dataclass(slots=True)
class _Guest:
    """A job that stays unless it is moved to make room for a larger one."""

    standing: Standing
    layout: Layout
    holding: Holding
    placement: Placement

    @property
    def node(self) -> NodeId:
        return next(iter(self.holding.parts))


class Seating:
    """Where everybody comes to lie."""

    def __init__(self, snapshot: ClusterSnapshot, left: Capacity, quotas: Quotas) -> None:
        """Begins with what is left by those who stay in any case.

        Args:
            snapshot: The cluster.
            left: Used up as jobs are laid out.
            quotas: Counted down likewise.
        """
        self.left = left
        self.found: dict[JobUid, Placement] = {}
        self._snapshot = snapshot
        self._quotas = quotas
        self._guests: dict[JobUid, _Guest] = {}

    def stay(self, standing: Standing, layout: Layout | None) -> bool:
        """The job keeps its place, of which nobody was given anything yet; False if that is not to
        be had.

        Args:
            standing: The job, which has a place.
            layout: How it lies, if it may be moved for others.
        """
        place = standing.place
        assert place is not None, "who stays has a place"
        queue, count = standing.record.job.spec.queue, place.accelerator_count
        holding = self.left.claim(place.by_node())
        if holding is None:
            return False
        self._quotas.use(queue, count)
        self.found[standing.uid] = place
        if layout is not None and len(holding.parts) == 1 and len(layout.shares) == 1:
            self._guests[standing.uid] = _Guest(standing, layout, holding, place)
        return True

    def seat(self, wishes: Sequence[Wish]) -> None:
        """Finds places for all that there is room for."""
        for wish in sorted(wishes, key=lambda each: -each.layouts[0].accelerators):
            target = self._seated(wish)
            if target is not None:
                self._quotas.use(wish.standing.record.job.spec.queue, target.accelerator_count)
                self.found[wish.standing.uid] = target

    def _seated(self, wish: Wish) -> Placement | None:
        spec, own = wish.standing.record.job.spec, wish.standing.place
        for i, layout in enumerate(wish.layouts):
            if not self._quotas.allows(spec.queue, layout.accelerators):
                continue
            target = placed(spec, layout, self.left, own)
            if target is None and i == 0 and wish.pays and layout.shares:
                target = self._with_room_made(wish, layout)
            if target is not None:
                return target
        return None

    def _with_room_made(self, wish: Wish, layout: Layout) -> Placement | None:
        """Moves smaller jobs elsewhere, if all of them find room there."""
        moved = self._who_must_move(wish, layout)
        if moved is None:
            return None
        for guest in moved:
            self.left.give_back(guest.holding)
        spec = wish.standing.record.job.spec
        target = placed(spec, layout, self.left, wish.standing.place)
        if target is None:
            self._claim_again(moved)
            return None
        places: dict[JobUid, Placement] = {}
        for guest in sorted(moved, key=lambda each: -each.layout.accelerators):
            place = placed(guest.standing.record.job.spec, guest.layout, self.left, guest.placement)
            if place is None:
                for given in (target, *places.values()):
                    self._give_back(given)
                self._claim_again(moved)
                return None
            places[guest.standing.uid] = place
        for guest in moved:
            place = places[guest.standing.uid]
            self.found[guest.standing.uid] = place
            if place is not guest.placement:
                del self._guests[guest.standing.uid]
        return target

    def _who_must_move(self, wish: Wish, layout: Layout) -> list[_Guest] | None:
        """Those whose going makes room, as few accelerators as will do; None if nothing helps."""
        asking = with_room(wish.standing.record.job.spec, layout, self.left)
        free = self.left.free_by_node(asking.accelerators).get(layout.kind, {})
        there: dict[NodeId, list[_Guest]] = {name: [] for name in free}
        for guest in self._guests.values():
            if guest.node in there and guest.layout.accelerators < layout.accelerators:
                there[guest.node].append(guest)
        moved: list[_Guest] = []
        for share in layout.shares:
            plans = {
                name: going
                for name, count in free.items()
                if (going := _fewest(there[name], share - count)) is not None
            }
            if not plans:
                return None
            name = min(plans, key=lambda each: (_count(plans[each]), free[each]))
            moved += plans[name]
            del free[name]
        return moved

    def _claim_again(self, guests: Sequence[_Guest]) -> None:
        for guest in guests:
            again = self.left.claim(guest.holding.ids())
            assert again is not None, "what was given back is there"

    def _give_back(self, placement: Placement) -> None:
        holding = holding_of(self._snapshot, placement)
        assert holding is not None, "it was free a moment ago"
        self.left.give_back(holding)


def _fewest(guests: Sequence[_Guest], lacking: int) -> list[_Guest] | None:
    """Of these as few accelerators as make up for what is lacking; None if all are too few."""
    going: list[_Guest] = []
    for guest in sorted(guests, key=lambda each: -each.layout.accelerators):
        if lacking > 0 and guest.layout.accelerators <= lacking:
            going.append(guest)
            lacking -= guest.layout.accelerators
    if lacking <= 0:
        return going
    rest = [guest for guest in guests if guest not in going]
    larger = [guest for guest in rest if guest.layout.accelerators >= lacking]
    if not larger:
        return None
    return [*going, min(larger, key=lambda each: each.layout.accelerators)]


def _count(guests: Sequence[_Guest]) -> int:
    return sum(guest.layout.accelerators for guest in guests)


def layout_of(standing: Standing, layouts: Sequence[Layout], kinds: Mapping[NodeId, str]) -> int:
    """Position of the layout that the job has; -1 if it is none of these.

    Args:
        standing: The job, which has a place.
        layouts: How it could lie.
        kinds: Type of the accelerators of each node; empty for a mixture.
    """
    place = standing.place
    assert place is not None, "it has a place"
    shares, kind = shares_of(place), kinds.get(next(iter(place.nodes)), "")
    found = (i for i, each in enumerate(layouts) if each.suits(place, shares, kind))
    return next(found, -1)
