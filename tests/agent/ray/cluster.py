"""A real local Ray, a control plane that only listens, and agents as processes of their own."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil

from headrace.api.generated import common_pb2, nodes_pb2, nodes_pb2_grpc
from headrace.cli.local_cluster import make_ray_token, ray_authentication

PATIENCE_SECONDS = 120.0
RAY_IP = "127.0.0.21"
HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
RUN, STOP, END = (
    nodes_pb2.Launch.INTENT_RUN,
    nodes_pb2.Launch.INTENT_STOP,
    nodes_pb2.Launch.INTENT_END,
)


T = TypeVar("T")


def until(what: str, look: Callable[[], T], patience: float = PATIENCE_SECONDS) -> T:
    """Waits until ``look`` finds something true; fails with ``what`` after a long while."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {patience:.0f} s still waiting until {what}")
        pause.wait(0.05)
    return found


class LocalRay:
    """One Ray head; ended by the ids of its processes.

    It belongs to the whole test session, also when a test had to start it again. So it is no
    child of the tests' process, and wears the badge that the session had when this was made.
    """

    def __init__(self) -> None:
        # Unix sockets below it must stay under 108 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="agt-", dir="/tmp"))
        self.port = _free_port(RAY_IP)
        make_ray_token(self.folder)
        self.authentication = ray_authentication(self.folder)
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
            **self.authentication,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(HERE)]),
            "RAY_TEST_CANARY": "not for children",
        }
        self._head: psutil.Process | None = None
        self._family: set[psutil.Process] = set()

    @property
    def address(self) -> str:
        return f"{RAY_IP}:{self.port}"

    def start(self) -> None:
        """Starts the head, and returns when it is there. Does nothing if it is."""
        if self._head is not None and not gone(self._head):
            return
        # Ray gives up on its own start after 30 s, which a busy machine may need.
        for last in (False, False, True):
            if self._came_up(last_try=last):
                return

    def _came_up(self, *, last_try: bool) -> bool:
        command = [
            *("setsid", str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *(f"--node-ip-address={RAY_IP}", f"--port={self.port}"),
            *("--include-dashboard=false", "--num-cpus=4", "--num-gpus=0"),
            *("--object-store-memory=80000000", "--disable-usage-stats"),
            *(f"--temp-dir={self.folder / 'r'}", "--min-worker-port=21000"),
            "--max-worker-port=21999",
        ]
        log = self.folder / "head.log"
        pid = subprocess.run(
            f"{shlex.join(command)} >{log} 2>&1 </dev/null & echo $!",
            shell=True,
            check=True,
            capture_output=True,
            env=self._environment,
            cwd=self.folder,
        ).stdout
        self._head = psutil.Process(int(pid))
        until("Ray has started, or ended", lambda: self._started(log) or gone(self._head), 240.0)
        if not gone(self._head):
            self._remember()
            return True
        assert not last_try, f"Ray's head ended: {log.read_text(errors='replace')[-2000:]}"
        return False

    def _started(self, log: Path) -> bool:
        return log.exists() and "runtime started" in log.read_text(errors="replace")

    def _remember(self) -> None:
        if self._head is not None:
            with contextlib.suppress(psutil.Error):
                self._family |= {self._head, *self._head.children(recursive=True)}

    def kill_head(self) -> None:
        """GCS and raylet die at once, as in a crash; then whatever of Ray is left is ended."""
        self._remember()
        for process in self._family:
            with contextlib.suppress(psutil.Error):
                if process.name() in ("gcs_server", "raylet"):
                    process.kill()
        self.end()

    def end(self) -> None:
        """Ends every process of it."""
        self._remember()
        for process in self._family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        until("Ray's processes are gone", lambda: all(map(gone, self._family)), 60.0)
        self._head = None
        self._family.clear()

    def remove(self) -> None:
        """Ends it and removes its files."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)


class ListeningControlPlane(nodes_pb2_grpc.NodeServiceServicer):
    """Hands out assignments that a test made, and keeps all that agents say.

    Every answer is given after the message is kept, as the real one does.
    """

    def __init__(self, port: int = 0) -> None:
        self._changed = threading.Condition()
        self._assignments: dict[str, nodes_pb2.WatchAssignmentsResponse] = {}
        self.registrations: list[nodes_pb2.RegisterNodeRequest] = []
        self.reports: list[nodes_pb2.ReportRequest] = []
        self.log_requests: list[nodes_pb2.ServeLogsResponse] = []
        self.log_answers: list[nodes_pb2.ServeLogsRequest] = []
        self.port = port or _free_port("127.0.0.1")
        self._server: grpc.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(32))
        nodes_pb2_grpc.add_NodeServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self, self._server
        )
        assert self._server.add_insecure_port(self.address) == self.port
        self._server.start()

    def stop(self) -> None:
        """Goes away, as a control plane that was killed."""
        server, self._server = self._server, None
        with self._changed:
            self._changed.notify_all()
        if server is not None:
            server.stop(grace=None).wait(30)

    # What the test says and asks.

    def assign(self, node: str, number: int, *launches: nodes_pb2.Launch, term: int = 1) -> None:
        with self._changed:
            self._assignments[node] = nodes_pb2.WatchAssignmentsResponse(
                term=term, number=number, launches=launches
            )
            self._changed.notify_all()

    def ask_logs(self, request: nodes_pb2.ServeLogsResponse) -> None:
        with self._changed:
            self.log_requests.append(request)
            self._changed.notify_all()

    def exits(self, uid: str) -> list[nodes_pb2.UnitExited]:
        return [e for r in list(self.reports) for e in r.exited if e.uid == uid]

    def starts(self, uid: str) -> list[nodes_pb2.UnitStarted]:
        return [s for r in list(self.reports) for s in r.started if s.uid == uid]

    def losses(self, uid: str) -> dict[int, float]:
        return {
            point.step: point.loss
            for r in list(self.reports)
            for p in r.progress
            if p.uid == uid
            for point in p.losses
        }

    def rendezvous(self, uid: str) -> str:
        found = [b.address for r in list(self.reports) for b in r.rendezvous if b.uid == uid]
        return found[-1] if found else ""

    def output(self, request_id: str) -> str:
        return b"".join(
            a.data for a in list(self.log_answers) if a.request_id == request_id
        ).decode()

    # What agents say and ask.

    def RegisterNode(  # noqa: N802
        self, request: nodes_pb2.RegisterNodeRequest, context: grpc.ServicerContext
    ) -> nodes_pb2.RegisterNodeResponse:
        self.registrations.append(request)
        return nodes_pb2.RegisterNodeResponse(term=1, heartbeat_seconds=1.0)

    def WatchAssignments(  # noqa: N802
        self, request: nodes_pb2.WatchAssignmentsRequest, context: grpc.ServicerContext
    ) -> Iterator[nodes_pb2.WatchAssignmentsResponse]:
        sent = None
        while context.is_active() and self._server is not None:
            with self._changed:
                current = self._assignments.get(request.node)
                if current is sent:
                    self._changed.wait(0.5)
                    continue
            if current is not None:
                yield current
            sent = current

    def Report(  # noqa: N802
        self, request: nodes_pb2.ReportRequest, context: grpc.ServicerContext
    ) -> nodes_pb2.ReportResponse:
        self.reports.append(request)
        return nodes_pb2.ReportResponse()

    def ServeLogs(  # noqa: N802
        self, messages: Iterable[nodes_pb2.ServeLogsRequest], context: grpc.ServicerContext
    ) -> Iterator[nodes_pb2.ServeLogsResponse]:
        def listen() -> None:
            # The stream breaks off when the agent goes; a test looks only at what came.
            with contextlib.suppress(Exception):
                for message in messages:
                    self.log_answers.append(message)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        told = 0
        while context.is_active() and self._server is not None:
            with self._changed:
                if told == len(self.log_requests):
                    self._changed.wait(0.5)
                    continue
                request = self.log_requests[told]
            told += 1
            yield request


class AgentProcess:
    """``python -m agent`` on one node."""

    def __init__(
        self, node: str, state: Path, ray: LocalRay, control_plane: ListeningControlPlane
    ) -> None:
        self.node = node
        self.state = state
        self._log = state / f"{node}.log"
        self._arguments = [
            *("--node", node, "--control-plane", control_plane.address),
            *("--ray-address", ray.address, "--ray-node-ip", RAY_IP),
            *("--state-dir", str(state), "--slots", "2", "--accelerators", "cpu"),
            *("--launch-module", "tiny_child", "--end-grace-seconds", "1"),
            *("--ray-patience-seconds", "240"),
        ]
        self._environment = {**os.environ, **ray.authentication}
        self._process: subprocess.Popen[str] | None = None

    def start(self, *more: str, **environment: str) -> dict[str, Any]:
        """Starts it; returns its ready line."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent", *self._arguments, *more],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=REPOSITORY,
                env={**self._environment, **environment},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()[-3000:]
        ready: dict[str, Any] = json.loads(line)
        return ready

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        code = process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        return code

    def end_units(self) -> None:
        """``python -m agent end-units``, after the agent itself is gone."""
        if self._process is not None:
            self.terminate()
        subprocess.run(
            [sys.executable, "-m", "agent", "end-units", *self._arguments],
            cwd=REPOSITORY,
            env=self._environment,
            check=True,
            timeout=PATIENCE_SECONDS,
            stderr=subprocess.DEVNULL,
        )

    def folder(self, uid: str, attempt: int = 1, unit: int = 0) -> Path:
        return self.state / self.node / "units" / uid / str(attempt) / str(unit)

    def rank(self, uid: str, attempt: int = 1, unit: int = 0) -> psutil.Process | None:
        return _process_in(self.folder(uid, attempt, unit) / "process.json")

    def ray_driver(self) -> psutil.Process | None:
        """The child that speaks to Ray, once it has joined."""
        if self._process is None or "ray_joined" not in self._log.read_text():
            return None
        (found,) = psutil.Process(self._process.pid).children()
        return found

    def supervisor(self, uid: str, attempt: int = 1, unit: int = 0) -> psutil.Process | None:
        return _process_in(self.folder(uid, attempt, unit) / "claim", "supervisor")

    def times_started(self, uid: str, attempt: int = 1, unit: int = 0) -> int:
        try:
            text = (self.folder(uid, attempt, unit) / "starts").read_text()
        except FileNotFoundError:
            return 0
        return len(text.splitlines())


def a_launch(
    uid: str,
    *wishes: str,
    attempt: int = 1,
    intent: nodes_pb2.Launch.Intent = RUN,
    slots: tuple[str, ...],
    unit: int = 0,
    units_total: int = 1,
    rendezvous: str = "",
    steps: int = 1_000_000,
    env: list[dict[str, Any]] | None = None,
    cpu_cores: tuple[int, ...] = (),
) -> nodes_pb2.Launch:
    """One attempt with one unit on the node."""
    spec = {
        "command": {"program": list(wishes)},
        "training": {"steps": steps},
        "env": env or [],
    }
    return nodes_pb2.Launch(
        uid=uid,
        attempt=attempt,
        intent=intent,
        job_name=uid,
        namespace="default",
        manifest_json=json.dumps({"spec": spec}),
        plan="dp1",
        units=[
            common_pb2.LaunchUnit(
                index=unit, accelerators=slots, first_rank=unit, cpu_cores=cpu_cores
            )
        ],
        ranks_total=units_total,
        units_total=units_total,
        rendezvous=rendezvous,
    )


def gone(process: psutil.Process | None) -> bool:
    """Whether a process has ended."""
    if process is None:
        return True
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _process_in(path: Path, part: str = "") -> psutil.Process | None:
    try:
        said = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    said = said[part] if part else said
    try:
        return psutil.Process(said["pid"])
    except psutil.NoSuchProcess:
        return None


def outer_address() -> str:
    """An address of this machine that is no loopback, or the loopback where it has no other."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family is socket.AF_INET and not address.address.startswith("127.")
    ]
    return [*found, RAY_IP][0]


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
