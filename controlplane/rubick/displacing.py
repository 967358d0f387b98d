"""Where a job could be put if others left, and who these are: as few and as little as possible."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from controlplane.domain.job import Topology
from controlplane.placing.racks import Allowed
from controlplane.rubick.board import Bin, Board, Parts, by_rack
from controlplane.rubick.borrowing import Borrowing
from controlplane.rubick.choices import Choice
from controlplane.rubick.seat import Seat, count_of, worth_of

_NODES_LOOKED_AT = 64
"""So many nodes are compared for each share when others are to be displaced."""

_Found = tuple[float, Parts, list[Seat]]


class Displacing:
    """Looks for those who leave; nobody is moved here."""

    def __init__(
        self,
        seats: Sequence[Seat],
        board: Board,
        borrowing: Borrowing,
        protected: frozenset[int],
        at_most: int,
    ) -> None:
        """Knows who has what.

        Args:
            seats: The jobs, numbered by position.
            board: Who holds what.
            borrowing: Who holds what its queue borrows.
            protected: Those that starve, who leave for nobody.
            at_most: So many leave for one job.
        """
        self._seats = seats
        self._board = board
        self._borrowing = borrowing
        self._protected = protected
        self._at_most = at_most

    def victims(
        self, seat: Seat, choice: Choice, smallest_first: bool, reclaims: bool
    ) -> tuple[Parts, list[Seat]] | None:
        """Nodes for the choice, and who would have to leave them; None if there are none.

        Args:
            seat: Who is to get it.
            choice: The choice.
            smallest_first: Whether jobs with few accelerators leave first; else those whose being
                there is worth least.
            reclaims: Whether those leave that borrow, and no others.
        """

        def may_leave(victim: Seat) -> bool:
            if reclaims:
                return self._borrowing.borrows(victim)
            if self._borrowing.protects(victim, seat, choice.accelerators):
                return False
            return victim.rank >= seat.rank

        allowed = seat.nodes_for(choice)[choice.kind]
        if len(choice.shares) < 2 or seat.topology is not Topology.SAME_RACK:
            found = self._among(seat, choice, allowed, smallest_first, may_leave)
            return None if found is None else found[1:]
        every = (node for kind, node in self._board.bins(choice.kind))
        nodes = [node for node in every if allowed is None or node in allowed]
        of_racks = [
            self._among(seat, choice, rack, smallest_first, may_leave)
            for rack in by_rack(nodes, self._board.racks)
            if len(rack) >= len(choice.shares)
        ]
        able = [found for found in of_racks if found is not None]
        return min(able, key=lambda found: found[0])[1:] if able else None

    def _among(
        self,
        seat: Seat,
        choice: Choice,
        allowed: Allowed,
        smallest_first: bool,
        may_leave: Callable[[Seat], bool],
    ) -> _Found | None:
        """What is lost, the nodes, and who leaves."""
        gone: dict[int, Seat] = {}
        parts: list[tuple[Bin, int]] = []
        used: set[Bin] = set()
        racks, near = self._board.racks, set[str]()
        lost = 0.0
        for share in choice.shares:
            best: tuple[tuple[float, bool, int], Bin, list[Seat]] | None = None
            for where in self._candidates(choice.kind, allowed, used, near):
                leaving = self._who_leaves(seat, where, share, gone, smallest_first, may_leave)
                if leaving is None:
                    continue
                loss = sum(
                    worth_of(v.given) if not smallest_first else float(count_of(v)) for v in leaving
                )
                key = (loss, racks.get(where[1]) not in near, self._board.free[where])
                if best is None or key < best[0]:
                    best = (key, where, leaving)
                    if not leaving:
                        break
            if best is None:
                return None
            used.add(best[1])
            near |= {racks[best[1][1]]} if best[1][1] in racks else set()
            parts.append((best[1], share))
            lost += best[0][0]
            gone.update((victim.number, victim) for victim in best[2])
            if len(gone) > self._at_most and not seat.starves_long:
                return None
        return lost, tuple(parts), list(gone.values())

    def _candidates(
        self, kind: str, allowed: Allowed, used: set[Bin], near: Collection[str]
    ) -> Iterator[Bin]:
        looked_at = 0
        for where in self._board.emptiest_first(kind, near):
            if where in used or (allowed is not None and where[1] not in allowed):
                continue
            yield where
            looked_at += 1
            if looked_at >= _NODES_LOOKED_AT:
                return

    def _who_leaves(
        self,
        seat: Seat,
        where: Bin,
        share: int,
        gone: Mapping[int, Seat],
        smallest_first: bool,
        may_leave: Callable[[Seat], bool],
    ) -> list[Seat] | None:
        """Who must leave the node so that so many are free on it; None if not enough can."""
        free = self._board.free[where]
        holders = self._board.held[where]
        for number, count in holders.items():
            if number == seat.number or number in gone:
                free += count
        if free >= share:
            return []
        able = [
            self._seats[number]
            for number in holders
            if number != seat.number
            and number not in gone
            and self._can_leave(self._seats[number])
            and may_leave(self._seats[number])
        ]
        able.sort(
            key=lambda v: (
                (count_of(v), v.number) if smallest_first else (worth_of(v.given), v.number)
            )
        )
        leaving: list[Seat] = []
        for victim in able:
            leaving.append(victim)
            free += holders[victim.number]
            if free >= share:
                return leaving
        return None

    def _can_leave(self, victim: Seat) -> bool:
        if victim.stays or victim.number in self._protected:
            return False
        return victim.given is victim.held
