"""The next value of a frozen one: what ``dataclasses.replace`` does, in a third of its time.

Folding makes a new record for nearly every event, thousands in one cycle of a large cluster, and
``replace`` spends most of its time on asking the class for its fields and on an ``__init__`` that
has to go around the frozen class's own ``__setattr__``.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, make_dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

__all__ = ["changed"]


@cache
def _access(kind: type) -> tuple[Callable[[Any], Any], Mapping[str, int], type]:
    """How to read all fields of a value of this class at once, the place of each field, and a
    class of the same slots that is not frozen, whose values are quickly made.
    """
    names = [field.name for field in fields(kind)]
    if hasattr(kind, "__post_init__") or len(names) < 2 or not hasattr(kind, "__slots__"):
        raise TypeError(f"{kind.__name__} is no plain class with slots: use dataclasses.replace")
    twin = make_dataclass(
        kind.__name__, [(name, Any) for name in names], slots=True, eq=False, repr=False
    )
    return attrgetter(*names), {name: place for place, name in enumerate(names)}, twin


if TYPE_CHECKING:
    # Type checkers know which fields ``replace`` may be given, and of what type.
    from dataclasses import replace as changed
else:

    def changed(value, /, **changes):
        """The same value but for ``changes``.

        For dataclasses with slots, two fields or more, and no ``__post_init__``.

        Raises:
            TypeError: The class is none of those, or has no such field.
        """
        kind = type(value)
        read, places, twin = _access(kind)
        values = [*read(value)]
        for name, other in changes.items():
            place = places.get(name)
            if place is None:
                raise TypeError(f"{kind.__name__} has no field {name!r}")
            values[place] = other
        new = twin(*values)
        # Both classes have the same slots, so Python lets one become the other (or says that it
        # cannot). From here on the value is frozen.
        new.__class__ = kind
        return new
