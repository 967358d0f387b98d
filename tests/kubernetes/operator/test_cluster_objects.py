"""Queues and the policy as objects; one test, because a cluster has one policy."""

from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from headrace.api.generated import admin_pb2
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.processes import Document, a_stage, condition, eventually, run

pytestmark = pytest.mark.process

PLACE = ("headrace.dev", "v1alpha1")
A_POLICY = ("clusterpolicies", "ClusterPolicy", "default")


def make(objects: client.CustomObjectsApi, plural: str, kind: str, name: str, **spec: Any) -> None:
    document = {
        "apiVersion": "/".join(PLACE),
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    objects.create_cluster_custom_object(*PLACE, plural, document)


def let_go(objects: client.CustomObjectsApi, plural: str, name: str) -> None:
    """Takes the finalizers from an object."""
    objects.patch_cluster_custom_object(
        *PLACE,
        plural,
        name,
        {"metadata": {"finalizers": None}},
        _content_type="application/merge-patch+json",
    )


def test_a_queue_and_the_policy_become_settings_and_say_so(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    objects = client.CustomObjectsApi(api_server.client)
    queue_name = namespace[-20:].strip("-")

    def there(plural: str, name: str) -> Document | None:
        listed: Any = objects.list_cluster_custom_object(*PLACE, plural)
        items = listed["items"]
        return next((each for each in items if each["metadata"]["name"] == name), None)

    def is_ready(plural: str, name: str, status: str) -> Document | None:
        found = there(plural, name)
        return found if condition(found, "Ready").get("status") == status else None

    def queue_is(status: str) -> Document | None:
        return is_ready("queues", queue_name, status)

    def queue_counts() -> Document:
        told = (there("queues", queue_name) or {})["status"]
        return {each: told[each] for each in told if each.startswith(("held", "waiting", "jobs"))}

    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            await stage.operator(flags=("--cluster-objects", "yes"))
            make(objects, "queues", "Queue", queue_name, quotaAccelerators=3)
            make(objects, *A_POLICY, policy="fifo", periodSeconds=7)
            try:
                await eventually("the queue is there", lambda: queue_is("True"))
                policy = await eventually(
                    "it is set", lambda: is_ready("clusterpolicies", "default", "True")
                )
                told = await stage.api.admin.GetPolicy(admin_pb2.GetPolicyRequest())
                assert told.settings["policy"] == '"fifo"'
                assert float(told.settings["period_seconds"]) == 7
                assert policy["status"]["version"] == told.version
                queues = (await stage.api.admin.ListQueues(admin_pb2.ListQueuesRequest())).queues
                assert {each.name: each.quota_accelerators for each in queues}[queue_name] == 3

                # A queue that a job needs says why it stays, and goes when the job has gone.
                stage.create("train", queue=queue_name, suspend=True)
                await stage.condition("train", "Suspended", "True")
                assert queue_counts()["jobsWaiting"] == 0
                stage.patch("train", {"spec": {"suspend": False}})
                await eventually(
                    "it says who waits",
                    lambda: (
                        queue_counts()
                        == {"heldAccelerators": 0, "waitingAccelerators": 1}
                        | {"jobsRunning": 0, "jobsWaiting": 1}
                    ),
                )
                objects.delete_cluster_custom_object(*PLACE, "queues", queue_name)
                kept = await eventually("it says so", lambda: queue_is("False"))
                assert "1 unfinished jobs" in condition(kept, "Ready")["message"]
                stage.delete("train")
                await stage.gone("train")
                await eventually("it is gone", lambda: there("queues", queue_name) is None)
            finally:
                for plural, name in (("queues", queue_name), ("clusterpolicies", "default")):
                    if there(plural, name):
                        let_go(objects, plural, name)
                    if there(plural, name):
                        objects.delete_cluster_custom_object(*PLACE, plural, name)

    run(test())
