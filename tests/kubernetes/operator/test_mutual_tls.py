"""Operator and control plane as processes of their own, with mutual TLS between them."""

import urllib.error
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from headrace.api.generated import admin_pb2
from tests.contract.grpc.certificates import Authority, Pair, write
from tests.contract.grpc.harness import over
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.processes import (
    Node,
    Process,
    Stage,
    end,
    eventually,
    release_objects,
    run,
    start_control_plane,
)

pytestmark = pytest.mark.process

ROLES = """
identities:
  spiffe://headrace/operator: {role: operator}
  spiffe://headrace/admin: {role: admin}
agents: spiffe://headrace/node/
"""
CLUSTER = admin_pb2.GetClusterRequest()
OPERATOR, ADMIN, NODE = (f"spiffe://headrace/{who}" for who in ("operator", "admin", "node/node-a"))


class Files:
    """What a kubelet would mount, for both processes, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.server, self.operator = folder / "server", folder / "operator"
        for each in (self.server, self.operator):
            each.mkdir()
        (folder / "roles.yaml").write_text(ROLES)
        self.roles = folder / "roles.yaml"

    def serve(self, authority: Authority) -> None:
        """The control plane's, as this authority signs them."""
        pair = authority.sign("control-plane", server=True)
        write(self.server, key=pair.key, certificate=pair.certificate, ca=authority.pem)

    def operate(self, authority: Authority, pair: Pair) -> None:
        """The operator's, and whom it trusts."""
        write(self.operator, key=pair.key, certificate=pair.certificate, ca=authority.pem)

    @property
    def server_flags(self) -> tuple[str, ...]:
        """For the control plane."""
        folder = self.server
        return (
            *("--tls-key", str(folder / "key.pem")),
            *("--tls-certificate", str(folder / "certificate.pem")),
            *("--tls-client-ca", str(folder / "ca.pem"), "--roles", str(self.roles)),
        )

    @property
    def operator_flags(self) -> tuple[str, ...]:
        """For the operator."""
        folder = self.operator
        return (
            *("--tls-ca", str(folder / "ca.pem"), "--tls-key", str(folder / "key.pem")),
            *("--tls-certificate", str(folder / "certificate.pem")),
        )


@asynccontextmanager
async def a_secured_stage(
    kubernetes: ApiServer, namespace: str, folder: Path, files: Files, authority: Authority
) -> AsyncIterator[Stage]:
    """A control plane that asks for certificates; its services are those that an admin sees."""
    plane = await start_control_plane(folder, flags=files.server_flags)
    admin = authority.sign("admin", uri=ADMIN)
    try:
        async with authority.channel(plane.told["grpc"], admin) as channel:
            stage = Stage(kubernetes, namespace, folder, plane, over(None, channel))  # type: ignore[arg-type]
            await stage.api.be_patient()
            try:
                yield stage
            finally:
                for operator in stage.operators:
                    await end(operator)
                release_objects(stage)
    finally:
        await end(plane)


def says(operator: Process, words: str) -> bool:
    return words in operator.log.read_text(encoding="utf-8")


def readiness(operator: Process) -> str:
    """What `/readyz` says, whatever its status."""
    try:
        return operator.page("/readyz")
    except urllib.error.HTTPError as error:
        with error:
            return str(error.read().decode())


def test_an_object_becomes_a_job_over_mutual_tls_and_replaced_certificates_are_read_again(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    files, before = Files(tmp_path), Authority()
    files.serve(before)
    files.operate(before, before.sign("operator", uri=OPERATOR))

    async def test() -> None:
        async with a_secured_stage(api_server, namespace, tmp_path, files, before) as stage:
            address = stage.plane.told["grpc"]
            operator = await stage.operator(flags=files.operator_flags)
            node = before.sign("node-a", uri=NODE)
            async with before.channel(address, node) as channel:
                played = Stage(api_server, namespace, tmp_path, stage.plane, over(None, channel))  # type: ignore[arg-type]
                async with Node(played):
                    uid = stage.create("train")["metadata"]["uid"]
                    await stage.condition("train", "Succeeded", "True")
            job = await stage.job(uid)
            assert job is not None
            assert job.owner == "Kubernetes"
            assert readiness(operator) == "ok\n"

            after = Authority("the next authority")
            files.serve(after)
            files.operate(after, after.sign("operator", uri=OPERATOR))
            stage.create("late", suspend=True)
            await stage.condition("late", "Suspended", "True")
            assert says(operator, "the certificates changed; connecting anew")
            # Whoever still shows what the old authority signed is not let in any more.
            old = before.sign("operator", uri=OPERATOR)
            async with before.channel(address, old) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await over(None, channel).admin.GetCluster(CLUSTER, timeout=20)  # type: ignore[arg-type]
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    run(test())


def test_whoever_shows_the_wrong_certificate_is_told_so_and_a_new_one_counts_at_once(
    api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    files, authority, other = Files(tmp_path), Authority(), Authority("another authority")
    files.serve(authority)
    files.operate(other, authority.sign("operator", uri=OPERATOR))

    async def test() -> None:
        async with a_secured_stage(api_server, namespace, tmp_path, files, authority) as stage:
            operator = await stage.operator(flags=files.operator_flags)
            stage.create("train", suspend=True)

            def tells(*words: str) -> bool:
                return all(word in readiness(operator) for word in words)

            # It does not trust the control plane.
            handshake = "no TLS connection with it: look at --tls-ca"
            await eventually("it is told", lambda: tells("was not heard yet", handshake))
            assert says(operator, handshake)
            await stage.condition("train", "Accepted", "Unknown", "ControlPlaneUnreachable")

            # It does, and shows a certificate that may do nothing.
            files.operate(authority, authority.sign("stranger", uri="spiffe://headrace/stranger"))
            nobody = "the certificate of spiffe://headrace/stranger, stranger maps to no role"
            await eventually("it is told", lambda: tells(nobody))
            assert says(operator, "the control plane refuses the operator")
            assert await stage.jobs() == []

            # The right one, while it runs.
            files.operate(authority, authority.sign("operator", uri=OPERATOR))
            await stage.condition("train", "Suspended", "True")
            assert readiness(operator) == "ok\n"
            assert operator.process.returncode is None

    run(test())
