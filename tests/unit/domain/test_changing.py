"""A changed value is what ``dataclasses.replace`` would have made."""

from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest

from controlplane.domain.changing import changed
from controlplane.domain.ids import Attempt, NodeId
from controlplane.domain.lifecycle import Stage
from controlplane.domain.node import Contact
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import NodeRecord, Progress
from tests.builders import a_cluster, a_job, a_node


def test_it_is_what_replace_makes_and_leaves_the_value_alone() -> None:
    record = a_cluster().with_nodes(1, 1).submit(a_job()).settle().job("job")
    before = {field.name: getattr(record, field.name) for field in fields(record)}
    change = {"stage": Stage.STOPPING, "failures": 3, "attempt": None}
    after = changed(record, **change)  # type: ignore[arg-type]
    assert after == replace(record, **change)  # type: ignore[arg-type]
    assert type(after) is type(record)
    assert (hash(after.job), repr(after)) == (hash(record.job), repr(replace(after)))
    with pytest.raises(FrozenInstanceError):
        after.failures = 4  # type: ignore[misc]
    assert before == {field.name: getattr(record, field.name) for field in fields(record)}


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (Reason(ReasonCode.STARTED, "x"), {"message": "y"}),
        (Progress(3, 2, 1.0), {"loss": None}),
        (NodeRecord(a_node("n1", 1)), {"contact": Contact.LOST, "strays": ()}),
        (a_node("n1", 1), {"id": NodeId("n2")}),
    ],
)
def test_every_field_can_be_changed_or_kept(value: object, change: dict[str, object]) -> None:
    assert changed(value, **change) == replace(value, **change)  # type: ignore[type-var]
    assert changed(value) == value  # type: ignore[type-var]


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(TypeError, match="Progress has no field 'stepp'"):
        changed(Progress(), stepp=Attempt(1))  # type: ignore[call-arg]


@dataclass(frozen=True)
class Slotless:
    """Keeps its fields in a dictionary."""

    a: int
    b: int


@dataclass(frozen=True, slots=True)
class Thoughtful:
    """Checks what it is made of."""

    a: int
    b: int

    def __post_init__(self) -> None:
        """Looks."""


@pytest.mark.parametrize("value", [Slotless(1, 2), Thoughtful(1, 2)])
def test_a_class_that_it_would_get_wrong_is_refused(value: Slotless | Thoughtful) -> None:
    with pytest.raises(TypeError, match="no plain class"):
        changed(value, a=3)
