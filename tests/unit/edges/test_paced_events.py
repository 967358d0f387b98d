"""How long deciding rests: by what it took, and longer only while nothing but jobs comes in."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.event import Event, JobSubmitted, NodeDrained
from controlplane.domain.from_manifest import job_from_manifest
from controlplane.domain.ids import JobUid, NodeId, SequenceNumber
from controlplane.edges.paced_events import PacedEvents
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.state import SequencedEvent
from controlplane.wire.manifests import parse_manifest
from tests.contract.grpc.harness import manifest

JOB = JobSubmitted(
    job_from_manifest(parse_manifest(json.dumps(manifest("train"))), uid=JobUid("a")), Instant(1)
)
OTHER = NodeDrained(NodeId("node-a"), True, Instant(1))


class Batches:
    """An event source with its answers prepared."""

    def __init__(self, *batches: Sequence[Event]) -> None:
        self._batches = iter(batches)

    async def take(self, deadline: Instant) -> Sequence[SequencedEvent]:
        return [SequencedEvent(SequenceNumber(n), e) for n, e in enumerate(next(self._batches))]


def rests(batch: Sequence[Event], cycle_seconds: float) -> list[float]:
    """How long it rests when a cycle with ``batch`` took so long."""
    rested: list[float] = []
    turned = iter((0, int(cycle_seconds * SECOND), 0))

    async def sleep(seconds: float) -> None:
        rested.append(seconds)

    events = PacedEvents(Batches(batch, ()), WallClock(), lambda: next(turned), lambda: None, sleep)

    async def two_cycles() -> None:
        assert len(await events.take(Instant(0))) == len(batch)
        await events.take(Instant(0))

    asyncio.run(two_cycles())
    return rested


@pytest.mark.parametrize(
    ("batch", "cycle_seconds", "rest_seconds"),
    [
        pytest.param([JOB], 0.001, 0.019, id="one job"),
        pytest.param([JOB] * 8, 0.001, 0.5, id="a stream of jobs"),
        pytest.param([JOB] * 8 + [OTHER], 0.001, 0.019, id="something else happened too"),
        pytest.param([JOB], 1.0, 0.5, id="a long cycle"),
    ],
)
def test_it_rests(batch: list[Event], cycle_seconds: float, rest_seconds: float) -> None:
    assert rests(batch, cycle_seconds) == [pytest.approx(rest_seconds)]
