"""Equal shares of accelerators in steps that jobs can use, numbers in and out."""

from bisect import bisect_right
from collections.abc import Sequence


def equal_counts(total: int, sizes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """How many accelerators each job gets; 0 for a job that waits.

    Each gets the largest of its sizes that is within an equal share. What is left over goes, in
    order, to jobs whose next size still fits, until nothing changes. With more jobs than
    accelerators the first ones get one each.

    Args:
        total: Accelerators in all.
        sizes: What each job can use, ascending; in order of arrival.
    """
    share = max(1, total // len(sizes)) if sizes else 0
    given = [0] * len(sizes)
    for i, able in enumerate(sizes):
        below = bisect_right(able, min(share, total))
        if below:
            given[i] = able[below - 1]
            total -= given[i]
    changed = True
    while changed:
        changed = False
        for i, able in enumerate(sizes):
            above = bisect_right(able, given[i])
            if above < len(able) and able[above] - given[i] <= total:
                total -= able[above] - given[i]
                given[i] = able[above]
                changed = True
    return tuple(given)
