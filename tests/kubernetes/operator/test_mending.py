"""What differs between both sides is mended, whoever made it so and however long ago."""

import signal
from pathlib import Path

import pytest

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.faulty_proxy import FaultyProxy, Request
from tests.kubernetes.operator.processes import (
    Document,
    Node,
    a_stage,
    condition,
    end,
    eventually,
    run,
    start_control_plane,
)

pytestmark = pytest.mark.process


def undated(found: Document | None) -> Document:
    """The status without when the operator itself first said something."""
    status = dict((found or {}).get("status", {}))
    accepted = condition(found, "Accepted")
    accepted.pop("lastTransitionTime", None)
    others = [each for each in status.get("conditions", ()) if each["type"] != "Accepted"]
    return {**status, "conditions": [*others, accepted]}


def test_a_status_that_was_edited_or_deleted_is_written_again(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            operator = await stage.operator()
            stage.create("train", suspend=True)
            written = undated(await stage.condition("train", "Suspended", "True"))
            stage.patch_status("train", {"status": {"plan": "dp64", "failures": 7}})

            def mended() -> bool:
                return undated(stage.find("train")) == written

            await eventually("the edit is undone", mended)
            operator.send(signal.SIGTERM)
            await operator.ends()
            stage.patch_status("train", {"status": None})
            await stage.operator()
            await eventually("the status is back", mended)

    run(test())


def test_after_a_pause_what_differs_on_either_side_is_mended(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            operator = await stage.operator(identity="pod")
            for name in ("stays", "vanishes"):
                stage.create(name, suspend=True)
                await stage.condition(name, "Suspended", "True")
            operator.send(signal.SIGKILL)
            await operator.ends()
            stage.delete("vanishes")
            stage.patch("vanishes", {"metadata": {"finalizers": None}})
            await stage.gone("vanishes")
            stage.create("new")
            # Of the same name as one that went: another object, another job.
            again = stage.create("vanishes", suspend=True)["metadata"]["uid"]
            await stage.operator(identity="pod")
            await stage.condition("new", "Accepted", "True")
            await stage.condition("vanishes", "Suspended", "True")

            async def right() -> bool:
                jobs = await stage.jobs()
                names = sorted(job.name for job in jobs)
                uids = {job.uid for job in jobs}
                return names == ["new", "stays", "vanishes"] and again in uids

            await eventually("there is one job for each object", right)

    run(test())


def test_a_control_plane_that_is_gone_keeps_objects_until_they_are_abandoned(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with a_stage(api_server, namespace, tmp_path) as stage:
            await stage.operator()
            for name in ("kept", "abandoned"):
                stage.create(name, suspend=True)
                await stage.condition(name, "Suspended", "True")
            address = stage.plane.told["grpc"]
            await end(stage.plane)
            stage.create("late", suspend=True)
            await stage.condition("late", "Accepted", "Unknown", "ControlPlaneUnreachable")
            for name in ("kept", "abandoned"):
                stage.delete(name)
            stage.patch(
                "abandoned", {"metadata": {"annotations": {"headrace.dev/abandon": "true"}}}
            )
            await stage.gone("abandoned")
            assert stage.find("kept") is not None
            assert "Abandoned" in {each.reason for each in stage.events()}

            stage.plane = await start_control_plane(tmp_path, address)
            try:
                await stage.gone("kept")
                await stage.condition("late", "Suspended", "True")

                async def right() -> bool:
                    return [job.name for job in await stage.jobs()] == ["late"]

                await eventually("the abandoned object's job is withdrawn", right)
            finally:
                await end(stage.plane)

    run(test())


def test_conflicts_lost_watches_and_versions_that_are_gone_change_nothing(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with (
            a_stage(api_server, namespace, tmp_path) as stage,
            Node(stage) as node,
            FaultyProxy(api_server).running(tmp_path) as proxy,
        ):
            refused: list[str] = []

            def rule(request: Request) -> int | None:
                """The first write of each sort conflicts; the API server then has a bad moment."""
                what = str(request)
                if request.verb in ("PATCH", "POST") and request.number:
                    refused.append(what)
                    return {1: 409, 2: 503, 3: 429}.get(refused.count(what))
                return None

            proxy.rule = rule
            operator = await stage.operator(kubeconfig=proxy.kubeconfig)
            uid = stage.create("train")["metadata"]["uid"]
            await stage.condition("train", "Succeeded", "True")
            assert {"PATCH train", "PATCH status"} <= set(refused)

            gone: list[Request] = []

            def too_old(request: Request) -> int | None:
                if request.verb == "WATCH" and "trainingjobs" in request.path and not gone:
                    gone.append(request)
                    return 410
                return None

            proxy.rule = too_old
            assert proxy.cut_watches() == 1
            await eventually("the watch was too old", lambda: bool(gone))
            second = stage.create("later")["metadata"]["uid"]
            await stage.condition("later", "Succeeded", "True")
            page = operator.page("/metrics")
            assert "headrace_operator_relists 1.0" in page
            assert "headrace_operator_watches_lost 1.0" in page
            assert node.starts == [(uid, 1), (second, 1)]
            assert condition(stage.find("train"), "Succeeded")["status"] == "True"

    run(test())
