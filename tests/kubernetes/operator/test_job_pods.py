"""Pods that jobs have for themselves, on a real API server without kubelets."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.faulty_proxy import Fault, FaultyProxy, Request
from tests.kubernetes.operator.processes import Node, Process, Stage, a_stage, eventually, run

pytestmark = pytest.mark.process

OWN: dict[str, Any] = {
    "volumes": [
        {
            "name": "data",
            "mountPath": "/checkpoints",
            "persistentVolumeClaim": {"claimName": "disk"},
        }
    ],
    "env": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "word"}}}],
}


@pytest.fixture
def with_pods(tmp_path: Path) -> tuple[str, ...]:
    """Flags of an operator that makes pods."""
    file = tmp_path / "pods.yaml"
    settings = {
        "image": "headrace/agent:1",
        "uid": 64000,
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    }
    file.write_text(yaml.safe_dump(settings))
    return ("--job-pods", str(file))


def pods(stage: Stage) -> list[client.V1Pod]:
    """Those that are there, and not asked to go."""
    found = client.CoreV1Api(stage.kubernetes.client).list_namespaced_pod(stage.namespace)
    there: list[Any] = list(found.items)
    return [each for each in there if each.metadata.deletion_timestamp is None]


def said_by_kubelet(stage: Stage, name: str, state: dict[str, Any]) -> None:
    status = {
        "name": "ranks",
        "image": "x",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }
    client.CoreV1Api(stage.kubernetes.client).patch_namespaced_pod_status(
        name, stage.namespace, {"status": {"containerStatuses": [status]}}
    )


def test_a_job_has_its_pods_while_it_holds_something(
    api_server: ApiServer, namespace: str, tmp_path: Path, with_pods: tuple[str, ...]
) -> None:
    async def test() -> None:
        async with (
            a_stage(api_server, namespace, tmp_path) as stage,
            Node(stage, finish=False) as node,
        ):
            await stage.operator(flags=with_pods)
            uid = stage.create("train", **OWN)["metadata"]["uid"]
            (pod,) = await eventually("it has a pod", lambda: pods(stage))
            assert pod.metadata.owner_references[0].uid == uid
            assert pod.spec.containers[0].command == ["python3", "-m", "agent.pod_init"]
            assert pod.spec.containers[0].env[0].value == f"{uid}/1"
            terms = pod.spec.affinity.node_affinity
            (term,) = terms.required_during_scheduling_ignored_during_execution.node_selector_terms
            assert term.match_fields[0].values == [node.name]
            await eventually("its agent waits for the pod", lambda: (uid, 1) in node.own_pods)

            said_by_kubelet(
                stage,
                pod.metadata.name,
                {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
            )
            found = await stage.condition("train", "PodsReady", "False", "PodNotStarted")
            told = [each for each in found["status"]["conditions"] if each["type"] == "PodsReady"]
            assert told[0]["message"] == f"{pod.metadata.name}: ImagePullBackOff: no such image"
            await eventually(
                "it is an event",
                lambda: [each for each in stage.events() if each.reason == "PodNotStarted"],
            )
            said_by_kubelet(
                stage, pod.metadata.name, {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
            )
            await stage.condition("train", "PodsReady", "True", "PodsReady")

            # Another attempt has another pod.
            stage.patch("train", {"spec": {"suspend": True}})
            await eventually("the pod goes", lambda: not pods(stage))
            found = await stage.condition("train", "Suspended", "True")
            types = {each["type"] for each in found["status"]["conditions"]}
            assert "PodsReady" not in types
            stage.patch("train", {"spec": {"suspend": False}})
            (again,) = await eventually("it has a pod again", lambda: pods(stage))
            assert again.metadata.labels["headrace.dev/attempt"] == "2"
            await stage.condition("train", "Running", "True")
            await node.finish(uid)
            await stage.condition("train", "Succeeded", "True")
            await eventually("nothing is left", lambda: not pods(stage))
            stage.delete("train")
            await stage.gone("train")

    run(test())


def test_a_job_without_anything_of_its_own_has_no_pod_and_without_settings_it_is_refused(
    api_server: ApiServer, namespace: str, tmp_path: Path, with_pods: tuple[str, ...]
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage, Node(stage) as node:
            first = await stage.operator(flags=with_pods)
            uid = stage.create("plain")["metadata"]["uid"]
            await stage.condition("plain", "Succeeded", "True")
            assert node.starts == [(uid, 1)]
            assert not node.own_pods
            elsewhere = {"store": "/elsewhere"}
            stage.create("forgetful", **OWN, checkpoint=elsewhere)
            found = await stage.condition("forgetful", "Accepted", "False")
            assert "below the mountPath of one of the job's claims" in str(found["status"])
            first.send(signal.SIGTERM)
            await first.ends()
            await stage.operator()
            stage.create("own", **OWN)
            found = await stage.condition("own", "Accepted", "False")
            assert "mounts nothing" in str(found["status"])
            assert not pods(stage)

    run(test())


EVERY_DAY = [("POST", Fault.UNANSWERED)]
ALL = [(verb, fault) for verb in ("POST", "DELETE") for fault in Fault]
POINTS = ALL if os.environ.get("HEADRACE_ALL_KILLS") == "1" else EVERY_DAY


@pytest.mark.parametrize(("verb", "fault"), POINTS)
def test_an_operator_that_is_killed_at_a_pod_leaves_no_orphan_and_makes_none_twice(
    api_server: ApiServer,
    namespace: str,
    tmp_path: Path,
    with_pods: tuple[str, ...],
    verb: str,
    fault: Fault,
) -> None:
    async def test() -> None:
        async with (
            a_stage(api_server, namespace, tmp_path) as stage,
            Node(stage, finish=False) as node,
            FaultyProxy(api_server).running(tmp_path) as proxy,
        ):
            victim: list[Process] = []
            killed: list[Request] = []

            def rule(request: Request) -> Fault | None:
                if killed or request.verb != verb or "/pods" not in request.path:
                    return None
                killed.append(request)
                victim[0].send(signal.SIGKILL)
                return fault

            async def start_again() -> None:
                await victim[0].ends()
                await stage.operator(identity="pod", flags=with_pods)

            proxy.rule = rule
            victim.append(
                await stage.operator(identity="pod", kubeconfig=proxy.kubeconfig, flags=with_pods)
            )
            again = asyncio.create_task(start_again())
            uid = stage.create("train", **OWN)["metadata"]["uid"]
            (pod,) = await eventually("it has its pod", lambda: pods(stage))
            await stage.condition("train", "Running", "True")
            await node.finish(uid)
            await eventually("no pod is left", lambda: not pods(stage))
            await stage.condition("train", "Succeeded", "True")
            assert killed
            await again
            names = {
                each.involved_object.name
                for each in client.CoreV1Api(api_server.client)
                .list_namespaced_event(namespace)
                .items
                if each.involved_object.kind == "Pod"
            }
            assert names <= {pod.metadata.name}
            assert node.starts == [(uid, 1)]
            stage.delete("train")
            await stage.gone("train")
            await stage.no_jobs()

    run(test())


def test_pods_of_a_job_that_is_gone_for_good_go_with_its_object(
    api_server: ApiServer, namespace: str, tmp_path: Path, with_pods: tuple[str, ...]
) -> None:
    async def test() -> None:
        async with (
            a_stage(api_server, namespace, tmp_path) as stage,
            Node(stage, finish=False),
        ):
            await stage.operator(flags=with_pods)
            stage.create("train", **OWN)
            await eventually("it has its pod", lambda: pods(stage))
            await stage.condition("train", "Running", "True")
            stage.patch("train", {"metadata": {"annotations": {"headrace.dev/abandon": "true"}}})
            stage.plane.send(signal.SIGKILL)
            stage.delete("train")
            await stage.gone("train")
            await eventually("Kubernetes removes it", lambda: not pods(stage))

    run(test())
