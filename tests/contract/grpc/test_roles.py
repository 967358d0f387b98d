"""Who may: every RPC with every role over real mutual TLS, against a table written out here."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from controlplane.edges.grpc_server.roles import ALLOWED, Role, RoleMap, RolesFileError
from headrace.api.generated import admin_pb2, jobs_pb2, nodes_pb2
from tests.contract.grpc.certificates import Authority
from tests.contract.grpc.harness import (
    Agent,
    a_request,
    launches,
    over,
    refusal,
    run,
)
from tests.contract.grpc.secured import a_world

V, S, A, K, G = Role.VIEWER, Role.SUBMITTER, Role.ADMIN, Role.OPERATOR, Role.AGENT

EXPECTED: dict[str, set[Role]] = {
    "SubmitJob": {S, A, K},
    "WithdrawJob": {S, A, K},
    "GetJob": {V, S, A, K},
    "ListJobs": {V, S, A, K},
    "WatchJobs": {V, S, A, K},
    "StreamLogs": {V, S, A, K},
    "ListEvents": {V, S, A, K},
    "GetLosses": {V, S, A, K},
    "RegisterNode": {G},
    "WatchAssignments": {G},
    "Report": {G},
    "ServeLogs": {G},
    "GetCluster": {V, S, A, K},
    "ListNodes": {V, S, A, K},
    "DrainNode": {A},
    "ImportMeasurements": {A},
    "CloseNodes": {K},
    "RemoveNode": {A},
    "PutQueue": {A, K},
    "DeleteQueue": {A, K},
    "ListQueues": {V, S, A, K},
    "GetPolicy": {V, S, A, K},
    "SetPolicy": {A, K},
    "TryPolicy": {A},
    "ListPolicyVersions": {V, S, A, K},
    "RollBackPolicy": {A},
    "ListObservations": {V, S, A, K},
    "ListFits": {V, S, A, K},
    "ListForecastOutcomes": {V, S, A, K},
    "ListSwitchPrices": {V, S, A, K},
    "Explain": {V, S, A, K},
    "ExportSnapshot": {A, K},
    "Backup": {A},
}


def methods() -> dict[str, MethodDescriptor]:
    """Every method of every service of ours."""
    found = {}
    files: list[FileDescriptor] = [m.DESCRIPTOR for m in (jobs_pb2, nodes_pb2, admin_pb2)]
    for file in files:
        for service in file.services_by_name.values():
            for method in service.methods:
                found[f"/{service.full_name}/{method.name}"] = method
    return found


async def _nothing() -> AsyncIterator[Any]:
    for message in list[Any]():
        yield message


async def code_of(
    channel: grpc.aio.Channel, path: str, method: MethodDescriptor
) -> grpc.StatusCode:
    """How an empty request to that method ends; OK as soon as a stream tells something."""
    shape: Any = (
        channel.stream_stream
        if method.client_streaming and method.server_streaming
        else channel.unary_stream
        if method.server_streaming
        else channel.unary_unary
    )
    call: Any = shape(path)(_nothing() if method.client_streaming else b"")
    try:
        if method.server_streaming:
            async for _ in call:
                call.cancel()
                return grpc.StatusCode.OK
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_the_table_covers_every_rpc_and_says_what_is_expected() -> None:
    ours = {path for path in ALLOWED if path.startswith("/headrace.")}
    assert ours == set(methods())
    for path, method in methods().items():
        assert ALLOWED[path] == EXPECTED[method.name], path


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_call_what_the_table_says(role: Role, tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            a_world(tmp_path) as world,
            world.authority.channel(world.address, world.pairs[role]) as channel,
        ):
            found = {
                method.name: await code_of(channel, path, method)
                for path, method in methods().items()
            }
        denied = grpc.StatusCode.PERMISSION_DENIED
        for name, code in found.items():
            if role in EXPECTED[name]:
                assert code is not denied, name
                assert code is not grpc.StatusCode.INTERNAL, name
            else:
                assert code is denied, name

    run(test())


def test_strangers_and_callers_without_a_certificate_get_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_world(tmp_path) as world:
            stranger = world.authority.sign("stranger.example.org")
            async with world.authority.channel(world.address, stranger) as channel:
                unknown = await refusal(
                    over(world.plane, channel).jobs.ListJobs(jobs_pb2.ListJobsRequest())
                )
            other = Authority("another authority").sign("admin.example.org")
            async with world.authority.channel(world.address, other) as channel:
                forged = await refusal(
                    over(world.plane, channel).jobs.ListJobs(jobs_pb2.ListJobsRequest())
                )
            async with world.authority.channel(world.address, None) as channel:
                nobody = await refusal(
                    over(world.plane, channel).jobs.ListJobs(jobs_pb2.ListJobsRequest())
                )
        assert unknown.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "stranger.example.org" in (unknown.details() or "")
        assert forged.code() is grpc.StatusCode.UNAVAILABLE
        assert nobody.code() is grpc.StatusCode.UNAVAILABLE

    run(test())


def test_a_submitter_keeps_to_its_queues(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            a_world(tmp_path) as world,
            world.authority.channel(world.address, world.pairs[S]) as mine,
            world.authority.channel(world.address, world.pairs[A]) as admins,
        ):
            alice, admin = over(world.plane, mine), over(world.plane, admins)
            own = await alice.submit("own")
            job = await alice.job(own.uid)
            elsewhere = await refusal(alice.jobs.SubmitJob(a_request("other", queue="research")))
            foreign = await admin.submit("foreign", queue="research")
            moved = await refusal(alice.jobs.SubmitJob(a_request("foreign")))
            withdrawn = await refusal(
                alice.jobs.WithdrawJob(jobs_pb2.WithdrawJobRequest(uid=foreign.uid))
            )
            with_uid = a_request("third")
            with_uid.uid, with_uid.generation = "mine", 1
            minted = await refusal(alice.jobs.SubmitJob(with_uid))
            # The metadata by which a local operator is known means nothing with TLS.
            pretended = await refusal(
                alice.jobs.WithdrawJob(
                    jobs_pb2.WithdrawJobRequest(uid=foreign.uid),
                    metadata=(("headrace-role", "operator"),),
                )
            )
        assert job.submitter == "spiffe://example.org/alice"
        for error in (elsewhere, moved, withdrawn, minted, pretended):
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED

    run(test())


def test_an_agent_speaks_for_exactly_one_node(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            a_world(tmp_path) as world,
            world.authority.channel(world.address, world.pairs[G]) as channel,
        ):
            api = over(world.plane, channel)
            await Agent(api, "node-a").register()
            answer = await Agent(api, "node-a").report()
            other = Agent(api, "node-b")
            errors = [await refusal(other.register()), await refusal(other.report())]
            stream = other.watch()
            errors.append(await refusal(stream.read()))
        assert not answer.register_again
        for error in errors:
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "node-b" in (error.details() or "")

    run(test())


def test_what_an_agent_says_of_other_nodes_units_is_passed_over(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            a_world(tmp_path) as world,
            world.authority.channel(world.address, world.pairs[A]) as admins,
            world.authority.channel(world.address, world.pairs[G]) as honest,
            world.authority.channel(
                world.address, world.authority.sign("node-b.example.org")
            ) as liars,
        ):
            api = over(world.plane, admins)
            await api.be_patient()
            created = await api.submit(accelerators={"minimum": 1, "maximum": 1})
            agent = Agent(over(world.plane, honest), "node-a", slots=1)
            await agent.register()
            launch = (await agent.assigned(launches)).launches[0]
            liar = Agent(over(world.plane, liars), "node-b", slots=1)
            await liar.register()
            await liar.started(launch)
            await liar.progressed(launch, 7, 0.5)
            await liar.exited(launch, "Succeeded", step=7)
            await agent.report(
                started=[nodes_pb2.UnitStarted(uid=launch.uid, attempt=launch.attempt)]
            )
            await agent.progressed(launch, 1, 2.5)
            running = await api.until_stage(created.uid, "Running")
            losses = await api.jobs.GetLosses(jobs_pb2.GetLossesRequest(uid=created.uid))
            (still,) = (await agent.assigned(launches)).launches
        assert [(p.step, p.loss) for p in losses.points] == [(1, 2.5)]
        assert running.status.progress.step == 1
        assert (still.attempt, still.rendezvous) == (launch.attempt, "")

    run(test())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "identities"),
        ("identities: {a: {role: king}}", "king"),
        ("identities: {a: {role: submitter}}", "queues"),
        ("identities: {a: {role: viewer, queues: [x]}}", "queues"),
        ("identities: {a: {role: agent}}", "node"),
        ("identities: {a: {role: viewer, color: red}}", "color"),
        ("identities: [", "cannot read"),
        ("{identities: {}, agents: spiffe://example.org/node}", "up to and with a '/'"),
        ("{identities: {}, agents: [a/]}", "up to and with a '/'"),
    ],
)
def test_a_wrong_mapping_file_is_refused_with_a_sentence(
    text: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text(text)
    with pytest.raises(RolesFileError, match=told):
        RoleMap.read(path)


def test_an_identity_below_agents_is_the_agent_of_one_node(tmp_path: Path) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text(
        "identities: {spiffe://x.org/node/taken: {role: viewer}}\nagents: spiffe://x.org/node/\n"
    )
    roles = RoleMap.read(path)
    found = roles.find(["spiffe://x.org/node/gpu-7"])
    assert found is not None
    assert (found.role, found.speaks_for("gpu-7"), found.speaks_for("gpu-8")) == (G, True, False)
    taken = roles.find(["spiffe://x.org/node/taken"])
    assert taken is not None
    assert taken.role is V, "what is named goes before what begins so"
    for stranger in ("spiffe://x.org/node/", "spiffe://x.org/node/a/b", "spiffe://x.org/gpu-7"):
        assert roles.find([stranger]) is None, stranger
