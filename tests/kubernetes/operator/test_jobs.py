"""Objects become jobs, and what becomes of those is seen in their status."""

from pathlib import Path

import pytest

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.processes import Node, a_stage, condition, run

pytestmark = pytest.mark.process


def test_a_job_that_succeeds_is_told_so_in_few_writes(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage, Node(stage) as node:
            operator = await stage.operator()
            made = stage.create("train")
            found = await stage.condition("train", "Succeeded", "True")
            assert node.starts == [(made["metadata"]["uid"], 1)]
            assert found["metadata"]["finalizers"] == ["headrace.dev/control-plane"]
            status = found["status"]
            assert status["observedGeneration"] == 1
            assert {each["observedGeneration"] for each in status["conditions"]} == {1}
            assert status["columns"]["progress"] == "100/100 100%"
            assert condition(found, "Accepted")["status"] == "True"
            page = operator.page("/metrics")
            print(page)
            print([(e.reason, e.note) for e in stage.events()])
            stage.delete("train")
            await stage.gone("train")
            await stage.no_jobs()

    run(test())
