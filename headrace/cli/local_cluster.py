"""The local cluster on paper: its parts, their commands, ports and folders, and its record.

``up`` makes a ``Layout`` from what was asked for; the supervisor starts what it says and keeps the
``Record`` in the home, from which ``status`` and ``down`` know every process that was started.
"""

import contextlib
import hashlib
import json
import os
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from headrace.api.processes import Process
from headrace.api.variables import CONTROL_DIR_VARIABLE
from headrace.cli.ports import Ports
from headrace.cli.processes import marked

T = TypeVar("T")

RECORD = "cluster.json"
STORE = "headrace.db"
RESTORING = f"{STORE}.restoring"
"""What `headrace restore` fills before it puts it in the store's place."""
SETTINGS = "cluster-settings.json"
CLUSTER_VARIABLE = "HEADRACE_CLUSTER_ID"
"""Carried by every process of the cluster, except the ranks, whose environment is their own."""

_LONGEST_RAY_FOLDER = 39
"""Ray puts sockets below it, whose paths may have 107 characters: 68 are its own, such as
``/session_2026-11-26_18-04-40_123456_1234567/sockets/dash_MetricsHead``.
"""
_RAY_PREFIX = "hr-ray-"
_OBJECT_STORE_BYTES = 200 * 10**6


@dataclass(frozen=True, slots=True)
class Wish:
    """What ``up`` was asked for.

    Attributes:
        nodes: Nodes to play.
        slots: CPU slots of each, where there are no GPUs.
        gpus: GPU UUIDs to share out; empty for CPU slots.
        dashboard: Whether Ray's dashboard is wanted.
    """

    nodes: int = 2
    slots: int = 2
    gpus: tuple[str, ...] = ()
    dashboard: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the cluster.

    Attributes:
        name: What people call it; also the name of its log.
        command: Its command line.
        ready_text: Text in its output that says that it is ready.
        needs: Parts that must be ready before it is started.
        start_tries: How often it may be started before its end counts as a failed start. Ray gives
            up by itself after 30 s, which a busy machine needs for its processes alone.
    """

    name: str
    command: tuple[str, ...]
    ready_text: str
    needs: tuple[str, ...] = ()
    start_tries: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole cluster on paper.

    Attributes:
        id: Made anew with every ``up``; marks the cluster's processes.
        home: Its folder.
        ray_folder: Ray's own files and sockets.
        endpoints: Addresses for people, by name.
        parts: What is started, in this order.
        nodes: Node name to the flags that name it to ``agent end-units``.
        environment: Variables that every part gets beside the present ones.
    """

    id: str
    home: Path
    ray_folder: Path
    endpoints: Mapping[str, str]
    parts: tuple[Part, ...]
    nodes: Mapping[str, tuple[str, ...]]
    environment: Mapping[str, str]

    @property
    def marks(self) -> dict[str, str]:
        """Variables that tell this cluster's processes from all others."""
        return marks(self.id, self.home)


def marks(cluster: str, home: Path) -> dict[str, str]:
    """Variables that tell a cluster's processes from all others."""
    return {CLUSTER_VARIABLE: cluster, CONTROL_DIR_VARIABLE: f"{home / 'nodes'}/"}


def ray_address(home: Path) -> str:
    """A loopback address of the home's own.

    Two Ray clusters on one address would take each other's ports, and Ray replaces 127.0.0.1 by
    the address of a network interface, which is no loopback.
    """
    digest = hashlib.sha256(os.fsencode(home)).digest()
    return f"127.{1 + digest[0] % 250}.{digest[1]}.{2 + digest[2] % 250}"


def lay_out(home: Path, wish: Wish, cluster: str, ports: Ports) -> Layout:
    """The cluster's parts for a wish; takes free ports, starts nothing."""
    ray_host = ray_address(home)
    ray_ports = ports.take(9, "0.0.0.0")  # noqa: S104 - Ray binds some of them everywhere
    # The same home has the same addresses again, if they are free: who watches it finds it again.
    own = random.Random(os.fsencode(home))
    grpc, metrics = (f"127.0.0.1:{port}" for port in ports.take(2, "127.0.0.1", own))
    ray = f"{ray_host}:{ray_ports[0]}"
    dashboard = f"http://127.0.0.1:{ray_ports[1]}" if wish.dashboard else ""
    ray_folder = _ray_folder(home)
    parts = [
        Part(
            "ray",
            _ray_command(wish, ray_host, ray_ports, ray_folder),
            "Ray runtime started",
            start_tries=3,
        ),
        Part(
            "controlplane", _control_plane_command(home, grpc, metrics, dashboard), '"ready": true'
        ),
    ]
    nodes: dict[str, tuple[str, ...]] = {}
    shares = _shares(sorted(os.sched_getaffinity(0)), wish.nodes)
    gpus = _shares(list(wish.gpus), wish.nodes) if wish.gpus else [[] for _ in range(wish.nodes)]
    for number in range(wish.nodes):
        node = f"node-{_letters(number)}"
        nodes[node] = (
            *("--node", node, "--ray-address", ray, "--ray-node-ip", ray_host),
            *("--state-dir", str(home / "nodes" / node)),
        )
        offered = ",".join(gpus[number]) or "cpu"
        command = (
            *(sys.executable, "-m", "agent", "run", *nodes[node]),
            *("--control-plane", grpc, "--accelerators", offered, "--slots", str(wish.slots)),
            *("--cpu-cores", ",".join(map(str, shares[number]))),
        )
        parts.append(Part(f"agent-{node}", command, '"ready": true', ("ray", "controlplane")))
    endpoints = {"grpc": grpc, "metrics": f"http://{metrics}/metrics", "ray": ray}
    if dashboard:
        endpoints["dashboard"] = dashboard
    return Layout(
        id=cluster,
        home=home,
        ray_folder=ray_folder,
        endpoints=endpoints,
        parts=tuple(parts),
        nodes=nodes,
        environment={
            "HEADRACE_HOME": str(home),
            "HEADRACE_SECRETS_DIR": str(home / "secrets"),
            **ray_authentication(home),
            "RAY_TMPDIR": str(ray_folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            CLUSTER_VARIABLE: cluster,
        },
    )


def ray_token_file(home: Path) -> Path:
    """Where the cluster's Ray token is: not below the secrets, which manifests can refer to."""
    return home / "ray-token"


def _ray_folder(home: Path) -> Path:
    """Where Ray keeps its own things: in the home if it can.

    Raises:
        OSError: There is no place for it.
    """
    # Ray opens its folder to everyone, so it lies in one that nobody could make before us.
    outer = f"{_RAY_PREFIX}{secrets.token_hex(4)}"
    places = [home, *(Path(each) / outer for each in (tempfile.gettempdir(), "/tmp"))]  # noqa: S108
    for place in places:
        folder = place / "ray"
        # Ray's processes take the name of their folder for ASCII, and end if it is not.
        if len(str(folder)) <= _LONGEST_RAY_FOLDER and str(folder).isascii():
            return folder
    raise OSError(
        f"wanted a folder for Ray's sockets whose name is ASCII and has at most "
        f"{_LONGEST_RAY_FOLDER} characters, got {', '.join(str(each) for each in places)}; set "
        "TMPDIR to a shorter one"
    )


def make_ray_token(home: Path) -> None:
    """A new token for a new cluster: Ray's ports are open on every address of the machine."""
    file = ray_token_file(home)
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))


def claim_ray_folder(folder: Path, home: Path) -> None:
    """Makes what Ray's folder lies in, for this user alone, if that is not the home.

    Raises:
        FileExistsError: Somebody else has made it.
    """
    if folder.parent != home:
        folder.parent.mkdir(mode=0o700)


def remove_ray_folder(record: "Record") -> None:
    """Removes what Ray left on the disk."""
    if record.ray_folder:
        folder = Path(record.ray_folder)
        shutil.rmtree(folder, ignore_errors=True)
        # Nothing but what was made for it, and only if nothing else is in there.
        if folder.parent.name.startswith(_RAY_PREFIX):
            with contextlib.suppress(OSError):
                folder.parent.rmdir()


def ray_authentication(home: Path) -> dict[str, str]:
    """Variables that make Ray ask for the home's token, and its clients show it.

    An empty ``RAY_AUTH_TOKEN`` counts as none; a person's own would be preferred to the file.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "",
        "RAY_AUTH_TOKEN_PATH": str(ray_token_file(home)),
    }


def _ray_command(wish: Wish, host: str, ports: Sequence[int], folder: Path) -> tuple[str, ...]:
    gcs, dashboard, listen, grpc, environment, metrics, node, objects, client = ports
    return (
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--node-ip-address={host}", f"--port={gcs}", f"--temp-dir={folder}"),
        *("--disable-usage-stats", "--num-gpus=0", f"--num-cpus={min(2, wish.nodes)}"),
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        *(f"--include-dashboard={str(wish.dashboard).lower()}", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={listen}"),
        *(f"--dashboard-agent-grpc-port={grpc}", f"--runtime-env-agent-port={environment}"),
        *(f"--metrics-export-port={metrics}", f"--node-manager-port={node}"),
        *(f"--object-manager-port={objects}", f"--ray-client-server-port={client}"),
        *("--min-worker-port=0", "--max-worker-port=0"),
    )


def _control_plane_command(home: Path, grpc: str, metrics: str, dashboard: str) -> tuple[str, ...]:
    command = (
        *(sys.executable, "-m", "controlplane", "serve", "--listen", grpc),
        *("--metrics-listen", metrics, "--database-url", database_url(home)),
        # The same name every time: one that is started again after a crash takes over at once.
        *("--holder", "local"),
    )
    return (*command, "--dashboard-url", dashboard) if dashboard else command


def database_url(home: Path, name: str = STORE) -> str:
    """The local cluster's store, or another one in the home."""
    return f"sqlite:///{home / name}"


def store_files(home: Path, name: str = STORE) -> list[Path]:
    """What SQLite keeps such a store in: the database, its write-ahead log and that one's index."""
    return [home / f"{name}{suffix}" for suffix in ("", "-wal", "-shm")]


def _shares(things: list[T], count: int) -> list[list[T]]:
    """``things`` dealt to ``count`` nodes in runs; everybody gets all if there are too few."""
    if len(things) < count:
        return [list(things) for _ in range(count)]
    size, more = divmod(len(things), count)
    shares, at = [], 0
    for number in range(count):
        step = size + (number < more)
        shares.append(things[at : at + step])
        at += step
    return shares


def _letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text


@dataclass(frozen=True, slots=True)
class RunningPart:
    """A part as it was started last."""

    name: str
    process: Process
    log: str
    restarts: int = 0
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about the cluster that was started last.

    Attributes:
        id: Its id.
        state: starting, ready, stopping or failed.
        message: Why it failed.
        supervisor: The process that looks after the parts.
        parts: Parts that were started.
        endpoints: Addresses for people.
        ray_folder: Ray's own files.
        nodes: Node name to its flags.
    """

    id: str
    state: str
    supervisor: Process | None = None
    message: str = ""
    parts: tuple[RunningPart, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)
    ray_folder: str = ""
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def with_part(self, part: RunningPart) -> "Record":
        """The record with this part in the place of what was known of it, or as the last."""
        parts = {known.name: known for known in self.parts} | {part.name: part}
        return replace(self, parts=tuple(parts.values()))

    @property
    def supervised(self) -> bool:
        """Whether somebody looks after the parts."""
        return self.supervisor is not None and self.supervisor.alive


def read_record(home: Path) -> Record | None:
    """The home's record, if there is one."""
    try:
        found = json.loads((home / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OSError(f"{home / RECORD} is damaged: {error}") from error
    supervisor = found.pop("supervisor")
    parts = found.pop("parts")
    nodes = {name: tuple(flags) for name, flags in found.pop("nodes").items()}
    return Record(
        **found,
        supervisor=Process(**supervisor) if supervisor else None,
        parts=tuple(
            RunningPart(**{**part, "process": Process(**part["process"])}) for part in parts
        ),
        nodes=nodes,
    )


def write_record(home: Path, record: Record) -> None:
    """Replaces the home's record in one step."""
    home.mkdir(parents=True, exist_ok=True)
    scratch = home / f"{RECORD}.{os.getpid()}"
    scratch.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    scratch.replace(home / RECORD)


def survivors(record: Record, home: Path) -> list[Process]:
    """Every live process of the cluster, recorded or found by its mark."""
    found = set(marked(marks(record.id, home)))
    found.update(part.process for part in record.parts if part.process.alive)
    return sorted(found)


def last_lines(log: Path, count: int = 15, start: int = 0) -> list[str]:
    """The end of a part's output, from a byte on."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(start, size - 64 * 1024))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]


def missing_packages(names: Iterable[str]) -> list[str]:
    """Packages that are not installed here; looked up without loading them."""
    from importlib.util import find_spec

    return [name for name in names if find_spec(name) is None]
