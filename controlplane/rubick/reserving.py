"""Where a job that starves can begin soonest, if nobody else begins there meanwhile."""

from collections.abc import Sequence

from controlplane.domain.step_times import Shares
from controlplane.rubick.board import Allowed, Bin, Board
from controlplane.rubick.seat import Seat


def soonest(
    board: Board, seats: Sequence[Seat], kind: str, shares: Shares, allowed: Allowed
) -> tuple[float, list[Bin]] | None:
    """How many seconds until the largest share is free on as many nodes, and which ones these are;
    None if there are not as many nodes.

    Args:
        board: Who holds what.
        seats: The holders, by number.
        kind: Type of the accelerators.
        shares: How many of each node, most first.
        allowed: Nodes to look among.
    """
    found: list[tuple[float, int, Bin]] = []
    for place, where in enumerate(board.bins(kind)):
        if allowed is None or where[1] in allowed:
            wait = _free_after(board, seats, where, shares[0])
            if wait is not None:
                found.append((wait, place, where))
    found.sort()
    if len(found) < len(shares):
        return None
    chosen = found[: len(shares)]
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
