"""Keeps the local cluster's parts running (``python -m headrace.cli.supervisor HOME``).

A process of its own, because ``headrace up`` returns. It starts the parts, restarts one that dies,
with growing pauses, records every pid, and on SIGTERM or after a failed start ends everything.
"""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from headrace.api.processes import Process, process
from headrace.cli.local_cluster import (
    SETTINGS,
    Layout,
    Part,
    Record,
    RunningPart,
    Wish,
    claim_ray_folder,
    last_lines,
    lay_out,
    write_record,
)
from headrace.cli.ports import Ports
from headrace.cli.teardown import tear_down
from headrace.client import context

_POLL_SECONDS = 0.2
_READY_SECONDS = 120.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_STABLE_SECONDS = 60.0
_LARGEST_LOG_BYTES = 32 * 2**20
_PR_SET_CHILD_SUBREAPER = 36


class StartFailedError(Exception):
    """A part did not become ready; the text holds its last lines."""


class StoppedError(Exception):
    """Somebody asked to stop meanwhile."""


@dataclass(slots=True)
class _Watched:
    """A part that was started: when to restart it, and how often that has happened."""

    part: Part
    running: RunningPart
    started_at: float
    log_start: int
    pause_seconds: float = _FIRST_PAUSE_SECONDS
    restart_at: float | None = None


def reap_all() -> None:
    """Collects ended children, also those that their own parents left behind."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


@dataclass(slots=True)
class Supervisor:
    """Starts, watches and ends the parts of one cluster.

    Attributes:
        layout: What to start.
        record: What was started; kept in the home, too.
        reap: Collects ended children; where this process has others, only its own.
        stopping: Whether somebody asked to stop.
    """

    layout: Layout
    record: Record
    reap: Callable[[], None] = reap_all
    stopping: bool = False
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler."""
        self.stopping = True

    def run(self) -> int:
        """Runs the cluster from start to end; returns the exit status."""
        failure = ""
        try:
            self._start()
            context.write(
                self.layout.home, context.Context(self.layout.endpoints["grpc"], local=True)
            )
            self._note(replace(self.record, state="ready"))
            self._watch()
        except StartFailedError as error:
            failure = str(error)
        except StoppedError:
            pass
        except OSError as error:
            failure = f"the cluster could not be started: {error}"
        self._note(replace(self.record, state="stopping"))
        left = tear_down(self.record, self.layout.home, reap=self.reap)
        if left:
            failure += f"\nstill alive: {', '.join(str(one.pid) for one in left)}"
        self._note(
            replace(
                self.record, state="failed" if failure else "stopped", message=failure, parts=()
            )
        )
        return 1 if failure else 0

    def _note(self, record: Record) -> None:
        self.record = record
        write_record(self.layout.home, record)

    def _start(self) -> None:
        """Starts every part as soon as those that it needs are ready."""
        waiting = list(self.layout.parts)
        while waiting or not all(each.running.ready for each in self._watched.values()):
            ready = {name for name, each in self._watched.items() if each.running.ready}
            for part in [part for part in waiting if ready.issuperset(part.needs)]:
                waiting.remove(part)
                self._launch(part, restarts=0)
            self._check_start()
            self._pause()

    def _check_start(self) -> None:
        for each in list(self._watched.values()):
            if each.running.ready:
                continue
            if self._says_ready(each):
                each.running = replace(each.running, ready=True)
                self._note(self.record.with_part(each.running))
            elif not each.running.process.alive:
                if each.running.restarts + 1 >= each.part.start_tries:
                    raise StartFailedError(_obituary(each, "ended while it was starting"))
                self._launch(each.part, restarts=each.running.restarts + 1)
            elif time.monotonic() > each.started_at + _READY_SECONDS:
                raise StartFailedError(_obituary(each, f"was not ready after {_READY_SECONDS:g} s"))

    def _says_ready(self, each: _Watched) -> bool:
        with Path(each.running.log).open("rb") as stream:
            stream.seek(each.log_start)
            return each.part.ready_text.encode() in stream.read()

    def _launch(self, part: Part, *, restarts: int) -> None:
        log = self.layout.home / "logs" / f"{part.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as stream:
            log_start = stream.tell()
            inherited = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
            started = subprocess.Popen(
                part.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env={**inherited, **self.layout.environment},
                start_new_session=True,
            )
        known = process(started.pid)
        started.returncode = 0  # it is reaped below, with everybody else
        running = RunningPart(
            part.name, known or Process(started.pid, 0), str(log), restarts=restarts
        )
        before = self._watched.get(part.name)
        self._watched[part.name] = _Watched(
            part,
            running,
            time.monotonic(),
            log_start,
            pause_seconds=before.pause_seconds if before else _FIRST_PAUSE_SECONDS,
        )
        self._note(self.record.with_part(running))

    def _watch(self) -> None:
        """Restarts what dies, until somebody asks to stop."""
        while True:
            self._pause()
            now = time.monotonic()
            for each in list(self._watched.values()):
                if each.restart_at is not None:
                    if now >= each.restart_at:
                        self._launch(each.part, restarts=each.running.restarts + 1)
                elif not each.running.process.alive:
                    if now - each.started_at > _STABLE_SECONDS:
                        each.pause_seconds = _FIRST_PAUSE_SECONDS
                    each.restart_at = now + each.pause_seconds
                    each.pause_seconds = min(2 * each.pause_seconds, _LONGEST_PAUSE_SECONDS)
                    each.running = replace(each.running, ready=False)
                    self._note(self.record.with_part(each.running))
                elif not each.running.ready and self._says_ready(each):
                    each.running = replace(each.running, ready=True)
                    self._note(self.record.with_part(each.running))
                _bound(Path(each.running.log))

    def _pause(self) -> None:
        """Waits a moment and buries the dead.

        Raises:
            StoppedError: Somebody asked to stop.
        """
        time.sleep(_POLL_SECONDS)
        self.reap()
        if self.stopping:
            raise StoppedError


def _obituary(each: _Watched, what: str) -> str:
    lines = last_lines(Path(each.running.log), start=each.log_start)
    told = "\n".join(f"  {line}" for line in lines) or "  (it wrote nothing)"
    return f"{each.part.name} {what}; the end of {each.running.log}:\n{told}"


def _bound(log: Path) -> None:
    """Empties a log that has grown too large; its writer appends, so it goes on at the start."""
    if log.exists() and log.stat().st_size > 2 * _LARGEST_LOG_BYTES:
        keep = last_lines(log, count=1000)
        log.with_suffix(".log.1").write_text("\n".join(keep) + "\n")
        os.truncate(log, 0)


def main(arguments: list[str]) -> int:
    """Runs the supervisor of one home; the wish is read from there."""
    home = Path(arguments[0])
    settings = json.loads((home / SETTINGS).read_text(encoding="utf-8"))
    cluster, wish = settings.pop("id"), settings.pop("wish")
    wish["gpus"] = tuple(wish["gpus"])
    # The ports stay claimed while there is a supervisor: a part that is started again binds again.
    with (home / "supervisor.lock").open("w") as lock, Ports() as ports:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What dies below becomes our child, so that it is reaped even where nobody else does it.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            layout = lay_out(home, Wish(**wish), cluster, ports)
        except OSError as error:  # whoever waits for us shows the end of this log
            sys.stderr.write(f"{error}\n")
            return 1
        record = Record(
            cluster,
            "starting",
            supervisor=process(os.getpid()),
            endpoints=layout.endpoints,
            ray_folder=str(layout.ray_folder),
            nodes=layout.nodes,
        )
        supervisor = Supervisor(layout, record)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, supervisor.ask_to_stop)
        write_record(home, record)
        claim_ray_folder(layout.ray_folder, home)
        return supervisor.run()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
