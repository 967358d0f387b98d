"""Giving a job something else where it is, so that its ranks change in memory and need not restart.

Ranks can stay if all of them do and others join them, or if the first ones do and the others leave;
and if those that are tensor parallel are on one node then. It is the engine that decides
(``engine.resizing``), by accelerators; here it is foreseen by nodes.
"""

from collections import Counter
from collections.abc import Sequence

from controlplane.placing.racks import Allowed
from controlplane.rubick.board import Bin, Board, Parts
from controlplane.rubick.choices import Choice

Ranks = tuple[Bin, ...]
"""Where each rank of a job is, in their order."""


def is_in_place(ranks: Ranks, parts: Parts, group: int) -> bool:
    """Whether ranks that are so can go over to these accelerators in memory.

    Args:
        ranks: Where they are; none if there are none.
        parts: Where they should be.
        group: How many are tensor parallel.
    """
    have, wanted = Counter(ranks), Counter(dict(parts))
    count = wanted.total()
    if not have:
        return False
    if count < len(ranks):
        order = list(ranks[:count])
        if Counter(order) != wanted:
            return False
    else:
        if any(wanted[where] < had for where, had in have.items()):
            return False
        here = [where for where in have for _ in range(wanted[where] - have[where])]
        there = [where for where, more in parts if where not in have for _ in range(more)]
        order = [*ranks, *here, *there]
    return group == 1 or all(
        len(set(order[first : first + group])) == 1 for first in range(0, count, group)
    )


def could_be_in_place(ranks: Ranks, choice: Choice) -> bool:
    """Whether some place for the choice is one, if only there is room.

    Args:
        ranks: Where the job's ranks are; none if it has none.
        choice: What it could be given.
    """
    if not ranks or ranks[0][0] != choice.kind:
        return False
    if not choice.shares:
        return True
    if choice.accelerators < len(ranks):
        return _sorted(ranks[: choice.accelerators]) == choice.shares
    have = _sorted(ranks)
    return len(have) <= len(choice.shares) and all(
        had <= share for had, share in zip(have, choice.shares, strict=False)
    )


def place_for(ranks: Ranks, choice: Choice, board: Board, allowed: Allowed) -> Parts | None:
    """Accelerators for the choice with which the ranks can stay where they are; None if those are
    not free.

    Args:
        ranks: Where they are.
        choice: What they are to have.
        board: What is free, that which they had included.
        allowed: Nodes on which others may join them.
    """
    if not could_be_in_place(ranks, choice):
        return None
    count = choice.accelerators
    if count <= len(ranks):
        parts = tuple(Counter(ranks[:count]).items())
    elif not choice.shares:
        return None
    else:
        have = [where for where, _ in Counter(ranks).most_common()]
        parts = tuple(zip(have, choice.shares, strict=False))
        others = choice.shares[len(have) :]
        if not board.has(parts):
            return None
        joining = _beside(have, others, choice.kind, board, allowed) if others else ()
        if joining is None:
            return None
        parts += joining
    if not board.has(parts) or not is_in_place(ranks, parts, choice.plan.tensor_parallel):
        return None
    return parts


def _beside(
    have: Sequence[Bin], shares: tuple[int, ...], kind: str, board: Board, allowed: Allowed
) -> Parts | None:
    """Room for these on other nodes."""
    rest = tuple((where, board.free[where]) for where in have)
    board.take(_NOBODY, rest)
    found = board.find(kind, shares, allowed)
    board.give_back(_NOBODY, rest)
    return found


_NOBODY = -1
"""Holds what is not to be looked at."""


def _sorted(ranks: Ranks) -> tuple[int, ...]:
    return tuple(sorted(Counter(ranks).values(), reverse=True))


def grown(held: Parts, accelerators: int, board: Board, quota: int | None) -> Parts | None:
    """So many accelerators of the one node that the job has some of, if as many are free; None if
    not.

    Args:
        held: What it has; empty for nothing.
        accelerators: How many it shall have.
        board: What is free beside that.
        quota: What its queue may hold more; None for no limit.
    """
    if len(held) != 1:
        return None
    where, have = held[0]
    more = accelerators - have
    if board.free[where] < more or (quota is not None and quota < more):
        return None
    return ((where, accelerators),)
