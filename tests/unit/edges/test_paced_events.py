"""How long deciding rests: by what it took, longer while nothing but jobs comes in, and no longer
than that once something ends.
"""

import asyncio
import json
from collections.abc import Sequence

import pytest

from controlplane.domain.clock import SECOND, Instant, seconds
from controlplane.domain.event import Event, JobSubmitted, NodeDrained, UnitExited
from controlplane.domain.from_manifest import job_from_manifest
from controlplane.domain.ids import Attempt, JobUid, NodeId, SequenceNumber
from controlplane.domain.record import Outcome, UnitExit
from controlplane.edges.paced_events import PacedEvents
from controlplane.engine.state import SequencedEvent
from controlplane.wire.manifests import parse_manifest
from tests.contract.grpc.harness import manifest

JOB = JobSubmitted(
    job_from_manifest(parse_manifest(json.dumps(manifest("train"))), uid=JobUid("a")), Instant(1)
)
OTHER = NodeDrained(NodeId("node-a"), True, Instant(1))
END = UnitExited(
    JobUid("a"), Attempt(1), UnitExit(unit=0, outcome=Outcome.SUCCEEDED), NodeId("node-a")
)
LATE = seconds(60)


class Hours:
    """A clock, and events that happen by it."""

    def __init__(self, *coming: tuple[float, Sequence[Event]]) -> None:
        self._at = 0
        self._coming = list(coming)

    def now(self) -> Instant:
        return Instant(self._at)

    async def pass_by(self, for_seconds: float) -> None:
        self._at += round(for_seconds * SECOND)

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        taken: list[Event] = []
        if self._coming and self._coming[0][0] * SECOND <= max(deadline, self._at):
            self._at = max(self._at, round(self._coming[0][0] * SECOND))
            while self._coming and self._coming[0][0] * SECOND <= self._at:
                taken += self._coming.pop(0)[1]
        else:
            self._at = max(self._at, deadline)
        return [SequencedEvent(SequenceNumber(n), e) for n, e in enumerate(taken)]


def second_cycle(
    first: Sequence[Event], cycle_seconds: float, *coming: tuple[float, Sequence[Event]]
) -> tuple[float, list[Event]]:
    """When the cycle after the first begins, in seconds after the end of that, and with what."""
    hours = Hours((0.0, first), *((cycle_seconds + at, batch) for at, batch in coming))
    events = PacedEvents(hours, hours, hours.now, lambda: None, hours.pass_by)

    async def two_cycles() -> tuple[float, list[Event]]:
        assert len(await events.take(Instant(0))) == len(first)
        await hours.pass_by(cycle_seconds)
        batch = await events.take(Instant(LATE))
        return hours.now() / SECOND - cycle_seconds, [numbered.event for numbered in batch]

    return asyncio.run(two_cycles())


@pytest.mark.parametrize(
    ("first", "cycle_seconds", "rest_seconds"),
    [
        pytest.param([JOB], 0.001, 0.019, id="one job"),
        pytest.param([JOB] * 8, 0.001, 0.5, id="a stream of jobs"),
        pytest.param([JOB] * 8 + [OTHER], 0.001, 0.019, id="something else happened too"),
        pytest.param([JOB], 1.0, 0.5, id="a long cycle"),
    ],
)
def test_jobs_that_come_in_a_rest_are_decided_together_after_it(
    first: list[Event], cycle_seconds: float, rest_seconds: float
) -> None:
    soon = [(rest_seconds / 4, [JOB]), (rest_seconds / 2, [JOB])]
    began, batch = second_cycle(first, cycle_seconds, *soon)
    assert began == pytest.approx(rest_seconds)
    assert batch == [JOB, JOB]


def test_what_comes_after_the_rest_is_answered_at_once() -> None:
    began, batch = second_cycle([JOB], 0.001, (3.0, [JOB]))
    assert began == pytest.approx(3.0)
    assert batch == [JOB]


def test_what_ends_in_a_rest_cuts_it_short_and_nothing_that_came_before_is_lost() -> None:
    began, batch = second_cycle([JOB] * 8, 0.001, (0.1, [JOB]), (0.2, [END]), (0.3, [JOB]))
    assert began == pytest.approx(0.2)
    assert batch == [JOB, END]


def test_where_things_end_deciding_takes_at_most_half_of_the_time() -> None:
    began, batch = second_cycle([END], 0.1, (0.01, [END]), (0.05, [END]))
    assert began == pytest.approx(0.1)
    assert batch == [END, END]
