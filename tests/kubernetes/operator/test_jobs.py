"""Objects become jobs, and what becomes of those is seen in their status."""

import re
from pathlib import Path

import pytest

from headrace.api.generated import admin_pb2
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.processes import (
    Node,
    Process,
    a_stage,
    condition,
    eventually,
    run,
)

pytestmark = pytest.mark.process

TYPES = {
    "Accepted",
    "Admitted",
    "CheckpointMissed",
    "Failed",
    "Reconfiguring",
    "Running",
    "Scheduled",
    "Succeeded",
    "Suspended",
}

MOUNTED = {"name": "data", "mountPath": "/data", "hostPath": {"path": "/elsewhere"}}
"""Which no API server minds, but a control plane whose nodes mount nothing."""


def writes(operator: Process) -> int:
    """Requests that changed something, the Lease's own aside, as the operator counts them."""
    page = operator.page("/metrics")
    found = re.findall(r'requests_total\{status="20[01]",verb="(?:PATCH|DELETE)"\} ([0-9.]+)', page)
    return sum(int(float(each)) for each in found)


def test_a_job_from_apply_to_deletion(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with (
            a_stage(api_server, namespace, tmp_path) as stage,
            Node(stage, finish=False) as node,
        ):
            operator = await stage.operator()
            uid = stage.create("train", accelerators={"minimum": 2})["metadata"]["uid"]
            runs = await stage.condition("train", "Running", "True")
            await node.finish(uid)
            found = await stage.condition("train", "Succeeded", "True")
            events = [(each.reason, each.type) for each in stage.events()]
            written = writes(operator) + len(events)
            stage.delete("train")
            await stage.gone("train")
            await stage.no_jobs()

            assert node.starts == [(uid, 1)]
            assert runs["metadata"]["finalizers"] == ["headrace.dev/control-plane"]
            assert runs["status"]["accelerators"] == 2
            assert runs["status"]["plan"] == "dp2"
            status = found["status"]
            assert {each["type"] for each in status["conditions"]} == TYPES
            assert {each["observedGeneration"] for each in status["conditions"]} == {1}
            assert status["observedGeneration"] == 1
            assert status["columns"]["progress"] == "100/100 100%"
            owners = {
                (each["manager"], each["operation"])
                for each in found["metadata"]["managedFields"]
                if each.get("subresource") == "status"
            }
            assert owners == {("headrace-operator", "Apply")}
            assert events == [("Started", "Normal"), ("Succeeded", "Normal")]
            assert written <= 5, "all writes of a plain job's life"

    run(test())


def test_what_the_control_plane_refuses_is_a_condition_and_is_not_tried_again(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            operator = await stage.operator()
            stage.create("train", volumes=[MOUNTED])
            found = await stage.condition("train", "Accepted", "False", "SubmissionRefused")
            told = condition(found, "Succeeded")
            assert (told["status"], told["reason"]) == ("False", "SubmissionRefused")
            assert "mounts nothing" in told["message"]
            assert {each["type"] for each in found["status"]["conditions"]} == TYPES
            assert [each.reason for each in stage.events()] == ["SubmissionRefused"]

            stage.patch("train", {"metadata": {"labels": {"touched": "1"}}})
            stage.patch("train", {"spec": {"volumes": []}})
            await stage.condition("train", "Accepted", "True")
            refusals = re.findall(
                r'calls_total\{code="INVALID_ARGUMENT",method="SubmitJob"\} (\S+)',
                operator.page("/metrics"),
            )
            assert refusals == ["1.0"], "the same generation was submitted once"

    run(test())


def test_suspend_resume_and_an_edit_reach_the_job(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with (
            a_stage(api_server, namespace, tmp_path) as stage,
            Node(stage, finish=False) as node,
        ):
            await stage.operator()
            uid = stage.create("train", suspend=True)["metadata"]["uid"]
            await stage.condition("train", "Suspended", "True")
            stage.patch("train", {"spec": {"suspend": False}})
            await stage.condition("train", "Running", "True")
            stage.patch("train", {"spec": {"suspend": True}})
            found = await stage.condition("train", "Suspended", "True")
            assert found["status"]["plan"] == ""
            assert found["status"]["observedGeneration"] == 3
            stage.patch("train", {"spec": {"suspend": False, "priority": 7}})
            await eventually("attempt 2 runs", lambda: (uid, 2) in node.starts)
            job = await stage.job(uid)
            assert job is not None
            assert (job.priority, job.generation) == (7, 4)
            # A spec that is refused leaves the running job as it was.
            stage.patch("train", {"spec": {"volumes": [MOUNTED]}})
            found = await stage.condition("train", "Accepted", "False", "SubmissionRefused")
            assert condition(found, "Running")["status"] == "True"
            assert condition(found, "Accepted")["observedGeneration"] == 5

    run(test())


def test_an_object_goes_in_every_state_and_takes_its_job_along(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with (
            a_stage(api_server, namespace, tmp_path) as stage,
            Node(stage, finish=False) as node,
        ):
            stage.create("never-seen")
            stage.delete("never-seen")
            await stage.operator()
            stage.create("running", accelerators={"minimum": 2})
            stage.create("suspended", suspend=True)
            stage.create("refused", volumes=[MOUNTED])
            await stage.condition("running", "Running", "True")
            stage.create("waiting")
            await stage.condition("waiting", "Admitted", "False")
            await stage.condition("suspended", "Suspended", "True")
            await stage.condition("refused", "Accepted", "False")
            done = stage.create("done", suspend=True)["metadata"]["uid"]
            for name in ("running", "waiting", "suspended", "refused"):
                stage.delete(name)
                await stage.gone(name)
            stage.patch("done", {"spec": {"suspend": False}})
            await stage.condition("done", "Running", "True")
            await node.finish(done)
            await stage.condition("done", "Succeeded", "True")
            # Its time to live is set after its end, which is allowed.
            stage.patch("done", {"spec": {"ttlSecondsAfterFinish": 0}})
            await stage.gone("done")
            await stage.no_jobs()

    run(test())


def test_fifty_objects_at_once_become_fifty_jobs(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage, Node(stage, slots=8) as node:
            operator = await stage.operator()
            uids = {stage.create(f"train-{n}")["metadata"]["uid"] for n in range(50)}

            def ended() -> bool:
                return all(
                    condition(each, "Succeeded").get("status") == "True" for each in stage.all()
                )

            await eventually("all have succeeded", ended)
            assert sorted(node.starts) == sorted((uid, 1) for uid in uids)
            assert writes(operator) + len(stage.events()) <= 5 * 50
            stage.objects.delete_collection_namespaced_custom_object(
                "headrace.dev", "v1alpha1", namespace, "trainingjobs"
            )
            await eventually("all are gone", lambda: not stage.all())
            await stage.no_jobs()

    run(test())


def test_what_someone_else_manages_is_left_alone(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            await stage.operator()
            stage.create("theirs", managedBy="kueue.x-k8s.io/multikueue")
            stage.create("ours")
            await stage.condition("ours", "Accepted", "True")
            theirs = stage.find("theirs")
            assert theirs is not None
            assert "finalizers" not in theirs["metadata"]
            assert "conditions" not in theirs.get("status", {})
            assert [job.name for job in await stage.jobs()] == ["ours"]

    run(test())


def test_the_event_of_a_preemption_tells_for_whom(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage, Node(stage, finish=False):
            settings = {"policy": '"equal-share"'}
            await stage.api.admin.SetPolicy(admin_pb2.SetPolicyRequest(settings=settings))
            await stage.operator()
            stage.create("low", accelerators={"minimum": 2})
            await stage.condition("low", "Running", "True")
            made = stage.create("high", accelerators={"minimum": 2}, priority=7)
            await stage.condition("low", "Admitted", "False")
            (told,) = [each for each in stage.events() if each.reason == "Preempted"]
            assert (told.type, told.action) == ("Normal", "Preempt")
            assert str(told.note).endswith(
                f"makes room for {namespace}/high (preemptor UID: {made['metadata']['uid']}; "
                "preemptor path: /default; preemptee path: /default; preemptor priority: 7; "
                "preemptee priority: 0)"
            )

    run(test())


def test_a_label_of_kueue_means_nothing_where_there_is_none(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage, Node(stage) as node:
            await stage.operator()
            made = stage.create("train", suspend=True)
            labels = {"kueue.x-k8s.io/queue-name": "team"}
            stage.patch("train", {"metadata": {"labels": labels}, "spec": {"suspend": False}})
            await stage.condition("train", "Succeeded", "True")
            assert node.starts == [(made["metadata"]["uid"], 1)]

    run(test())


def test_a_namespace_goes_with_its_running_jobs(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        inner = f"{namespace}-inner"
        api_server.new_namespace(inner)
        async with a_stage(api_server, inner, tmp_path) as stage, Node(stage, finish=False):
            await stage.operator()
            stage.create("train")
            stage.create("suspended", suspend=True)
            await stage.condition("train", "Running", "True")
            await stage.condition("suspended", "Suspended", "True")
            api_server.delete_namespace(inner)
            await stage.gone("train")
            await stage.gone("suspended")
            await stage.no_jobs()

    run(test())
