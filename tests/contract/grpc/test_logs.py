"""Captured output, brokered: from the agent to each reader, whoever is slow or goes away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from headrace.api.generated import jobs_pb2, nodes_pb2
from tests.contract.grpc.harness import (
    Agent,
    Api,
    an_api,
    eventually,
    launches,
    refusal,
    run,
    violations,
)


class Output:
    """The agent's side of ``ServeLogs``: collects requests, sends what a test wants sent."""

    def __init__(self) -> None:
        self.requests: list[nodes_pb2.ServeLogsResponse] = []
        self._outgoing: asyncio.Queue[nodes_pb2.ServeLogsRequest | None] = asyncio.Queue(8)

    async def send(
        self, request: nodes_pb2.ServeLogsResponse, data: bytes = b"", **more: Any
    ) -> None:
        await self._outgoing.put(
            nodes_pb2.ServeLogsRequest(request_id=request.request_id, data=data, **more)
        )

    async def _messages(self, node: str) -> AsyncIterator[nodes_pb2.ServeLogsRequest]:
        yield nodes_pb2.ServeLogsRequest(node=node)
        while (message := await self._outgoing.get()) is not None:
            yield message

    async def asked(self, number: int) -> nodes_pb2.ServeLogsResponse:
        """The request of that number, once it came."""

        async def there() -> nodes_pb2.ServeLogsResponse | None:
            return self.requests[number] if len(self.requests) > number else None

        return await eventually(there)

    @asynccontextmanager
    async def serving(self, api: Api, node: str) -> AsyncIterator["Output"]:
        call = api.nodes.ServeLogs(self._messages(node))

        async def listen() -> None:
            async for request in call:
                self.requests.append(request)

        listening = asyncio.create_task(listen())
        try:
            yield self
        finally:
            call.cancel()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def reading(api: Api, uid: str, **more: Any) -> Any:
    return api.jobs.StreamLogs(jobs_pb2.StreamLogsRequest(uid=uid, **more))


async def a_running_job(api: Api) -> tuple[Agent, str]:
    created = await api.submit()
    agent = Agent(api)
    await agent.register()
    await agent.started((await agent.assigned(launches)).launches[0])
    return agent, created.uid


def test_output_goes_from_the_agent_to_its_reader(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent, uid = await a_running_job(api)
            async with Output().serving(api, agent.node) as output:
                await connected(api, uid, output)
                before = len(output.requests)
                call = reading(api, uid, unit=1, tail_lines=10, follow=True)
                got: list[jobs_pb2.StreamLogsResponse] = []

                async def read() -> None:
                    got.extend([piece async for piece in call])

                task = asyncio.create_task(read())
                request = await output.asked(before)
                await output.send(request, b"step 1\n")
                await output.send(request, b"step 2\n")
                await output.send(request, done=True, note="that is all")
                await task
        assert (request.uid, request.attempt, request.unit) == (uid, 1, 1)
        assert (request.tail_lines, request.follow) == (10, True)
        assert b"".join(piece.data for piece in got) == b"step 1\nstep 2\n"
        assert got[-1].note == "that is all"
        assert {(piece.attempt, piece.unit) for piece in got} == {(1, 1)}

    run(test())


async def connected(api: Api, uid: str, output: Output) -> None:
    """Waits until the agent's stream is known: asks once and is answered."""

    async def answered() -> bool:
        call = reading(api, uid)
        asked = len(output.requests)
        async for piece in call:
            if "not connected" in piece.note:
                return False
        return len(output.requests) > asked

    async def answer_all() -> None:
        done = 0
        while True:
            request = await output.asked(done)
            done += 1
            await output.send(request, done=True)

    answering = asyncio.create_task(answer_all())
    try:
        await eventually(answered)
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


def test_a_reader_who_goes_away_is_cancelled_at_the_agent(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent, uid = await a_running_job(api)
            async with Output().serving(api, agent.node) as output:
                await connected(api, uid, output)
                before = len(output.requests)
                call = reading(api, uid, follow=True)
                reader = asyncio.create_task(call.read())
                request = await output.asked(before)
                await output.send(request, b"hello\n")
                assert (await reader).data == b"hello\n"
                call.cancel()
                cancelled = await output.asked(before + 1)
        assert cancelled.cancel
        assert cancelled.request_id == request.request_id

    run(test())


def test_a_slow_reader_loses_output_and_holds_nobody_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent, uid = await a_running_job(api)
            async with Output().serving(api, agent.node) as output:
                await connected(api, uid, output)
                before = len(output.requests)
                slow = reading(api, uid, follow=True)
                first = await output.asked(before)
                fast = reading(api, uid, unit=1, follow=True)
                second = await output.asked(before + 1)
                # Far more than any buffer holds, and nobody reads it.
                for _ in range(64):
                    await output.send(first, b"x" * 2**20)
                await output.send(first, done=True)
                await output.send(second, b"quick\n", done=True)
                quick = [piece async for piece in fast]
                got = [piece async for piece in slow]
        assert b"".join(piece.data for piece in quick) == b"quick\n"
        assert sum(len(piece.data) for piece in got) < 64 * 2**20
        assert any("bytes were skipped" in piece.note for piece in got)

    run(test())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            waiting = await api.submit(
                "waiting",
                accelerators={"minimum": 64},
                training={"globalBatchSize": 64, "steps": 1},
            )
            notes = [piece.note async for piece in reading(api, waiting.uid)]
            agent, uid = await a_running_job(api)
            away = [piece.note async for piece in reading(api, uid)]
            no_unit = await refusal(reading(api, uid, unit=9).read())
            no_attempt = await refusal(reading(api, uid, attempt=9).read())
            nobody = await refusal(reading(api, "nobody").read())
            negative = await refusal(reading(api, uid, unit=-1).read())
        assert "not started" in notes[0]
        assert f"{agent.node} is not connected" in away[0]
        assert "no unit 9 in attempt '1'" in str(no_unit.details())
        assert "no unit 0 in attempt '9'" in str(no_attempt.details())
        for missing in (nobody, no_unit, no_attempt):
            assert missing.code() is grpc.StatusCode.NOT_FOUND
        assert "unit" in violations(negative)

    run(test())


def test_output_is_readable_after_the_job_has_ended(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent, uid = await a_running_job(api)
            launch = (await agent.assigned(launches)).launches[0]
            await agent.exited(launch, "Succeeded", 100)
            await api.until_stage(uid, "Succeeded")
            async with Output().serving(api, agent.node) as output:
                await connected(api, uid, output)
                before = len(output.requests)
                call = reading(api, uid, attempt=1)
                request = await output.asked(before)
                await output.send(request, b"bye\n", done=True)
                got = [piece async for piece in call]
        assert b"".join(piece.data for piece in got) == b"bye\n"

    run(test())


def test_readers_are_told_when_the_agent_goes_away(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            agent, uid = await a_running_job(api)
            async with Output().serving(api, agent.node) as output:
                await connected(api, uid, output)
                before = len(output.requests)
                call = reading(api, uid, follow=True)
                await output.asked(before)
            got = [piece async for piece in call]
        assert "kept" in got[-1].note

    run(test())
