"""Jobs that stood still for too long: who comes first, and where one can begin soonest."""

from collections.abc import Sequence

from controlplane.domain.job import Topology
from controlplane.domain.step_times import Shares
from controlplane.placing.racks import Allowed
from controlplane.rubick.board import Bin, Board, by_rack
from controlplane.rubick.seat import Seat, count_of


def protected(seats: Sequence[Seat], limit: float) -> frozenset[int]:
    """The numbers of those that starve and come before others: whoever began to first, as long as
    they hold no more than so much together. The first one always does.

    Args:
        seats: All jobs.
        limit: Accelerators.
    """
    found: list[int] = []
    starving = [seat for seat in seats if seat.starves_since is not None and seat.choices.every]
    for seat in sorted(starving, key=lambda s: (s.starves_since or 0.0, s.number)):
        best = int(seat.worths.of_choices.argmax())
        count = count_of(seat) or seat.choices.every[best].accelerators
        if count <= limit or not found:
            limit -= count
            found.append(seat.number)
    return frozenset(found)


def soonest(
    board: Board,
    seats: Sequence[Seat],
    kind: str,
    shares: Shares,
    allowed: Allowed,
    topology: Topology = Topology.ANY,
) -> tuple[float, list[Bin]] | None:
    """How many seconds until the largest share is free on as many nodes, and which ones these are;
    None if there are not as many nodes, of one rack where the job must keep to one.

    Args:
        board: Who holds what.
        seats: The holders, by number.
        kind: Type of the accelerators.
        shares: How many of each node, most first.
        allowed: Nodes to look among.
        topology: How far apart they may be.
    """
    found = _free_first(board, seats, kind, shares, allowed)
    if topology is not Topology.SAME_RACK or len(shares) < 2:
        return _first(found, len(shares))
    racks = by_rack([where[1] for _, _, where in found], board.racks)
    of_racks = [_first([e for e in found if e[2][1] in rack], len(shares)) for rack in racks]
    able = [each for each in of_racks if each is not None]
    return min(able, key=lambda each: each[0], default=None)


def _free_first(
    board: Board, seats: Sequence[Seat], kind: str, shares: Shares, allowed: Allowed
) -> list[tuple[float, int, Bin]]:
    """Nodes on which the largest share will be free, those first where it is soonest."""
    found: list[tuple[float, int, Bin]] = []
    for place, where in enumerate(board.bins(kind)):
        if allowed is None or where[1] in allowed:
            wait = _free_after(board, seats, where, shares[0])
            if wait is not None:
                found.append((wait, place, where))
    found.sort()
    return found


def _first(found: Sequence[tuple[float, int, Bin]], nodes: int) -> tuple[float, list[Bin]] | None:
    if len(found) < nodes:
        return None
    chosen = found[:nodes]
    return chosen[-1][0], [where for _, _, where in chosen]


def _free_after(board: Board, seats: Sequence[Seat], where: Bin, share: int) -> float | None:
    free = board.free[where]
    if free >= share:
        return 0.0
    ends = sorted(
        (seats[number].held_seconds_left, count) for number, count in board.held[where].items()
    )
    for end, count in ends:
        free += count
        if free >= share:
            return end
    return None
