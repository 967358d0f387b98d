"""A live control plane predicts beside its loop, and tells what comes true."""

from pathlib import Path

from headrace.api.generated import admin_pb2, jobs_pb2
from tests.contract.grpc.harness import Agent, Api, an_api, eventually, launches, run


async def outcomes(api: Api) -> list[admin_pb2.ForecastOutcome]:
    request = admin_pb2.ListForecastOutcomesRequest()
    return list((await api.admin.ListForecastOutcomes(request)).outcomes)


def test_a_running_job_is_told_when_it_ends_and_watchers_too_and_then_how_that_was(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with an_api(tmp_path, forecast_seconds=0.5) as api:
            agent = Agent(api, slots=1)
            await agent.register()
            runs = (await api.submit("runs", training={"globalBatchSize": 1, "steps": 100_000})).uid
            (launch,) = (await agent.assigned(launches)).launches
            await agent.started(launch)
            await agent.progressed(launch, 10, 1.0)
            waits = (await api.submit("waits", training={"globalBatchSize": 1, "steps": 10})).uid

            async def told() -> jobs_pb2.Job | None:
                job = await api.job(waits)
                return job if job.status.HasField("end") else None

            queued = (await eventually(told)).status
            running = (await api.job(runs)).status
            assert running.HasField("end")
            assert not running.HasField("start")
            assert running.end.low <= running.end.median <= running.end.high
            assert (running.end.coverage, running.end.outcomes_missing) == (0.9, 19)
            assert running.end.made_at.seconds > 0
            assert queued.start.low <= queued.start.high <= queued.end.high

            seen = False
            watching = api.jobs.WatchJobs(jobs_pb2.WatchJobsRequest())
            async for message in watching:
                seen = message.job.uid == runs and message.job.status.HasField("end")
                if seen:
                    break
            watching.cancel()

            await agent.exited(launch, "Succeeded", 100_000)
            await api.until_stage(runs, "Succeeded")
            (outcome,) = [each for each in await outcomes(api) if each.uid == runs and each.started]
            assert outcome.stage == "Succeeded"
            assert outcome.job == "default/runs"
            assert outcome.ended_at < outcome.end.low, "it ended long before it was done"
            events = (await api.jobs.ListEvents(jobs_pb2.ListEventsRequest(page_size=1000))).events
            assert any(each.kind == "JobsForecast" for each in events)

    run(test())


def test_without_a_pause_between_forecasts_there_are_none(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            uid = (await api.submit("waits")).uid
            assert not (await api.job(uid)).status.HasField("end")
            assert await outcomes(api) == []

    run(test())
