"""What becomes of a submission does not hang on who asked for it, who may go away at any time."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from controlplane.domain.event import Event
from controlplane.domain.ids import JobUid, SequenceNumber
from controlplane.edges.grpc_server.directory import JobDirectory
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.ports import Told
from controlplane.edges.grpc_server.roles import LOCAL, caller
from controlplane.edges.grpc_server.submission import Submission
from controlplane.edges.wall_clock import WallClock
from controlplane.engine.state import ClusterState
from headrace.api.generated import jobs_pb2
from tests.contract.grpc.harness import manifest

UID = JobUid("a")
REQUEST = jobs_pb2.SubmitJobRequest(manifest_json=json.dumps(manifest("train")))


class SlowLog:
    """An event log that makes nothing durable until a test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[Told, asyncio.Future[SequenceNumber]]] = asyncio.Queue()
        self.broken = ""

    def append(self, event: Event, told: Told | None = None) -> "asyncio.Future[SequenceNumber]":
        if self.broken:
            raise ValueError(self.broken)
        durable: asyncio.Future[SequenceNumber] = asyncio.get_running_loop().create_future()
        assert told is not None
        self.asked.put_nowait((told, durable))
        return durable


def run(test: Callable[[Submission, SlowLog], Awaitable[None]]) -> None:
    feed, log = StateFeed(ClusterState.empty(), lambda: 0), SlowLog()
    door = Door(WallClock(), feed)
    door.open(log)
    uids = map(JobUid, "abc")
    directory = JobDirectory(feed)
    submission = Submission(feed=feed, directory=directory, door=door, mint=lambda: next(uids))

    async def limited() -> None:
        caller.set(LOCAL)
        async with asyncio.timeout(20):
            await test(submission, log)

    asyncio.run(limited())


def test_who_was_not_let_in_by_the_gate_may_nothing() -> None:
    feed = StateFeed(ClusterState.empty(), lambda: 0)
    submission = Submission(
        feed=feed, directory=JobDirectory(feed), door=Door(WallClock(), feed), mint=lambda: UID
    )
    with pytest.raises(LookupError):
        asyncio.run(submission.submit(REQUEST))


async def abandoned(submission: Submission, log: SlowLog) -> Told:
    """A submission whose caller went away while its event was on its way."""
    asking = asyncio.create_task(submission.submit(REQUEST))
    told, _ = await log.asked.get()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    return told


def test_the_next_one_waits_for_what_its_caller_left() -> None:
    async def test(submission: Submission, log: SlowLog) -> None:
        told = await abandoned(submission, log)
        again = asyncio.create_task(submission.submit(REQUEST))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not again.done()
        told(SequenceNumber(1))
        answer = await again
        assert (answer.uid, answer.result) == ("a", "unchanged")
        assert log.asked.empty()

    run(test)


def test_what_its_caller_left_and_was_not_stored_is_forgotten() -> None:
    async def test(submission: Submission, log: SlowLog) -> None:
        told = await abandoned(submission, log)
        again = asyncio.create_task(submission.submit(REQUEST))
        told(None)
        settle, durable = await log.asked.get()
        settle(SequenceNumber(1))
        durable.set_result(SequenceNumber(1))
        answer = await again
        assert (answer.uid, answer.result) == ("b", "created")

    run(test)


def test_what_cannot_be_written_leaves_its_name_free() -> None:
    async def test(submission: Submission, log: SlowLog) -> None:
        log.broken = "it is no JSON"
        with pytest.raises(ValueError, match="no JSON"):
            await submission.submit(REQUEST)
        log.broken = ""
        await abandoned(submission, log)

    run(test)
