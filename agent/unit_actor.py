"""The supervisor of one launch unit: starts the rank, keeps its output, says how it ended.

It runs inside a Ray actor (``ray_actors`` wraps it), or in a job's own pod (``pod_init``), and
knows nothing of either. All that it has to say it writes into the control folder, so that nothing
is lost with it.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from agent import control_folder, output_log, processes
from headrace.api.processes import process
from headrace.api.variables import CONTROL_DIR_VARIABLE

SHIM = Path(__file__).with_name("child_shim.py")

NOT_FOR_CHILDREN = re.compile(
    r"RAY_|HEADRACE_|GRPC_|KUBERNETES_|PYTHONBREAKPOINT$|CUDA_VISIBLE_DEVICES$|OMP_NUM_THREADS$"
    r"|.*(TOKEN|SECRET|PASSWORD|PRIVATE_KEY|API_KEY)"
)
"""Variables of this process that a user's code must not see."""

SECRET_PART = re.compile(r"[A-Za-z0-9._-]+")

POD_SECRETS = Path("/run/headrace/secrets")
"""Where a job's own pod has the secrets that the job names."""

LINGER_SECONDS = 5.0
"""How long output is read after the rank exited, should something still hold the pipe."""

PATIENCE_SECONDS = 60.0
"""How long a full disk may keep this process from saying how the rank ended."""


class StartRefusedError(Exception):
    """The unit cannot be started; the message is for people and names no secret value."""


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """What a supervisor is told.

    Attributes:
        folder: The control folder.
        module: Module that the rank runs, as for ``python -m``.
        environment: Variables from the manifest and the agent.
        secrets: (variable, secret, key): variables whose values lie in files.
        secrets_folder: Where secrets lie, as ``name/key``.
        cpu_cores: Cores that the rank is pinned to; empty leaves it unpinned.
        run_as_uid: User that the rank runs as; -1 for the supervisor's own.
    """

    folder: str
    module: str
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str, str], ...] = ()
    secrets_folder: str = ""
    cpu_cores: tuple[int, ...] = ()
    run_as_uid: int = -1

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the pipe to the Ray driver."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "UnitSpec":
        """The spec that ``to_json`` described."""
        return cls(
            folder=value["folder"],
            module=value["module"],
            environment=tuple((name, text) for name, text in value["environment"]),
            secrets=tuple((var, name, key) for var, name, key in value["secrets"]),
            secrets_folder=value["secrets_folder"],
            cpu_cores=tuple(value["cpu_cores"]),
            run_as_uid=value["run_as_uid"],
        )


class UnitSupervisor:
    """Owns the process of one launch unit. One instance starts one process, once."""

    def __init__(self) -> None:
        self._attending: threading.Thread | None = None

    def wait(self) -> None:
        """Returns when the rank has exited and all about it is written."""
        if self._attending is not None:
            self._attending.join()

    def start(self, described: Mapping[str, Any]) -> str:
        """Starts the rank; returns once its process exists.

        Returns:
            Empty, or why nothing was started (someone else claimed the folder).
        """
        # The rank dies with the thread that forked it, so that must be one which lives as long
        # as this process.
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a rank must be started from the main thread of its supervisor")
        spec = UnitSpec.from_json(described)
        folder = Path(spec.folder)
        me, ray = process(os.getpid()), process(os.getppid())
        claimed = control_folder.claim(
            folder,
            {
                "by": "supervisor",
                "supervisor": control_folder.process_json(me),
                "raylet": control_folder.process_json(ray),
            },
        )
        if not claimed:
            return f"{folder} was claimed before; a unit is started at most once"
        oom_kills = _cgroup_oom_kills()
        try:
            child = _spawn(spec, child_environment(spec, os.environ))
        except StartRefusedError as error:
            _say_ended(folder, {"refused": str(error)})
            return ""
        started = process(child.pid)
        try:
            control_folder.write_atomically(
                folder / "process.json",
                json.dumps(control_folder.process_json(started)),
            )
        except OSError as error:
            # Nobody could watch it, and nothing that it does could be told.
            processes.kill_unit(folder, child.pid)
            _say_ended(folder, {"refused": f"{folder} cannot be written: {error}"})
            return ""
        self._attending = threading.Thread(
            target=_attend, args=(child, folder, oom_kills), name="attend", daemon=True
        )
        self._attending.start()
        return ""


def child_environment(spec: UnitSpec, inherited: Mapping[str, str]) -> dict[str, str]:
    """The rank's environment.

    Raises:
        StartRefusedError: A secret cannot be read.
    """
    environment = {k: v for k, v in inherited.items() if not NOT_FOR_CHILDREN.match(k)}
    environment.update(spec.environment)
    for variable, secret, key in spec.secrets:
        environment[variable] = _secret(spec.secrets_folder, secret, key)
    environment[CONTROL_DIR_VARIABLE] = spec.folder
    return environment


def _secret(folder: str, secret: str, key: str) -> str:
    if not folder:
        raise StartRefusedError(
            f"secret {secret}/{key} is wanted, but this node has no secrets; start its agent "
            f"with HEADRACE_SECRETS_DIR naming a folder that has it as {secret}/{key}"
        )
    if not all(SECRET_PART.fullmatch(part) and part.strip(".") for part in (secret, key)):
        raise StartRefusedError(f"secret {secret!r}, key {key!r} is not a possible name")
    file = Path(folder) / secret / key
    help_ = f"put it into {file} there"
    if Path(folder) == POD_SECRETS:
        help_ = "it has to be in the job's own namespace"
    try:
        return file.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        kind = error.strerror if isinstance(error, OSError) else "it is not text"
        raise StartRefusedError(
            f"secret {secret}/{key} cannot be read on this node ({kind}); {help_}"
        ) from None


def _spawn(spec: UnitSpec, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    cores = ",".join(map(str, spec.cpu_cores))
    shim = [sys.executable, "-I", "-S", str(SHIM), str(os.getpid()), cores]
    other_user: dict[str, Any] = {}
    if spec.run_as_uid >= 0:
        if os.geteuid() != 0:
            raise StartRefusedError(
                f"ranks shall run as user {spec.run_as_uid}, which only root can arrange, and "
                f"Ray runs as user {os.geteuid()} on this node; leave --run-as-uid out"
            )
        _give_to(Path(spec.folder), spec.run_as_uid)
        other_user = {"user": spec.run_as_uid, "group": spec.run_as_uid, "extra_groups": []}
    try:
        return subprocess.Popen(
            [*shim, sys.executable, "-m", spec.module],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=spec.folder,
            env=environment,
            start_new_session=True,
            **other_user,
        )
    except OSError as error:
        who = f" as user {spec.run_as_uid}" if other_user else ""
        raise StartRefusedError(
            f"{sys.executable} cannot be started{who} in {spec.folder}: {error.strerror}"
            + ("; that user needs access to both, or leave --run-as-uid out" if who else "")
        ) from None


def _give_to(folder: Path, uid: int) -> None:
    for path in (folder, *folder.iterdir()):
        os.chown(path, uid, uid)


def _attend(child: subprocess.Popen[bytes], folder: Path, oom_kills: int) -> None:
    """Pumps output until the rank exits, clears up behind it, and writes how it ended."""
    assert child.stdout is not None
    writer = output_log.OutputWriter(folder)
    pump = threading.Thread(target=_pump, args=(child.stdout, writer), name="pump", daemon=True)
    pump.start()
    code = child.wait()
    processes.kill_unit(folder, child.pid)
    pump.join(LINGER_SECONDS)
    ended: dict[str, Any] = {"exit_code": code}
    if code == -9 and (_cgroup_oom_kills() > oom_kills or _kernel_killed(child.pid)):
        ended["out_of_memory"] = True
    _say_ended(folder, ended)


def _pump(source: IO[bytes], writer: output_log.OutputWriter) -> None:
    while chunk := os.read(source.fileno(), 64 * 1024):
        writer.write(chunk)
    writer.close()


def _say_ended(folder: Path, ended: dict[str, Any]) -> None:
    """Writes ``ended.json``: the accelerators' release hangs on it.

    A full disk is waited for. After that this process ends itself, which the agent sees as well:
    how the rank ended is lost then, but not what it held.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            control_folder.write_atomically(folder / "ended.json", json.dumps(ended))
        except OSError as error:
            if time.monotonic() > deadline:
                sys.stderr.write(f"the end of {folder} could not be told: {error}\n")
                os._exit(1)
            time.sleep(0.5)
        else:
            return


def _cgroup_oom_kills() -> int:
    """Kills for lack of memory that this process's cgroup has counted; 0 where unreadable."""
    try:
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
    except OSError:
        return 0
    for base in (Path("/sys/fs/cgroup") / group.lstrip("/"), Path("/sys/fs/cgroup")):
        try:
            events = (base / "memory.events").read_text()
        except OSError:
            continue
        counts = dict(line.split() for line in events.splitlines())
        return int(counts.get("oom_kill", 0))
    return 0


def _kernel_killed(pid: int) -> bool:
    """Whether the kernel's log, where it may be read, says that it killed ``pid`` for memory."""
    return any(f"Killed process {pid} " in line for line in _kernel_lines())


def _kernel_lines() -> Iterable[str]:
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        while True:
            try:
                yield os.read(log, 8192).decode(errors="replace")
            except BrokenPipeError:
                continue  # a record was overwritten before we read it
            except OSError:
                return
    finally:
        os.close(log)
