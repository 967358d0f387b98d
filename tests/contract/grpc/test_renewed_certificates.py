"""Certificates are renewed under a control plane that runs, and read anew by who connects."""

import datetime
from pathlib import Path

import grpc

from controlplane.edges.grpc_server.roles import Role
from headrace.api.generated import admin_pb2
from tests.contract.grpc.certificates import Authority, Pair, write
from tests.contract.grpc.harness import over, refusal, run
from tests.contract.grpc.secured import World, a_world

CLUSTER = admin_pb2.GetClusterRequest()
SECOND = datetime.timedelta(seconds=1)


async def answers(world: World, authority: Authority, client: Pair) -> bool:
    """Whether a new connection of that client is let in."""
    async with authority.channel(world.address, client) as channel:
        try:
            await over(world.plane, channel).admin.GetCluster(CLUSTER, timeout=20)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
    return True


def test_renewed_files_count_from_the_next_connection_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_world(tmp_path) as world:
            before, after = world.authority, Authority("the next authority")
            old, new = world.pairs[Role.ADMIN], after.sign("admin.example.org")
            async with before.channel(world.address, old) as open_before:
                api = over(world.plane, open_before)
                await api.admin.GetCluster(CLUSTER)
                assert not await answers(world, after, new)
                server = after.sign("control plane", server=True)
                write(
                    tmp_path,
                    key=server.key,
                    certificate=server.certificate,
                    client_ca=after.pem,
                )
                assert await answers(world, after, new)
                assert not await answers(world, before, old)
                await api.admin.GetCluster(CLUSTER)  # what is open stays open

    run(test())


def test_files_that_do_not_fit_together_change_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_world(tmp_path) as world:
            admin = world.pairs[Role.ADMIN]
            server = world.authority.sign("control plane", server=True)
            write(tmp_path, key=server.key)
            assert await answers(world, world.authority, admin), "the certificate is not there yet"
            (tmp_path / "certificate.pem").unlink()
            assert await answers(world, world.authority, admin), "the file is away for a moment"
            write(tmp_path, certificate=server.certificate)
            assert await answers(world, world.authority, admin)
            write(tmp_path, client_ca=Authority().pem)
            async with world.authority.channel(world.address, admin) as channel:
                error = await refusal(over(world.plane, channel).admin.GetCluster(CLUSTER))
            assert error.code() is grpc.StatusCode.UNAVAILABLE

    run(test())


def test_a_certificate_that_has_ended_lets_nobody_in_and_cuts_nobody_off(tmp_path: Path) -> None:
    async def test() -> None:
        async with a_world(tmp_path) as world:
            authority, admin = world.authority, world.pairs[Role.ADMIN]
            # Whole seconds are all that a certificate knows.
            end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
            short = authority.sign("admin.example.org", end=end)
            async with authority.channel(world.address, short) as open_before:
                api = over(world.plane, open_before)
                await api.admin.GetCluster(CLUSTER)
                while await answers(world, authority, short):
                    pass  # a handshake goes by the system's clock
                assert datetime.datetime.now(datetime.UTC) > end - SECOND
                await api.admin.GetCluster(CLUSTER)  # what is open stays open
                assert await answers(world, authority, authority.sign("admin.example.org"))
                # The control plane's own: clients do not trust it, until another one is there.
                past = authority.sign("control plane", server=True, end=end)
                write(tmp_path, key=past.key, certificate=past.certificate)
                assert not await answers(world, authority, admin)
                await api.admin.GetCluster(CLUSTER)
                server = authority.sign("control plane", server=True)
                write(tmp_path, key=server.key, certificate=server.certificate)
                assert await answers(world, authority, admin)

    run(test())
