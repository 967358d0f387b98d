"""``headrace up``, ``down`` and ``status``: the local cluster from outside."""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from headrace.api.counted import counted
from headrace.api.processes import Process
from headrace.api.visible_gpus import VARIABLE, visible_gpus
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.interrupts import deaf, interruptible
from headrace.cli.local_cluster import (
    RESTORING,
    SETTINGS,
    STORE,
    Record,
    Wish,
    last_lines,
    make_ray_token,
    missing_packages,
    ray_token_file,
    read_record,
    remove_ray_folder,
    survivors,
    write_record,
)
from headrace.cli.output import Format, document, note, say, table, typed
from headrace.cli.processes import wait_gone
from headrace.cli.tables import Column, age
from headrace.cli.teardown import tear_down

_POLL_SECONDS = 0.2
_START_SECONDS = 400.0
_DOWN_SECONDS = 150.0
_REGISTER_SECONDS = 60.0
_NEEDED = ("controlplane", "agent", "ray", "torch")
_STATE_COLOURS = {"ready": "32", "starting": "33", "restarting": "33", "dead": "31"}
_COLUMNS = (
    Column("PART"),
    Column("STATE", colours=_STATE_COLOURS),
    Column("PID", right=True),
    Column("AGE", right=True),
    Column("RESTARTS", right=True),
    Column("MEMORY", right=True),
    Column("LOG"),
)


def up(home: Path, wish: Wish, *, foreground: bool) -> None:
    """Starts the home's cluster and returns when it is ready.

    Raises:
        CommandError: It could not be started; nothing of it is left.
    """
    missing = missing_packages(_NEEDED)
    if missing:
        raise CommandError(
            ExitCode.FAILED,
            f"a local cluster needs {', '.join(missing)}, not installed here; install Headrace's "
            "server side with its agent: pip install 'headrace-server[agent]'",
        )
    with interruptible():
        _up(home, wish)
        if foreground:
            stay(home)


def _up(home: Path, wish: Wish) -> None:
    with _usable(home), alone(home):
        record = read_record(home)
        if record is not None and record.supervised:
            note(f"headrace: the cluster of {home} is running already")
            _summary(home, record)
            return
        if record is not None and survivors(record, home):
            raise CommandError(
                ExitCode.FAILED,
                f"an earlier cluster of {home} lost its supervisor and left processes behind; "
                "`headrace status` lists them, `headrace down` ends them",
            )
        if (home / RESTORING).exists() and not (home / STORE).exists():
            raise CommandError(
                ExitCode.REFUSED,
                f"a restore into {home} was cut off before the new store was in its place; run "
                "`headrace restore` again with the same file",
            )
        try:
            record = _start(home, wish)
            _wait_for_nodes(home, record, wish)
        except BaseException as trouble:
            ended = _end_quietly(home)
            if isinstance(trouble, KeyboardInterrupt) and ended:
                raise _interrupted(home, "what was started of the cluster") from None
            raise
    _summary(home, record)


def _interrupted(home: Path, what: str) -> CommandError:
    return CommandError(
        ExitCode.INTERRUPTED,
        f"interrupted; {what} has ended, and its jobs and checkpoints stay in {home}",
    )


def _start(home: Path, wish: Wish) -> Record:
    """Starts the supervisor and waits until it says that everything is ready.

    Raises:
        CommandError: It said that it failed, and why.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / "logs").mkdir(exist_ok=True)
    (home / "secrets").mkdir(exist_ok=True, mode=0o700)
    make_ray_token(home)
    cluster = uuid.uuid4().hex
    settings = {"id": cluster, "wish": asdict(wish)}
    (home / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    write_record(home, Record(cluster, "starting"))
    log = home / "logs" / "supervisor.log"
    with log.open("ab") as stream:
        begins = stream.tell()
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli.supervisor", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=home / "logs",
            start_new_session=True,
        )
    try:
        return _wait_until_ready(home, supervisor, log, begins)
    except BaseException as trouble:
        if isinstance(trouble, KeyboardInterrupt):
            note("ending what was started ...")
        # Until it has written who it is, nobody else could end it.
        with deaf(), suppress(subprocess.TimeoutExpired):
            supervisor.terminate()
            supervisor.wait(_DOWN_SECONDS)
        raise


def _wait_until_ready(
    home: Path, supervisor: "subprocess.Popen[bytes]", log: Path, begins: int
) -> Record:
    deadline = time.monotonic() + _START_SECONDS
    seen: set[str] = set()
    while time.monotonic() < deadline:
        ended = supervisor.poll() is not None
        record = read_record(home)
        if record is not None:
            for part in record.parts:
                if part.ready and part.name not in seen:
                    seen.add(part.name)
                    note(f"{part.name} is ready")
            if record.state == "ready":
                supervisor.returncode = 0  # it outlives this process, and that is meant
                return record
            if record.state == "failed":
                supervisor.wait()
                raise CommandError(ExitCode.FAILED, f"the cluster did not start: {record.message}")
        if ended and record is not None and record.state == "stopped":
            raise CommandError(
                ExitCode.FAILED,
                "the cluster was ended while it was starting, by `headrace down` or by a signal to "
                "its supervisor",
            )
        if ended:
            told = "\n".join(last_lines(log, start=begins)) or "(it wrote nothing)"
            raise CommandError(ExitCode.FAILED, f"the supervisor ended while starting:\n{told}")
        time.sleep(_POLL_SECONDS)
    raise CommandError(ExitCode.TIMED_OUT, f"the cluster was not ready after {_START_SECONDS:g} s")


def _wait_for_nodes(home: Path, record: Record, wish: Wish) -> None:
    """Ready means that a job could run: every node has introduced itself.

    Raises:
        CommandError: One did not.
    """
    from headrace.client.client import Client
    from headrace.client.context import Context

    deadline = time.monotonic() + _REGISTER_SECONDS
    with Client(Context(record.endpoints["grpc"], local=True), patience_seconds=30.0) as client:
        while True:
            online = {each.node.name for each in client.nodes() if each.contact == "Online"}
            late = sorted(set(record.nodes) - online)
            if not late:
                return
            if time.monotonic() > deadline:
                log = home / "logs" / f"agent-{late[0]}.log"
                told = "\n".join(f"  {line}" for line in last_lines(log))
                raise CommandError(
                    ExitCode.TIMED_OUT,
                    f"{', '.join(late)} did not register within {_REGISTER_SECONDS:g} s; "
                    f"the end of {log}:\n{told}",
                )
            time.sleep(_POLL_SECONDS)


def _summary(home: Path, record: Record) -> None:
    say(f"Headrace runs in {home}")
    for name, label in (
        ("grpc", "control plane"),
        ("dashboard", "Ray dashboard"),
        ("metrics", "metrics"),
    ):
        if name in record.endpoints:
            say(f"  {label + ':':<15} {record.endpoints[name]}")
    say(f"  {'Ray token:':<15} cat {shlex.quote(str(ray_token_file(home)))}")
    say(f"  {'logs:':<15} {home / 'logs'}")
    say(f"  {'nodes:':<15} {', '.join(record.nodes)}")
    say()
    for label, command in (("next:", "apply -f examples/"), ("then:", "top"), ("end it:", "down")):
        say(f"  {label:<15} {typed()} {command}")


def stay(home: Path) -> None:
    """Waits for Ctrl-C or SIGTERM, then ends the cluster.

    Raises:
        CommandError: That came, and the cluster has ended.
    """
    note("Ctrl-C ends the cluster")
    try:
        while (record := read_record(home)) is not None and record.supervised:
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        note("ending the cluster ...")
        if _end_quietly(home):
            raise _interrupted(home, "the cluster") from None
        raise
    else:
        _end_quietly(home)


def down(home: Path) -> None:
    """Ends the home's cluster and nothing else.

    Raises:
        CommandError: Something survived.
    """
    record = read_record(home)
    if record is None:
        note(f"headrace: no cluster was started in {home}")
        return
    was_there = record.supervised or bool(survivors(record, home))
    left = _end(home, record)
    if left:
        told = "\n".join(f"  {one.pid} {one.command[:100]}" for one in left)
        raise CommandError(ExitCode.FAILED, f"these processes could not be ended:\n{told}")
    (home / SETTINGS).unlink(missing_ok=True)
    say(f"the cluster of {home} is down" if was_there else f"no cluster was running in {home}")


def _end(home: Path, record: Record) -> list[Process]:
    """Has the supervisor end everything, or does it where there is none; returns what is left."""
    supervisor = record.supervisor
    if supervisor is not None and supervisor.alive:
        supervisor.signal(signal.SIGTERM)
        if wait_gone([supervisor], _DOWN_SECONDS):
            supervisor.signal(signal.SIGKILL)
            wait_gone([supervisor], 5.0)
    record = read_record(home) or record
    left = survivors(record, home)
    if left or record.parts:
        left = tear_down(record, home, reap=lambda: None)
    if not left:
        write_record(home, Record(record.id, "stopped", message=record.message))
        remove_ray_folder(record)
    return left


def _end_quietly(home: Path) -> bool:
    """Ends the cluster whatever happens meanwhile: a second Ctrl-C must not leave half of it.

    Returns whether nothing is left; tells what is.
    """
    with deaf():
        record = read_record(home)
        left = _end(home, record) if record is not None else []
        if left:
            note(f"headrace: still alive: {', '.join(str(one.pid) for one in left)}")
        return not left


def status(home: Path, output: Format) -> None:
    """Lists every process of the home's cluster.

    Raises:
        CommandError: There is none.
    """
    record = read_record(home)
    found = survivors(record, home) if record is not None else []
    if record is None or not (found or record.supervised):
        raise CommandError(
            ExitCode.NOT_FOUND, f"no cluster runs in {home}; `headrace up` starts one"
        )
    rows = _rows(home, record)
    listed = {int(row[2]) for row in rows if row[2].isdigit()}
    others = [one for one in found if one.pid not in listed]
    if output in (Format.JSON, Format.YAML):
        names = [column.title.lower() for column in _COLUMNS]
        document(
            {
                "home": str(home),
                "state": record.state if record.supervised else "unsupervised",
                "endpoints": dict(record.endpoints),
                "parts": [dict(zip(names, row, strict=True)) for row in rows],
                "others": [{"pid": one.pid, "command": one.command} for one in others],
            },
            output,
        )
        return
    if output is Format.NAME:
        for row in rows:
            say(row[0])
        return
    say(f"home: {home}")
    say()
    # A path that is cut is of no use, and the home alone may be as wide as the terminal.
    below = [[*row[:-1], os.path.relpath(row[-1], home)] for row in rows]
    table(_COLUMNS, below, wide=output is Format.WIDE)
    say()
    say(f"and {len(others)} processes that these have started (Ray's own, ranks)")
    if output is Format.WIDE:
        for one in others:
            say(f"  {one.pid:>8} {one.command[:120]}")
    for name, address in record.endpoints.items():
        say(f"{name + ':':<11} {address}")
    if not record.supervised:
        note("headrace: the supervisor is gone, so nothing is restarted; `headrace down` ends all")


def _rows(home: Path, record: Record) -> list[list[str]]:
    rows = []
    if record.supervisor is not None:
        state = record.state if record.supervised else "dead"
        rows.append(_row("supervisor", state, record.supervisor, 0, home / "logs/supervisor.log"))
    for part in record.parts:
        state = "ready" if part.ready else "starting"
        if not part.process.alive:
            restarted = record.supervised and record.state != "stopping"
            state = "restarting" if restarted else "dead"
        rows.append(_row(part.name, state, part.process, part.restarts, Path(part.log)))
    return rows


def _row(name: str, state: str, process: Process, restarts: int, log: Path) -> list[str]:
    alive = process.alive
    return [
        name,
        state,
        str(process.pid),
        age(process.age_seconds) if alive else "-",
        str(restarts),
        f"{process.resident_bytes // 2**20} MiB" if alive else "-",
        str(log),
    ]


@contextmanager
def _usable(home: Path) -> Iterator[None]:
    """Tells of a home that cannot be written which folder it is and what names another."""
    try:
        yield
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise CommandError(
            ExitCode.FAILED,
            f"the cluster's folder {home} cannot be used: {error.strerror or error}{at}; wanted a "
            "folder that can be written to, with room; $HEADRACE_HOME names another",
        ) from error


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Two ``up`` at once would start two clusters in one home; nor may its store change then.

    Raises:
        CommandError: Another one is at it.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                ExitCode.FAILED,
                f"another `headrace up` or `headrace restore` is at work in {home}",
            ) from None
        yield


def gpus() -> tuple[str, ...]:
    """UUIDs of the GPUs that this process may use; none where NVML finds none."""
    try:
        import pynvml  # type: ignore[import-untyped,unused-ignore]

        pynvml.nvmlInit()
    except Exception:  # no package, no driver, no GPU: all the same here
        return ()
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        found = tuple(pynvml.nvmlDeviceGetUUID(handle) for handle in handles)
    finally:
        pynvml.nvmlShutdown()
    left = visible_gpus(found, os.environ)
    if len(left) < len(found):
        note(f"headrace: {VARIABLE} leaves {len(left)} of {counted(len(found), 'GPU')}")
    return left
