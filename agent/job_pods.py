"""The pods of this node that jobs have for themselves, and a unit's control folder in one.

Such a pod is found by the environment of its process 1, which the agent sees because it has the
node's process numbers before it and is the same user. The volume for the control folders is reached
through ``/proc/PID/root``, which needs no right beyond that, and stays open when the pod has died.
The agent reads and writes there only to keep a copy of each unit's folder in its own state, which
is like any other control folder.
"""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agent import processes
from agent.beneath import Beneath
from agent.control_folder import ControlFolder, Observation, Phase, process_json, write_atomically
from agent.desired import UnitKey
from agent.output_log import SEGMENT_BYTES, TAIL_SEGMENTS
from agent.pod_init import ABOUT, FOLDER, PROTOCOL, START, UNITS
from headrace.api.processes import (
    Process,
    environments,
    number_inside,
    of_namespace,
    pid_namespace,
    process,
)
from headrace.api.variables import JOB_POD_VARIABLE

SEARCH_SECONDS = 0.5
"""Least time between two looks through the processes of the node."""
POD = "pod"
"""In the agent's copy of a control folder: that its unit is in a pod."""

_GROWING = ("progress.jsonl", "changes.jsonl")
_WHOLE = ("rendezvous", "exit.json")
_LOG = re.compile(r"output(?:\.([0-9]{1,9}))?\.log")
_PIECE_BYTES = 1 << 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JobPod:
    """One pod that is up.

    Attributes:
        init: Its process 1, by the node's numbers.
        namespace: Its PID namespace.
        address: Where ranks elsewhere reach those in it.
        folder: The volume.
    """

    init: Process
    namespace: str
    address: str
    folder: Beneath

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.init.alive

    def process(self, inside: int) -> Process | None:
        """The process that has this number in the pod."""
        for pid in of_namespace(self.namespace):
            if number_inside(pid) == inside:
                return process(pid)
        return None


class JobPods:
    """Finds pods, each by its job and attempt."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], JobPod] = {}
        self._looked_at = float("-inf")
        self._told: set[str] = set()

    def find(self, uid: str, attempt: int) -> JobPod | None:
        """The pod of an attempt on this node, if it is up."""
        known = self._found.get((uid, attempt))
        if known is not None and known.alive:
            return known
        self._look()
        return self._found.get((uid, attempt))

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._looked_at + SEARCH_SECONDS:
            return
        self._looked_at = now
        for key, known in list(self._found.items()):
            if not known.alive:
                known.folder.close()
                del self._found[key]
        here, seen = pid_namespace(os.getpid()), dict[tuple[str, int], list[int]]()
        for key, pid in _said_to_be_pods():
            # Only the first process of another PID namespace is one of a pod; nobody's child here
            # can be that by setting a variable alone.
            if key not in self._found and number_inside(pid) == 1 and pid_namespace(pid) != here:
                seen.setdefault(key, []).append(pid)
        for key, pids in seen.items():
            if len(pids) > 1:
                self._tell(f"{len(pids)} pods say that they are of {key[0]}/{key[1]}; wanted one")
            elif (pod := self._opened(pids[0])) is not None:
                _log.info("job_pod_found", uid=key[0], attempt=key[1], address=pod.address)
                self._found[key] = pod

    def _opened(self, pid: int) -> JobPod | None:
        """The pod, once it has said of itself what is needed."""
        init, namespace = process(pid), pid_namespace(pid)
        try:
            root = Beneath.root_of(pid)
            try:
                folder = root.folder(FOLDER.parts[1:])
            finally:
                root.close()
        except OSError as error:
            self._tell(f"{FOLDER} of a job's pod cannot be opened: {error}")
            return None
        about = _object(folder.read(ABOUT)) or {}
        fits = about.get("protocol") == PROTOCOL
        if about and not fits:
            self._tell(
                f"a job's pod speaks protocol {about.get('protocol')}, this agent {PROTOCOL}; its "
                "image has another version of headrace-server"
            )
        if init is None or not namespace or not fits:
            folder.close()
            return None
        return JobPod(init, namespace, str(about.get("address", "")), folder)

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            _log.warning("job_pod_unusable", why=sentence)


def _said_to_be_pods() -> Iterator[tuple[tuple[str, int], int]]:
    named = re.compile(rb"(?:^|\0)" + JOB_POD_VARIABLE.encode() + rb"=([^/\0]+)/([0-9]{1,18})\0")
    for pid, environment in environments():
        found = named.search(environment)
        if found:
            yield (found[1].decode(errors="replace"), int(found[2])), pid


class PodControlFolder(ControlFolder):
    """The control folder of a unit in a pod: the pod's own, and a copy that the agent keeps."""

    in_pod = True

    def __init__(self, units: Path, key: UnitKey, pods: JobPods) -> None:
        super().__init__(units, key)
        self._pods = pods
        self._pod: JobPod | None = None
        self._there: Beneath | None = None

    @staticmethod
    def is_one(folder: ControlFolder) -> bool:
        """Whether a folder that was found is the copy of one in a pod."""
        return (folder.path / POD).exists()

    @property
    def inside(self) -> Path:
        """Its path in the pod."""
        return FOLDER.joinpath(UNITS, *self._parts)

    @property
    def _parts(self) -> tuple[str, str, str]:
        return self.key.uid, str(self.key.attempt), str(self.key.unit)

    @property
    def pod(self) -> JobPod | None:
        """The pod; None if it was never found. It may be dead by now."""
        if self._pod is None:
            self._pod = self._pods.find(self.key.uid, self.key.attempt)
        return self._pod

    @property
    def host_lost(self) -> bool:
        """Whether the pod is gone."""
        return self.pod is None or not self.pod.alive

    def prepare(self, launch: dict[str, Any]) -> None:
        """Creates the agent's folder with its ``launch.json``."""
        super().prepare(launch)
        (self.path / POD).touch()

    def hand_over(self, spec: dict[str, Any]) -> None:
        """Has the pod start the unit.

        Raises:
            OSError: The pod is gone, or its volume is full.
        """
        pod = self.pod
        if pod is None:
            raise FileNotFoundError(f"there is no pod of {self.key.uid}/{self.key.attempt}")
        if self._there is None:
            self._there = pod.folder.folder((UNITS, *self._parts), make=True)
        self._there.write("launch.json", (self.path / "launch.json").read_text())
        self._there.write(START, json.dumps(spec))
        pod.init.signal(signal.SIGUSR1)

    def _opened(self) -> Beneath | None:
        if self._there is None and self.pod is not None:
            with contextlib.suppress(OSError):
                self._there = self.pod.folder.folder((UNITS, *self._parts))
        return self._there

    def observe(self) -> Observation:
        """Where the unit stands now, by a copy that is as new as that."""
        self._pull()
        seen = super().observe()
        if seen.phase is Phase.VANISHED:
            self._pull()  # it may have written more between our look at it and its death
            seen = super().observe()
        return seen

    def fence(self) -> bool:
        """Makes sure that the unit never starts; False if its supervisor was faster."""
        there = self._opened()
        if there is None or self.host_lost or there.create("claim", json.dumps({"by": "agent"})):
            return super().fence()
        self._pull()
        return super().observe().phase is Phase.FENCED

    def request_stop(self) -> None:
        """Asks the ranks for a planned stop."""
        self._push("stop", "")
        super().request_stop()

    def ask_for_plan(self, plan: str) -> None:
        """Asks the ranks to go on under another plan."""
        self._push("plan", plan)
        super().ask_for_plan(plan)

    def kill_processes(self, session: int = 0) -> bool:
        """Kills whatever is left of the unit; False if something outlives that."""
        within = self.pod.namespace if self.pod is not None else "gone"
        return processes.kill_unit(self.inside, session, within=within)

    def close(self) -> None:
        """The unit is over."""
        if self._there is not None:
            self._there.close()
            self._there = None

    def _push(self, name: str, text: str) -> None:
        there = self._opened()
        if there is None:
            return
        try:
            there.write(name, text)
        except OSError:
            if not self.host_lost:
                raise

    def _pull(self) -> None:
        """Copies what is new. What comes last there is read first and written last."""
        there = self._opened()
        if there is None:
            return
        ended = there.read("ended.json")
        self._pull_output(there)
        for name in _GROWING:
            self._append(there, name)
        for name in _WHOLE:
            content = there.read(name)
            if content is not None:
                self._replace(name, content)
        self._pull_processes(there)
        if ended is not None:
            self._replace("ended.json", ended)

    def _pull_processes(self, there: Beneath) -> None:
        """Processes are named by the pod's own numbers there, and by the node's here."""
        pod = self.pod
        claim = None if (self.path / "claim").exists() else _object(there.read("claim"))
        if claim is not None and pod is not None:
            told = {"by": claim.get("by"), "raylet": process_json(pod.init)}
            told["supervisor"] = self._translated(pod, claim.get("supervisor"))
            self._replace("claim", json.dumps(told).encode())
        started = None
        if not (self.path / "process.json").exists():
            started = _object(there.read("process.json"))
        if started is not None and pod is not None:
            self._replace("process.json", json.dumps(self._translated(pod, started)).encode())

    @staticmethod
    def _translated(pod: JobPod, told: object) -> dict[str, int] | None:
        """None for one that is gone."""
        if not isinstance(told, dict) or not isinstance(told.get("pid"), int):
            return None
        return process_json(pod.process(told["pid"]))

    def _pull_output(self, there: Beneath) -> None:
        found = {name: at for name in there.names() if (at := _segment(name)) is not None}
        newest = max(found.values(), default=0)
        for name, at in found.items():
            if at == 0 or at > newest - TAIL_SEGMENTS:
                self._append(there, name, SEGMENT_BYTES)
        for old in self.path.glob("output.*.log"):
            if 0 < (_segment(old.name) or 0) <= newest - TAIL_SEGMENTS:
                old.unlink(missing_ok=True)

    def _append(self, there: Beneath, name: str, most_bytes: int | None = None) -> None:
        size = there.size(name)
        if size is None:
            return
        size = size if most_bytes is None else min(size, most_bytes)
        with (self.path / name).open("ab") as copy:
            while (have := copy.tell()) < size:
                more = there.read(name, have, min(_PIECE_BYTES, size - have))
                if not more:
                    return
                copy.write(more)

    def _replace(self, name: str, content: bytes) -> None:
        copy = self.path / name
        if not copy.exists() or copy.read_bytes() != content:
            write_atomically(copy, content.decode(errors="replace"))


def _segment(name: str) -> int | None:
    """The number of a segment of output; None of another file."""
    found = _LOG.fullmatch(name)
    return int(found[1] or 0) if found else None


def _object(content: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(content) if content is not None else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
