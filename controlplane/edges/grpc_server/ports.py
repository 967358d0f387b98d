"""What the services need of the store and of the process around them."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from controlplane.domain.event import Event
from controlplane.domain.ids import SequenceNumber, Term

Told = Callable[[SequenceNumber | None], None]
"""Told once of an event's fate: its number when it is durable, None when it is not stored."""


class EventLog(Protocol):
    """The door's side of the event log."""

    def append(self, event: Event, told: Told | None = None) -> "asyncio.Future[SequenceNumber]":
        """Resolves to the event's number when it is durable. May be abandoned; ``told`` is called
        all the same, before whoever waits goes on.
        """
        ...


class Reign(Protocol):
    """The term in which this process decides."""

    @property
    def term(self) -> Term:
        """The present term; 0 while standing by."""
        ...

    @property
    def condition(self) -> str:
        """``deciding``, ``recovering``, or a sentence on what is wrong."""
        ...

    def rise_above(self, term: Term) -> None:
        """Asks for a term above one that an agent has obeyed. Takes effect soon, not at once."""
        ...
