"""Cordons and taints of Node objects, by the real kubectl, reach the control plane."""

import asyncio
from pathlib import Path

import pytest
from kubernetes import client

from headrace.api.generated import admin_pb2
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.fixtures import Command
from tests.kubernetes.operator.processes import Node, Stage, a_stage, eventually, run

pytestmark = pytest.mark.process


async def told(stage: Stage) -> str:
    """What the control plane has of its one node."""
    (node,) = (await stage.api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes
    return f"{node.closed}: {node.closed_reason}" if node.closed else "open"


async def names(stage: Stage) -> list[str]:
    """Those of the nodes that the control plane knows."""
    told = await stage.api.admin.ListNodes(admin_pb2.ListNodesRequest())
    return [each.node.name for each in told.nodes]


async def becomes(stage: Stage, wanted: str) -> None:
    """Returns when the control plane has the node so."""

    async def is_so() -> bool:
        return await told(stage) == wanted

    await eventually(f"the node is {wanted}", is_so)


def test_kubectl_cordons_drains_taints_and_uncordons(
    api_server: ApiServer, kubectl: Command, namespace: str, tmp_path: Path
) -> None:
    nodes = client.CoreV1Api(api_server.client)

    async def by_kubectl(*words: str) -> None:
        await asyncio.to_thread(kubectl, *words)

    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage, Node(stage, finish=False):
            (name,) = await eventually("its agent has registered", lambda: names(stage))
            pools = f'[{{"nodeSelector": {{"of": "{namespace}"}}}}]'
            await stage.operator(flags=("--nodes", "yes", "--node-pools", pools))
            meta = client.V1ObjectMeta(name=name, labels={"of": namespace})
            nodes.create_node(client.V1Node(metadata=meta))
            try:
                uid = stage.create("train")["metadata"]["uid"]
                await stage.condition("train", "Running", "True")
                await by_kubectl("cordon", name)
                await becomes(stage, "Cordoned: it is cordoned")
                stage.create("later")
                await stage.condition("later", "Admitted", "False")
                await by_kubectl("annotate", "node", name, "headrace.dev/drain=true")
                await stage.condition("train", "Admitted", "False")
                job = await stage.job(uid)
                assert job is not None
                assert job.status.attempt == 1, "it is left by a planned stop, and not failed"
                await by_kubectl("uncordon", name)
                await becomes(stage, "open")
                await stage.condition("train", "Running", "True")
                await by_kubectl("taint", "node", name, "team=a:NoSchedule")
                await becomes(stage, "Cordoned: taint team=a:NoSchedule is not tolerated")
                await by_kubectl("taint", "node", name, "team=a:NoExecute", "--overwrite")
            finally:
                nodes.delete_node(name)
            # Nothing keeps anything off it any more; whether it lives, its agent tells.
            await becomes(stage, "open")

    run(test())
