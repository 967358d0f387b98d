"""Certificates are renewed under a control plane that runs, and read anew by who connects."""

from pathlib import Path

import grpc

from controlplane.edges.grpc_server.roles import Role
from headrace.api.generated import admin_pb2
from tests.contract.grpc.certificates import Authority, Pair, write
from tests.contract.grpc.harness import over, refusal, run
from tests.contract.grpc.secured import World, a_world

CLUSTER = admin_pb2.GetClusterRequest()


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
