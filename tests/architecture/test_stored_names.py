"""Stored data names things by words of its own, so that modules and classes can move."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from controlplane.domain.action import Action
from controlplane.domain.codec import SCHEMA_VERSION, adapter
from controlplane.domain.event import Event
from controlplane.engine.state import ClusterState
from tests.architecture.source_tree import PACKAGES


def fixed_texts(schema: object) -> Iterator[str]:
    """Every text that values of this schema hold whatever happened: constants and enums."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("const", "default") and isinstance(value, str):
                yield value
            elif key == "enum":
                yield from (text for text in value if isinstance(text, str))
            else:
                yield from fixed_texts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from fixed_texts(value)


def module_paths(schema: object) -> list[str]:
    """Fixed texts that look like a place in our sources."""
    return [
        text for text in fixed_texts(schema) if text.partition(".")[0] in PACKAGES and "." in text
    ]


@pytest.mark.parametrize("stored", [Event, ClusterState], ids=["events", "state"])
def test_stored_data_names_no_module(stored: Any) -> None:
    schema = adapter(stored).json_schema(mode="serialization")
    assert set(fixed_texts(schema))
    assert module_paths(schema) == []


def test_every_event_is_stored_under_its_own_name() -> None:
    kinds = [event.__dataclass_fields__["kind"].default for event in get_args(get_args(Event)[0])]
    assert len(set(kinds)) == len(kinds) > 10
    assert all(kind.isidentifier() for kind in kinds)


KINDS_SINCE = {
    1: """JobSubmitted JobUpdated JobWithdrawn NodeRegistered NodeLost NodeDrained NodeRemoved
    AcceleratorHealthChanged RendezvousBound UnitStarted JobProgressed UnitExited QueueChanged
    QueueRemoved PolicyChanged CycleDecided
    StartAttempt StopAttempt EndAttempt FailJob ForgetJob""",
    2: """PlanChanged PlanRefused CheckpointMissed PlanObserved ModelFitted ProposalFound
    MeasurementsImported OperatorTermRaised NodesClosed JobsForecast
    JobOverdue
    ChangePlan""",
}
"""Kinds of events, and of what they order, by the schema version that brought them."""


def test_a_kind_that_the_last_release_cannot_read_is_of_a_higher_schema_version() -> None:
    """Else that release would start on such a store and end in the middle of it, where it should
    say which Headrace wrote it. New kinds join the newest version, or a new one after a release.
    """
    kinds = {
        each.__dataclass_fields__["kind"].default
        for stored in (Event, Action)
        for each in get_args(get_args(stored)[0])
    }
    known = [kind for each in KINDS_SINCE.values() for kind in each.split()]
    assert sorted(known) == sorted(kinds)
    assert max(KINDS_SINCE) == SCHEMA_VERSION


def test_a_module_path_would_be_noticed() -> None:
    schema = {"properties": {"kind": {"const": "controlplane.domain.event.NodeLost"}}}
    assert module_paths(schema) == ["controlplane.domain.event.NodeLost"]
