"""Frozen values to plain JSON and back, for the store, for snapshots and for replay.

Values name their kind, never a module path, so code can move without touching stored data.
"""

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from controlplane.domain.event import Event

SCHEMA_VERSION = 2
"""Version of all stored values. A store with a higher one is refused.

It is one more than the last release's as soon as something may be stored that the release cannot
read: kinds of events or orders that it does not know, or fields without which it would go wrong. 1
is that of 0.1.0.
"""


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """The (cached) codec of a type."""
    return TypeAdapter(kind)


def dump(value: object, kind: Any) -> str:
    """``value`` as JSON text; ``kind`` is its declared type."""
    return adapter(kind).dump_json(value).decode()


def load(text: str | bytes, kind: Any) -> Any:
    """The value of type ``kind`` that ``dump`` wrote.

    Raises:
        pydantic.ValidationError: The text is not such a value.
    """
    return adapter(kind).validate_json(text)


def dump_event(event: Event) -> str:
    """An event as JSON text; its type is known, so it need not be found among all events."""
    return dump(event, type(event))


def load_event(text: str | bytes) -> Event:
    """The event that ``dump_event`` wrote."""
    loaded: Event = load(text, Event)
    return loaded
