"""Which accelerators of a node: few NVLink islands, and those whole that others may need.

Accelerators of an island reach each other several times as fast as others of the node. Those that
tell no island are each taken for one of its own.
"""

from collections.abc import Collection, Sequence

from controlplane.domain.ids import AcceleratorId
from controlplane.domain.node import Accelerator

_Islands = dict[str, list[Accelerator]]


def is_divided(accelerators: Sequence[Accelerator]) -> bool:
    """Whether some of these are in an island, and others are not in the same one."""
    return len({each.island for each in accelerators}) > 1


def in_groups(accelerators: Sequence[Accelerator], group: int) -> int:
    """How many of these make groups that lie within an island each; where they are all alike, and
    be it that they tell no island, any group does.
    """
    if not accelerators or not is_divided(accelerators):
        return len(accelerators) - len(accelerators) % group
    islands = _by_island(accelerators).values()
    return sum(len(every) - len(every) % group for every in islands)


def picked(
    free: Sequence[Accelerator],
    count: int,
    group: int = 1,
    own: Sequence[AcceleratorId] = (),
    beside: Collection[str] = (),
) -> list[Accelerator]:
    """So many of these, or all if there are not as many.

    The job's own first, in their order; then those of the island with the fewest that has enough;
    else whole islands, the largest first, and the rest so.

    Args:
        free: What is left of a node.
        count: How many are wanted.
        group: How many the job uses most closely together: these are taken of one island where
            that has as many.
        own: What the job had before.
        beside: Islands that it is on already, which come first.
    """
    chosen: list[Accelerator] = []
    if own:
        known = {each.id: each for each in free}
        chosen = [known[each] for each in own if each in known][:count]
        mine = {each.id for each in chosen}
        free = [each for each in free if each.id not in mine] if mine else free
    more = count - len(chosen)
    if more <= 0:
        return chosen
    if more >= len(free) or not is_divided(free):
        return [*chosen, *free[:more]]
    near = {*beside, *(each.island for each in chosen)} - {""}
    return [*chosen, *_of_few_islands(_by_island(free), more, group, near)]


def side_by_side(accelerators: Sequence[Accelerator], group: int) -> Sequence[Accelerator]:
    """The same, in the order in which ranks are numbered over them: those of an island one after
    the other, and first what makes whole groups.
    """
    if len(accelerators) < 2 or not is_divided(accelerators):
        return accelerators
    islands = _by_island(accelerators).values()
    whole = [each for every in islands for each in every[: len(every) - len(every) % group]]
    rest = [each for every in islands for each in every[len(every) - len(every) % group :]]
    return whole + rest


def _by_island(accelerators: Sequence[Accelerator]) -> _Islands:
    found: _Islands = {}
    for each in accelerators:
        # An island that is called like an accelerator would only be taken for its own.
        found.setdefault(each.island or each.id, []).append(each)
    return found


def _of_few_islands(
    islands: _Islands, count: int, group: int, near: Collection[str]
) -> list[Accelerator]:
    chosen: list[Accelerator] = []
    while count:
        able = {name: len(every) - len(every) % group for name, every in islands.items()}
        enough = [name for name in islands if able[name] >= count]
        if enough:
            name = min(enough, key=lambda each: (each not in near, len(islands[each])))
            return chosen + islands[name][:count]
        name = max(islands, key=lambda each: (each in near and able[each] > 0, able[each]))
        if not able[name]:
            group = 1  # What is left of a group's size lies apart.
            continue
        chosen += islands[name][: able[name]]
        count -= able[name]
        islands[name] = islands[name][able[name] :]
    return chosen
