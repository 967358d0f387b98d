"""Queues and settings whose object is in Kubernetes are changed there."""

from pathlib import Path

import grpc

from controlplane.main import running
from headrace.api.generated import admin_pb2, common_pb2
from tests.contract.grpc.harness import Agent, Api, an_api, eventually, over, refusal, run, settings

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


def closing(**closed: str) -> admin_pb2.CloseNodesRequest:
    nodes = (admin_pb2.ClosedNode(node=name, closed=how) for name, how in closed.items())
    return admin_pb2.CloseNodesRequest(nodes=nodes)


def test_what_kubernetes_keeps_off_a_node_is_told_and_people_do_not_undo_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:

            async def told() -> str:
                (node,) = (await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes
                return f"{node.closed} {node.drained}"

            async def drain(drained: bool) -> str:
                request = admin_pb2.DrainNodeRequest(node=agent.node, drained=drained)
                return str((await api.admin.DrainNode(request)).note)

            agent = Agent(api)
            # Before its agent has ever spoken.
            await api.admin.CloseNodes(closing(**{agent.node: "Cordoned"}), metadata=OPERATOR)
            await agent.register()

            async def known() -> bool:
                return bool((await api.admin.ListNodes(admin_pb2.ListNodesRequest())).nodes)

            await eventually(known)
            assert await told() == "Cordoned False"
            assert await drain(True) == ""
            assert f"`kubectl uncordon {agent.node}`" in await drain(False)
            assert await told() == "Cordoned False"
            await drain(True)
            await api.admin.CloseNodes(closing(), metadata=OPERATOR)
            assert await told() == " True"
            assert await drain(False) == ""

    run(test())


def test_nodes_that_are_closed_in_no_known_way_are_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            wrong = await refusal(api.admin.CloseNodes(closing(a="Ajar"), metadata=OPERATOR))
            assert wrong.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "wanted one of Cordoned, Drained, got 'Ajar'" in (wrong.details() or "")
            twice = admin_pb2.CloseNodesRequest(nodes=[*closing(a="Drained").nodes] * 2)
            refused = await refusal(api.admin.CloseNodes(twice, metadata=OPERATOR))
            assert "every node once" in (refused.details() or "")

    run(test())
