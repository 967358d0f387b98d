"""Get, list, watch, events and losses: paging, resuming, and what is gone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.api.generated import admin_pb2, jobs_pb2
from headrace.cli.wait import wait_for
from headrace.client.client import Client
from headrace.client.context import Context
from tests.contract.grpc.harness import (
    Agent,
    Api,
    an_api,
    eventually,
    launches,
    refusal,
    refused_stream,
    run,
    violations,
)

PRESENT = jobs_pb2.WatchJobsResponse.KIND_PRESENT
GONE = jobs_pb2.WatchJobsResponse.KIND_GONE
SYNCED = jobs_pb2.WatchJobsResponse.KIND_SYNCED


def watching(api: Api, after: int = 0, **selector: str) -> Any:
    return api.jobs.WatchJobs(
        jobs_pb2.WatchJobsRequest(after_version=after, selector=jobs_pb2.JobSelector(**selector))
    )


async def until_synced(stream: AsyncIterator[Any]) -> list[jobs_pb2.WatchJobsResponse]:
    told = []
    async for message in stream:
        told.append(message)
        if message.kind == SYNCED:
            return told
    raise AssertionError("the watch ended before it was synced")


async def until(stream: AsyncIterator[Any], kind: int, uid: str) -> jobs_pb2.WatchJobsResponse:
    async for message in stream:
        if message.kind == kind and message.job.uid == uid:
            return message  # type: ignore[no-any-return]
    raise AssertionError("the watch ended")


def test_jobs_are_selected_by_name_namespace_uid_and_queue(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            a = await api.submit("a")
            b = await api.submit("b", queue="research")
            for selector, wanted in (
                ({"queue": "research"}, [b.uid]),
                ({"name": "a"}, [a.uid]),
                ({"uid": b.uid}, [b.uid]),
                ({"namespace": "elsewhere"}, []),
                ({}, [a.uid, b.uid]),
            ):
                listed = await api.jobs.ListJobs(
                    jobs_pb2.ListJobsRequest(selector=jobs_pb2.JobSelector(**selector))
                )
                assert [job.uid for job in listed.jobs] == wanted
            missing = await refusal(
                api.jobs.GetJob(jobs_pb2.GetJobRequest(selector=jobs_pb2.JobSelector(name="c")))
            )
            nothing = await refusal(api.jobs.GetJob(jobs_pb2.GetJobRequest()))
        assert missing.code() is grpc.StatusCode.NOT_FOUND
        assert "default/c" in (missing.details() or "")
        assert "selector" in violations(nothing)

    run(test())


def test_pages_hold_every_job_once_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            uids = [(await api.submit(f"job-{n}")).uid for n in range(7)]
            seen: list[str] = []
            token, pages = "", 0
            while True:
                page = await api.jobs.ListJobs(
                    jobs_pb2.ListJobsRequest(page_size=3, page_token=token)
                )
                seen += [job.uid for job in page.jobs]
                pages += 1
                token = page.next_page_token
                if not token:
                    break
            for field, request in (
                ("page_size", jobs_pb2.ListJobsRequest(page_size=-1)),
                ("page_size", jobs_pb2.ListJobsRequest(page_size=1001)),
                ("page_token", jobs_pb2.ListJobsRequest(page_token="%%%")),
            ):
                assert field in violations(await refusal(api.jobs.ListJobs(request)))
        assert (seen, pages) == (uids, 3)

    run(test())


def test_a_watch_tells_present_jobs_then_changes_then_who_is_gone(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            a = await api.submit("a")
            stream = watching(api)
            begun = await until_synced(stream)
            b = await api.submit("b")
            await until(stream, PRESENT, b.uid)
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=b.uid))
            gone = await until(stream, GONE, b.uid)
            stream.cancel()
        assert [m.job.uid for m in begun if m.kind == PRESENT] in ([a.uid], [])
        assert (gone.job.name, gone.job.namespace) == ("b", "default")

    run(test())


def test_a_watch_hears_of_a_finished_job_that_made_room(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            await agent.exited(launch, "Succeeded", 100)
            stream = watching(api)
            await until_synced(stream)
            kept = {"finished_jobs_kept": "0"}
            await api.admin.SetPolicy(admin_pb2.SetPolicyRequest(settings=kept))
            gone = await until(stream, GONE, created.uid)
            stream.cancel()
        assert gone.job.name == "train"

    run(test())


def test_a_watch_with_a_selector_tells_of_nothing_else(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            stream = watching(api, queue="research")
            await until_synced(stream)
            await api.submit("other")
            mine = await api.submit("mine", queue="research")
            async for message in stream:
                assert message.job.uid == mine.uid
                break
            stream.cancel()

    run(test())


def test_a_watch_resumes_after_a_version_without_a_gap(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            a, b = await api.submit("a"), await api.submit("b")
            first = watching(api)
            await until(first, PRESENT, b.uid)
            first.cancel()
            second = watching(api)
            version = (await until_synced(second))[-1].version
            second.cancel()
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=a.uid))
            c = await api.submit("c")
            resumed = watching(api, after=version)
            told: dict[str, int] = {}
            async for message in resumed:
                if message.kind != SYNCED:
                    told[message.job.uid] = message.kind
                if told.get(a.uid) == GONE and told.get(c.uid) == PRESENT:
                    break
            resumed.cancel()
        assert told[a.uid] == GONE

    run(test())


def test_a_watch_resumes_across_a_restart_and_hears_who_went(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            a, b = await api.submit("a"), await api.submit("b")
            stream = watching(api)
            await until(stream, PRESENT, b.uid)
            stream.cancel()
            stream = watching(api)
            version = (await until_synced(stream))[-1].version
            await api.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=a.uid))
            await until(stream, GONE, a.uid)
            stream.cancel()
        async with an_api(tmp_path) as api:
            await api.submit("c")
            stream = watching(api, after=version)
            told = await until_synced(stream)
            stream.cancel()
            ahead = await refused_stream(watching(api, after=version + 10**6))
            below = await refused_stream(watching(api, after=-1))
        kinds = {message.job.uid: message.kind for message in told if message.kind != SYNCED}
        assert kinds[a.uid] == GONE
        assert kinds[b.uid] == PRESENT
        assert ahead.code() is grpc.StatusCode.OUT_OF_RANGE
        assert below.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(test())


def test_a_watch_ends_with_a_sentence_when_the_control_plane_stops(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            stream = watching(api)
            await until_synced(stream)
            api.plane.stop()
            error = await refused_stream(stream)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "watch again" in (error.details() or "")

    run(test())


async def paged_story(api: Api, uid: str, page_size: int) -> list[jobs_pb2.LoggedEvent]:
    """All events of a job, page by page."""
    story: list[jobs_pb2.LoggedEvent] = []
    after = 0
    while True:
        request = jobs_pb2.ListEventsRequest(uid=uid, after_sequence=after, page_size=page_size)
        page = await api.jobs.ListEvents(request)
        story += page.events
        after = page.next_after_sequence
        if not after:
            return story


def test_events_tell_a_jobs_story_in_sentences_and_in_pages(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit(env=[{"name": "TOKEN", "value": "hunter2"}])
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            await agent.progressed(launch, 1, 5.5)
            await agent.exited(launch, "Succeeded", 100)
            await api.until_stage(created.uid, "Succeeded")
            story = await paged_story(api, created.uid, 2)
            assert await paged_story(api, created.uid, 1) == story
            assert await paged_story(api, created.uid, 1000) == story
            everything = await api.jobs.ListEvents(jobs_pb2.ListEventsRequest(page_size=1000))
            negative = await refusal(
                api.jobs.ListEvents(jobs_pb2.ListEventsRequest(after_sequence=-1))
            )
        told = [event.message for event in story]
        assert [e.sequence for e in story] == sorted(e.sequence for e in story)
        assert any("wants 1 to 2 accelerators" in message for message in told)
        assert any("start attempt 1 with dp2 on node-a" in message for message in told)
        assert any("step 1, loss 5.5" in message for message in told)
        assert any("finished at step 100" in message for message in told)
        assert all(event.uid == created.uid for event in story)
        assert all("hunter2" not in str(event) for event in (*story, *everything.events))
        assert any(event.node == "node-a" for event in everything.events)
        assert "after_sequence" in violations(negative)

    run(test())


def test_losses_come_by_step_and_go_on_after_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit()
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            for step in range(1, 6):
                await agent.progressed(launch, step, 6.0 - step)
            all_of_them = await api.jobs.GetLosses(jobs_pb2.GetLossesRequest(uid=created.uid))
            later = await api.jobs.GetLosses(
                jobs_pb2.GetLossesRequest(uid=created.uid, after_step=3)
            )
            nobody = await refusal(api.jobs.GetLosses(jobs_pb2.GetLossesRequest()))
        assert [(p.step, p.loss, p.attempt) for p in all_of_them.points] == [
            (step, pytest.approx(6.0 - step), 1) for step in range(1, 6)
        ]
        assert [p.step for p in later.points] == [4, 5]
        assert "uid" in violations(nobody)

    run(test())


@pytest.mark.parametrize(
    ("outcome", "code"), [("Succeeded", "Succeeded"), ("Failed", "RetriesExhausted")]
)
def test_how_a_forgotten_job_ended_stays_in_the_log(
    tmp_path: Path, outcome: str, code: str
) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            created = await api.submit(ttlSecondsAfterFinish=0, retries={"max": 0})
            agent = Agent(api)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            await agent.started(launch)
            await agent.exited(launch, outcome, 100)
            request = jobs_pb2.ListEventsRequest(uid=created.uid, page_size=1000)

            async def forgotten() -> jobs_pb2.LoggedEvent | None:
                events = (await api.jobs.ListEvents(request)).events
                return next((e for e in events if '"ForgetJob"' in e.body_json), None)

            told = await eventually(forgotten)
            everything = jobs_pb2.ListEventsRequest(page_size=1000)
            every = (await api.jobs.ListEvents(everything)).events
            with Client(Context(api.plane.address)) as client:
                wait = asyncio.to_thread(wait_for, client, {created.uid: "train"}, 30.0)
                (waited,) = await asyncio.gather(wait, return_exceptions=True)
        assert told.reason.code == code
        assert told.job_name == "train"
        assert {event.job_name for event in every if event.uid} == {"train"}
        assert any("train: forget the job" in event.message for event in every)
        wanted = "None" if outcome == "Succeeded" else f"train failed: {code}"
        assert str(waited).startswith(wanted)

    run(test())
