"""Written to Kubernetes by the command line, told by the operator, read from the control plane."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from headrace.cli.exit_codes import ExitCode
from tests.architecture.source_tree import ROOT
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.processes import Node, Stage, a_stage, manifest, run

pytestmark = pytest.mark.process


async def headrace(stage: Stage, *arguments: str, stdin: str = "") -> tuple[int, str]:
    """Exit status of `headrace` and all that it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace.cli.entry", *arguments),
        *("--server", stage.plane.told["grpc"]),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, told.decode()


def test_it_waits_for_what_it_wrote_and_is_told_where_to_write(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    document = manifest("train")
    document["metadata"]["namespace"] = namespace
    text = json.dumps(document)
    way = ("--kubeconfig", str(api_server.kubeconfig))

    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage, Node(stage):
            waiting = asyncio.create_task(
                headrace(stage, "apply", "--wait", "--timeout", "90", "-f", "-", *way, stdin=text)
            )
            # It began before anybody could have told the control plane.
            await stage.operator()
            code, told = await waiting
            assert code == ExitCode.OK, told
            assert told.startswith("job/train created\n")
            assert "job/train Succeeded" in told

            job = f"{namespace}/train"
            for words in (("apply", "-f", "-"), ("suspend", job), ("delete", job)):
                code, told = await headrace(stage, *words, stdin=text)
                assert code == ExitCode.REFUSED, told
                assert "is owned by Kubernetes and read-only here; use `kubectl " in told
                assert "`, or the same command of headrace with --kubeconfig" in told

            code, told = await headrace(stage, "delete", "--wait", job, *way)
            assert (code, told) == (ExitCode.OK, "job/train deleted; its checkpoints stay\n")
            assert stage.find("train") is None

    run(test())
