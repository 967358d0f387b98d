"""A live control plane searches beside its loop, and takes in what it finds."""

import asyncio
import urllib.request
from pathlib import Path

import pytest

from controlplane import main
from controlplane.baselines import BASELINES
from controlplane.domain.policy import Policy
from controlplane.rubick.policy import Rubick
from controlplane.rubick.settings import RubickSettings
from headrace.api.generated import admin_pb2, jobs_pb2, nodes_pb2
from tests.contract.grpc.harness import Agent, Api, an_api, eventually, launches, run
from tests.rubick.worlds import Scaling

KNOBS = RubickSettings(
    switch_seconds=1.0, cool_down_seconds=0.0, attempts=0, search_beside_nodes=1000
)
"""Its round displaces nobody, so that a search finds what it misses."""


def known_policies() -> dict[str, Policy]:
    times = Scaling()
    return {**BASELINES, "rubick": Rubick(lambda _: times, KNOBS)}


def lasting(steps: int) -> dict[str, object]:
    """A job of so many steps on up to four accelerators."""
    return {
        "accelerators": {"minimum": 1, "maximum": 4},
        "training": {"globalBatchSize": 8, "steps": steps},
    }


async def told(api: Api, kind: str, words: str) -> list[jobs_pb2.LoggedEvent]:
    """Events of a kind with these words."""
    page = await api.jobs.ListEvents(jobs_pb2.ListEventsRequest(page_size=1000))
    return [each for each in page.events if each.kind == kind and words in each.message]


async def taken(api: Api) -> str:
    """The metric that counts proposals that were taken; empty while none was."""
    url = f"http://{api.plane.metrics_address}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url) as page:
            return str(page.read().decode())

    lines = (await asyncio.to_thread(read)).splitlines()
    wanted = 'headrace_search_proposals_total{verdict="Taken"}'
    return next((line for line in lines if line.startswith(wanted)), "")


def test_what_a_search_finds_enters_as_an_event_and_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "live_policies", known_policies)

    async def test() -> None:
        async with an_api(tmp_path) as api:
            request = admin_pb2.SetPolicyRequest(settings={"policy": '"rubick"'})
            await api.admin.SetPolicy(request)
            agent = Agent(api, slots=4)
            await agent.register()
            long = (await api.submit("long", **lasting(900_000))).uid
            (launch,) = (await agent.assigned(launches)).launches
            assert len(launch.units) == 4
            await agent.started(launch)
            await agent.progressed(launch, 1, 4.0)
            await api.until_step(long, 1)

            await api.submit("short", **lasting(500))
            found, *_ = await eventually(lambda: told(api, "ProposalFound", "a longer search"))
            assert "proposes to start or change" in found.message
            orders = await eventually(
                lambda: told(api, "CycleDecided", "as a longer search proposed")
            )
            assert orders[0].sequence > found.sequence
            assert await eventually(lambda: taken(api))

            def gives_way(assignment: nodes_pb2.WatchAssignmentsResponse) -> bool:
                """The long one is asked to stop, or to go on with fewer."""
                (one,) = (each for each in assignment.launches if each.uid == long)
                return one.intent != launch.intent or one.plan != launch.plan

            await agent.assigned(gives_way)

    run(test())
