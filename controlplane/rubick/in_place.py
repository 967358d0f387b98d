"""Giving a job something else where it is, so that its ranks need not restart."""

from controlplane.rubick.board import Board, Parts
from controlplane.rubick.seat import Given, kind_of


def in_place(held: Given, better: Given, board: Board) -> Given:
    """The better choice on the nodes that the job has, if there is room.

    Args:
        held: What the job had.
        better: What it was given since, anywhere.
        board: What is free, that which it had included.
    """
    choice = better.choice
    if choice is None or kind_of(held) != choice.kind:
        return better
    have = tuple(sorted((count for _, count in held.parts), reverse=True))
    if choice.shares == have:
        return Given(held.parts, better.worth, choice)
    (where, _), *others = held.parts
    grows = choice.accelerators > held.accelerators
    # What is kept free for somebody who starves is not there to grow into.
    fits = board.free[where] >= choice.accelerators and (board.is_open(where) or not grows)
    if not others and len(choice.shares) == 1 and fits:
        return Given(((where, choice.accelerators),), better.worth, choice)
    return better


def grown(held: Given | None, accelerators: int, board: Board, quota: int | None) -> Parts | None:
    """So many accelerators of the one node that the job has some of, if as many are free; None if
    not.

    Args:
        held: What it has.
        accelerators: How many it shall have.
        board: What is free beside that.
        quota: What its queue may hold more; None for no limit.
    """
    if held is None or len(held.parts) != 1:
        return None
    (where, have), more = held.parts[0], accelerators - held.accelerators
    if board.free[where] < more or (quota is not None and quota < more):
        return None
    return ((where, have + more),)
