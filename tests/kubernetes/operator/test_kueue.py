"""The hand-shake with Kueue itself: it admits, preempts and lets go; Headrace runs what it admits.

It needs Kueue's manager, which `make kueue` builds; else it is skipped.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.control_plane import local_cluster
from tests.kubernetes.fixtures import expect_programs
from tests.kubernetes.kueue import PLACE, kueue, quota
from tests.kubernetes.operator.conftest import CRDS
from tests.kubernetes.operator.processes import (
    GROUP,
    PLURAL,
    VERSION,
    Document,
    Node,
    Stage,
    a_stage,
    condition,
    eventually,
    manifest,
    run,
)
from tests.kubernetes.programs import KUEUE

pytestmark = [pytest.mark.process, pytest.mark.long]
GPU = "nvidia.com/gpu"


@pytest.fixture(autouse=True, scope="module")
def kueue_is_here() -> None:
    expect_programs(KUEUE)


@pytest.fixture(autouse=True, scope="session")
def kinds() -> None:
    """In a cluster of its own, which the test makes."""


def queued(stage: Stage, name: str, **spec: Any) -> str:
    """Makes a job's object that names the queue; its uid."""
    document = manifest(name, **spec)
    document["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team"}
    made: Any = stage.objects.create_namespaced_custom_object(
        GROUP, VERSION, stage.namespace, PLURAL, document
    )
    return str(made["metadata"]["uid"])


def workload_of(stage: Stage, uid: str) -> Document | None:
    group, version = PLACE
    found: Any = stage.objects.list_namespaced_custom_object(
        group, version, stage.namespace, "workloads", label_selector=f"kueue.x-k8s.io/job-uid={uid}"
    )
    return dict(found["items"][0]) if found["items"] else None


async def workload_is(stage: Stage, uid: str, kind: str, status: str) -> Document:
    """The Workload of a job, once one of its conditions is so."""

    def there() -> Document | None:
        found = workload_of(stage, uid)
        return found if condition(found, kind).get("status") == status else None

    found: Document = await eventually(f"the Workload is {kind}={status}", there)
    return found


def set_active(stage: Stage, uid: str, active: bool) -> None:
    found = workload_of(stage, uid)
    assert found is not None
    group, version = PLACE
    stage.objects.patch_namespaced_custom_object(
        group,
        version,
        stage.namespace,
        "workloads",
        found["metadata"]["name"],
        {"spec": {"active": active}},
        _content_type="application/merge-patch+json",
    )


def test_kueue_admits_preempts_and_lets_go_and_the_job_follows(tmp_path: Path) -> None:
    async def test(stage: Stage, node: Node) -> None:
        await stage.operator()
        low = queued(stage, "low", accelerators={"minimum": 1, "maximum": 4})
        found = await stage.condition("low", "Running", "True")
        # Four are free, and Kueue has admitted two.
        assert found["status"]["accelerators"] == 2
        assert found["spec"]["suspend"] is False
        made = await workload_is(stage, low, "Admitted", "True")
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("TrainingJob", low)
        (ranks,) = made["spec"]["podSets"]
        assert (ranks["count"], ranks["minCount"]) == (4, 1)
        (given,) = made["status"]["admission"]["podSetAssignments"]
        assert given["count"] == 2
        # Kueue waits for that before it admits the next one.
        made = await workload_is(stage, low, "PodsReady", "True")
        assert condition(made, "PodsReady")["reason"] == "Started"

        high = queued(stage, "high", accelerators={"minimum": 2}, priority=10)
        await stage.condition("high", "Running", "True")
        evicted = await workload_is(stage, low, "Requeued", "True")
        assert condition(evicted, "Requeued")["reason"] == "Preempted"
        assert condition(evicted, "PodsReady")["reason"] == "WaitForStart"
        found = await stage.condition("low", "Suspended", "True")
        assert (found["spec"]["suspend"], found["status"]["accelerators"]) == (True, 0)

        await node.finish(high)
        ended = await workload_is(stage, high, "Finished", "True")
        assert condition(ended, "Finished")["reason"] == "Succeeded"
        await stage.condition("low", "Running", "True")
        assert node.starts == [(low, 1), (high, 1), (low, 2)]

        # What people suspend, they suspend at the Workload.
        set_active(stage, low, active=False)
        await stage.condition("low", "Suspended", "True")
        set_active(stage, low, active=True)
        await eventually("attempt 3 runs", lambda: (low, 3) in node.starts)
        await stage.condition("low", "Running", "True")
        await node.finish(low)
        await workload_is(stage, low, "Finished", "True")
        stage.delete("low")
        await stage.gone("low")
        await eventually("its Workload goes too", lambda: workload_of(stage, low) is None)

        # Without the label nobody asks Kueue.
        stage.create("free", accelerators={"minimum": 4})
        await stage.condition("free", "Running", "True")

    async def on_stage(namespace: str) -> None:
        async with (
            a_stage(kubernetes, namespace, tmp_path) as stage,
            Node(stage, slots=4, finish=False) as node,
        ):
            await test(stage, node)

    with local_cluster() as kubernetes:
        kubernetes.kubectl("apply", "--server-side", "-f", str(CRDS))
        kubernetes.kubectl("wait", "--for=condition=Established", "-f", str(CRDS))
        kubernetes.new_namespace("research")
        # Kueue is told nothing of our kind.
        with kueue(kubernetes, tmp_path, frameworks=()):
            quota(kubernetes, "research", GPU, 2)
            run(on_stage("research"))
