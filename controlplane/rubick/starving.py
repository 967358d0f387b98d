"""Jobs that stood still for too long: who comes first, and where one can begin soonest."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from controlplane.domain.step_times import Shares
from controlplane.rubick.board import Allowed, Bin, Board
from controlplane.rubick.borrowing import Borrowing
from controlplane.rubick.choices import best_first
from controlplane.rubick.seat import Seat, count_of


def protected(seats: Sequence[Seat], limit: float) -> frozenset[int]:
    """The numbers of those that starve and come before others, and of those that starved and have
    run for a short time: whoever stood still longest first, as long as they hold no more than so
    much together. The first one that waits always does.

    Args:
        seats: All jobs.
        limit: Accelerators.
    """
    found: list[int] = []
    starving = [seat for seat in seats if seat.starves_since is not None and seat.choices.every]
    starving.sort(key=lambda s: (s.starves_since or 0.0, s.number))
    first = next((seat for seat in starving if seat.held is None), None)
    for seat in [*([first] if first is not None else []), *(s for s in starving if s is not first)]:
        best = int(seat.worths.of_choices.argmax())
        count = count_of(seat) or seat.choices.every[best].accelerators
        if count <= limit or not found:
            limit -= count
            found.append(seat.number)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Leaving:
    """When holders leave what a job needs that starves.

    Attributes:
        seat: The job.
        seats: The holders, by number.
        protected: Of these, those that starve or have just begun after that.
        borrowing: What queues borrow.
        cool_down_seconds: So long after a start or change a holder is left in peace.
        quantum_seconds: The same of a holder that starved.
    """

    seat: Seat
    seats: Sequence[Seat]
    protected: Collection[int]
    borrowing: Borrowing
    cool_down_seconds: float
    quantum_seconds: float

    def within(self, number: int, accelerators: int) -> float:
        """In how many seconds, as far as is known: when the holder ends; or if the job starved for
        long, when it may take what the holder has for so many accelerators.
        """
        holder = self.seats[number]
        is_firm = holder.promised or holder.rank < self.seat.rank
        if not self.seat.starves_long or is_firm:
            return holder.ends_within
        if self.borrowing.protects(holder, self.seat, accelerators):
            return holder.ends_within
        peace = self.quantum_seconds if number in self.protected else self.cool_down_seconds
        return min(holder.ends_within, peace)


def begins_soonest(
    board: Board, leaving: Leaving, quota: float, looked_at: int
) -> tuple[float, list[Bin]] | None:
    """In how many seconds the job that starves can begin, and on which nodes, where it is to its
    best advantage; None if nodes are not what it waits for.

    Args:
        board: Who holds what.
        leaving: When others leave.
        quota: Accelerators that are left of its queue's.
        looked_at: So many of its choices are compared.
    """
    seat = leaving.seat
    best: tuple[float, float, list[Bin]] | None = None
    for i in best_first(seat.worths.of_choices, -inf)[:looked_at]:
        choice = seat.choices.every[i]
        if choice.accelerators > quota:
            continue  # It is its quota that it waits for, and no node.
        if not choice.shares or choice.kind not in seat.nodes_for(choice):
            continue
        within = partial(leaving.within, accelerators=choice.accelerators)
        nodes = seat.nodes_for(choice)[choice.kind]
        waits = soonest(board, within, choice.kind, choice.shares, nodes)
        if waits is None:
            continue
        loss = waits[0] - float(seat.worths.of_choices[i]) / seat.worths.of_a_second
        if best is None or loss < best[0]:
            best = (loss, *waits)
    return None if best is None else best[1:]


def soonest(
    board: Board, leaves_within: Callable[[int], float], kind: str, shares: Shares, allowed: Allowed
) -> tuple[float, list[Bin]] | None:
    """How many seconds until the largest share is free on as many nodes, and which ones these are;
    None if there are not as many nodes. Where that is not known, it is infinite, and nodes come
    first that lack least: as nobody else is put on them, they stay the first.

    Args:
        board: Who holds what.
        leaves_within: In how many seconds a holder, by number, has left what it holds.
        kind: Type of the accelerators.
        shares: How many of each node, most first.
        allowed: Nodes to look among.
    """
    found: list[tuple[float, int, int, Bin]] = []
    for place, where in enumerate(board.bins(kind)):
        if allowed is None or where[1] in allowed:
            wait = _free_after(board, leaves_within, where, shares[0])
            if wait is not None:
                lacks = max(0, shares[0] - board.free[where])
                found.append((wait, lacks, place, where))
    found.sort()
    if len(found) < len(shares):
        return None
    chosen = found[: len(shares)]
    return chosen[-1][0], [each[-1] for each in chosen]


def _free_after(
    board: Board, leaves_within: Callable[[int], float], where: Bin, share: int
) -> float | None:
    free = board.free[where]
    if free >= share:
        return 0.0
    ends = sorted((leaves_within(number), count) for number, count in board.held[where].items())
    for end, count in ends:
        free += count
        if free >= share:
            return end
    return None
