"""A Kubernetes of one's own on loopback, without containers: real programs, nothing installed.

Tier 1 is etcd, kube-apiserver and kube-controller-manager. Tier 2 adds kube-scheduler and kwok,
whose nodes and pods only seem to run. No kubelet and no container is ever started.
"""

import contextlib
import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.certificates import Authority, service_account_keys
from tests.kubernetes.programs import STAGES, program
from tests.kubernetes.waiting import until

NODE_LABEL = ("type", "kwok")
"""The nodes that kwok makes look alive."""

_TRIES = 3
# Below what the kernel gives to outgoing connections, so that none of those takes a port first.
_PORTS = range(20_000, 32_768)
_LAST_LINES = 15


class NotStartedError(Exception):
    """A program ended before it answered; says what it wrote last."""


class ControlPlane:
    """One cluster's processes, in one folder; ``start`` or ``local_cluster`` makes it run."""

    _hosts: tuple[str, ...] = ("localhost", "kubernetes.default.svc", "127.0.0.1")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority(folder / "pki")
        self._private, self._public = service_account_keys(folder / "pki")
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._server = ""

    @property
    def api_server(self) -> ApiServer:
        """How to reach it."""
        return ApiServer(self._folder / "admin.kubeconfig", self._folder, self.authority)

    @property
    def authority(self) -> Path:
        """The folder of the authority that it trusts."""
        return self._authority.folder

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each program that was started, by name."""
        return {name: process.pid for name, process in self._running.items()}

    def start(self) -> None:
        """Starts tier 1 and waits until pods could be made.

        Raises:
            NotStartedError: If a program ended instead, several times in a row.
        """
        for left in reversed(range(_TRIES)):
            try:
                self._start_api_server()
                break
            except NotStartedError:
                # Another process may have taken a port between our look and the start.
                self.stop()
                shutil.rmtree(self._folder / "etcd", ignore_errors=True)
                if not left:
                    raise
        self._start_controllers()

    def start_fake_nodes(self) -> None:
        """Starts tier 2, unless it runs already."""
        if "kwok" in self._running:
            return
        self._start_scheduler()
        self._run(
            "kwok",
            f"--kubeconfig={self._kubeconfig('kwok', 'system:masters')}",
            f"--config={program(STAGES)}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-label-selector={'='.join(NODE_LABEL)}",
            "--node-lease-duration-seconds=40",
            "--cidr=10.244.0.0/16",
            "--node-port=0",
        )

    def check(self) -> None:
        """Raises NotStartedError if a program has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                log = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
                last = "\n".join(log[-_LAST_LINES:])
                raise NotStartedError(f"{name} ended with {process.returncode}:\n{last}")

    def stop(self) -> None:
        """Ends every program at once. Nothing of theirs is wanted any more, so none is asked."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def _start_scheduler(self) -> None:
        self._run(
            "kube-scheduler",
            *_as_itself(self._kubeconfig("system:kube-scheduler")),
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )

    def _start_api_server(self) -> None:
        etcd, secure = free_ports(2)
        self._start_api_server_on(etcd, secure)

    def _start_api_server_on(self, etcd: int, secure: int) -> None:
        self._server = f"https://127.0.0.1:{secure}"
        self._authority.kubeconfig(
            self._folder / "admin.kubeconfig", self._server, "admin", ("system:masters",)
        )
        self._run(
            "etcd",
            "--name=test",
            f"--data-dir={self._folder / 'etcd'}",
            # These tests kill processes, not the machine.
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            "--listen-peer-urls=http://127.0.0.1:0",
        )
        certificate, key = self._authority.server("kube-apiserver", self._hosts)
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            *self._addresses(),
            f"--secure-port={secure}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self._authority.certificate_file}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._public}",
            f"--service-account-signing-key-file={self._private}",
        )
        until("the API server is ready", self._answers)

    def _addresses(self) -> list[str]:
        """Flags of the API server: where it listens, and where it says that it is."""
        return [
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            # An address of loopback may not be an endpoint, and it would try for ever.
            "--endpoint-reconciler-type=none",
        ]

    def _start_controllers(self) -> None:
        kubeconfig = self._kubeconfig("system:kube-controller-manager")
        self._run(
            "kube-controller-manager",
            *_as_itself(kubeconfig),
            "--leader-elect=false",
            "--secure-port=0",
            # At its default of 20 requests a second, its own accounts alone take 6 s.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._private}",
            f"--root-ca-file={self._authority.certificate_file}",
        )
        api_server = self.api_server

        def has_account() -> bool:
            self.check()
            return api_server.has_default_account("default")

        # Without it no pod can be made.
        until("the namespace default has its service account", has_account)

    def _answers(self) -> bool:
        self.check()
        trusted = ssl.create_default_context(cafile=str(self._authority.certificate_file))
        # Proxies that the environment names are not for loopback.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
        )
        try:
            with opener.open(f"{self._server}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _kubeconfig(self, user: str, *groups: str) -> Path:
        file = self._folder / f"{user.rpartition(':')[2]}.kubeconfig"
        return self._authority.kubeconfig(file, self._server, user, groups)

    def _run(self, name: str, *options: str) -> None:
        self._run_command(name, [str(program(name)), *options])

    def _run_command(
        self,
        name: str,
        command: list[str],
        *,
        folder: Path | None = None,
        inherited: tuple[int, ...] = (),
    ) -> None:
        # It ends with its starter, also when that one is killed.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with (self._folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*guard, *command],
                cwd=folder or self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=inherited,
                # An interrupt from the keyboard is for the tests; they end what they started.
                start_new_session=True,
            )


def _as_itself(kubeconfig: Path) -> list[str]:
    """Components check their callers with the same identity that they call with."""
    kinds = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [f"--{kind}={kubeconfig}" for kind in kinds]


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at now."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


@contextlib.contextmanager
def local_cluster(*, fake_nodes: bool = False) -> Iterator[ApiServer]:
    """A cluster for the time of a ``with`` block: tier 1, and tier 2 with ``fake_nodes``.

    Raises:
        FileNotFoundError: If a program is missing; says how to get it.
        NotStartedError: If a program ended.
    """
    with (
        tempfile.TemporaryDirectory(prefix="headrace-kube-", ignore_cleanup_errors=True) as folder,
        contextlib.ExitStack() as stack,
    ):
        control_plane = ControlPlane(Path(folder))
        stack.callback(control_plane.stop)
        control_plane.start()
        if fake_nodes:
            control_plane.start_fake_nodes()
        yield control_plane.api_server
