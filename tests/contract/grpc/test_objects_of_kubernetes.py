"""Queues and settings whose object is in Kubernetes are changed there."""

from pathlib import Path

import grpc

from controlplane.main import running
from headrace.api.generated import admin_pb2, common_pb2
from tests.contract.grpc.harness import Api, an_api, over, refusal, run, settings

OPERATOR = (("headrace-role", "operator"),)


async def quotas(api: Api) -> dict[str, int | None]:
    queues = (await api.admin.ListQueues(admin_pb2.ListQueuesRequest())).queues
    has = "quota_accelerators"
    return {each.name: each.quota_accelerators if each.HasField(has) else None for each in queues}


def putting(name: str, quota: int) -> admin_pb2.PutQueueRequest:
    return admin_pb2.PutQueueRequest(queue=common_pb2.Queue(name=name, quota_accelerators=quota))


def test_people_read_it_and_are_told_how_to_change_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.admin.PutQueue(putting("research", 2), metadata=OPERATOR)
            changed = await refusal(api.admin.PutQueue(putting("research", 9)))
            removing = admin_pb2.DeleteQueueRequest(name="research")
            removed = await refusal(api.admin.DeleteQueue(removing))
            assert changed.code() is removed.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "read-only here; use `kubectl apply -f FILE`" in (changed.details() or "")
            assert "`kubectl delete queues.headrace.dev research`" in (removed.details() or "")
            assert "of headrace with --kubeconfig" in (changed.details() or "")
        async with an_api(tmp_path) as api:
            await refusal(api.admin.PutQueue(putting("research", 9)))
            assert (await quotas(api))["research"] == 2
            await api.admin.DeleteQueue(removing, metadata=OPERATOR)
            await api.admin.PutQueue(putting("research", 9))
            assert (await quotas(api))["research"] == 9

    run(test())


def test_the_default_queue_is_as_at_first_when_its_object_goes(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.admin.PutQueue(putting("default", 2), metadata=OPERATOR)
            removing = admin_pb2.DeleteQueueRequest(name="default")
            await api.admin.DeleteQueue(removing, metadata=OPERATOR)
            assert (await quotas(api))["default"] is None
            await api.admin.PutQueue(putting("default", 3))

    run(test())


def test_settings_are_anybodys_again_when_their_object_goes(tmp_path: Path) -> None:
    def setting(**wanted: str) -> admin_pb2.SetPolicyRequest:
        return admin_pb2.SetPolicyRequest(settings=wanted)

    async def test() -> None:
        async with an_api(tmp_path) as api:
            await api.admin.SetPolicy(setting(period_seconds="7"), metadata=OPERATOR)
            refused = await refusal(api.admin.SetPolicy(setting(period_seconds="9")))
            back = await refusal(
                api.admin.RollBackPolicy(admin_pb2.RollBackPolicyRequest(version=1))
            )
            assert refused.code() is back.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "`kubectl edit clusterpolicies.headrace.dev default`" in (
                refused.details() or ""
            )
        async with (
            running(settings(tmp_path)) as plane,
            grpc.aio.insecure_channel(plane.address) as channel,
        ):
            api = over(plane, channel)
            await refusal(api.admin.SetPolicy(setting(period_seconds="9")))
            told = await api.admin.SetPolicy(setting(), metadata=OPERATOR)
            assert float(told.settings["period_seconds"]) == 7, "they stay as they were"
            told = await api.admin.SetPolicy(setting(period_seconds="9"))
            assert float(told.settings["period_seconds"]) == 9

    run(test())
