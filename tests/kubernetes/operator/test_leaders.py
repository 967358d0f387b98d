"""Two replicas, one leader: also when one is frozen, or the Lease is deleted."""

import signal
import urllib.error
from functools import partial
from pathlib import Path

import pytest
from kubernetes import client

from headrace.api.generated import jobs_pb2
from headrace.api.operator_term import OPERATOR_KEY, TERM_KEY
from tests.contract.grpc.harness import refusal
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.processes import Process, Stage, a_stage, eventually, run

pytestmark = pytest.mark.process

DEPOSED = 3
SHORT = ("--lease-seconds", "6")


def leads(operator: Process) -> bool:
    return "headrace_operator_leads 1.0" in operator.page("/metrics")


def is_ready(operator: Process) -> bool:
    try:
        return operator.page("/readyz") == "ok\n"
    except urllib.error.HTTPError as error:
        error.close()
        return False


def term(operator: Process) -> int:
    page = operator.page("/metrics")
    line = next(each for each in page.splitlines() if each.startswith("headrace_operator_term "))
    return int(float(line.split()[1]))


def stale_call(stage: Stage, number: int) -> object:
    """What a replica that leads no more would ask for."""
    metadata = (
        ("headrace-role", "operator"),
        (OPERATOR_KEY, f"default/{stage.namespace}"),
        (TERM_KEY, str(number)),
    )
    return stage.api.jobs.SubmitJob(jobs_pb2.SubmitJobRequest(), metadata=metadata)


def test_who_was_frozen_beyond_its_lease_is_deposed_and_does_nothing_more(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            first = await stage.operator(flags=SHORT)
            await eventually("the first leads", lambda: leads(first))
            second = await stage.operator(flags=SHORT)
            stage.create("before")
            await stage.condition("before", "Accepted", "True")
            assert not leads(second)
            assert is_ready(second), "it stands by"
            first.send(signal.SIGSTOP)
            await eventually("the second leads", lambda: leads(second))
            stage.create("meanwhile")
            await stage.condition("meanwhile", "Accepted", "True")
            refused = await refusal(stale_call(stage, 1))
            assert "leads under term 2 by now" in (refused.details() or "")
            first.send(signal.SIGCONT)
            assert await first.ends() == DEPOSED
            assert leads(second)
            assert len(await stage.jobs()) == 2

    run(test())


def test_a_leader_that_is_asked_to_end_hands_over_at_once(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            first = await stage.operator()
            await eventually("the first leads", lambda: leads(first))
            second = await stage.operator()
            await eventually("the second is ready", lambda: is_ready(second))
            first.send(signal.SIGTERM)
            assert await first.ends() == 0
            lease = client.CoordinationV1Api(api_server.client).read_namespaced_lease(
                namespace, "default"
            )
            assert lease.spec is not None
            assert lease.spec.holder_identity in ("", None, "replica-2"), "it was given back"
            await eventually("the second leads", lambda: leads(second))
            assert term(second) == 2

    run(test())


def test_a_lease_that_was_deleted_counts_on_above_what_the_control_plane_knows(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            for number in range(1, 3):
                operator = await stage.operator(identity="pod")
                await eventually("it leads", partial(leads, operator))
                stage.create(f"train-{number}")
                await stage.condition(f"train-{number}", "Accepted", "True")
                operator.send(signal.SIGTERM)
                assert await operator.ends() == 0
            client.CoordinationV1Api(api_server.client).delete_namespaced_lease(
                namespace, "default"
            )
            anew = await stage.operator(identity="pod")
            stage.create("train-3")
            await stage.condition("train-3", "Accepted", "True")
            assert term(anew) == 3

    run(test())
