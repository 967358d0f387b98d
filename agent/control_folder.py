"""The control folder of one launch unit: how agent, supervisor and rank speak with each other.

Everything worth knowing of a unit is in its folder, so whoever comes later (an agent that was
restarted, say) reads the same truth. Who writes what:

======================  ==========  =============================================================
``launch.json``         agent       what to run; written before the start
``claim``               see below   who may decide whether the unit starts; created once
``process.json``        supervisor  the rank's process
``output.log``          supervisor  what the rank prints (and further segments, see ``output_log``)
``ended.json``          supervisor  exit code, after the last output was written
``stop``                agent       asks for a planned stop
``plan``                agent       asks to go on under this plan; absent until that is another one
``rendezvous``          rank        unit 0: where it listens
``progress.jsonl``      rank        one line a step
``changes.jsonl``       rank        one line a plan that was asked for: what became of it; and one a
                                    checkpoint that could not be made; and what steps under a
                                    plan take, less and less often
``exit.json``           rank        how it ended, in its own words
``end``                 agent       it was told to exit at once
``verdict.json``        agent       how it ended, as the control plane was or will be told
``reported``            agent       how far progress was acknowledged
``changes-told``        agent       how far ``changes.jsonl`` was
======================  ==========  =============================================================

A supervisor claims the folder before it starts the rank; an agent claims it before it says that
the unit is lost. Only one can, so a unit that was called lost cannot start late.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar

from agent import processes
from agent.desired import UnitKey
from headrace.api.processes import Process
from headrace.api.profile_rows import INTEGER_MAX, PlanRow, row_of, unsound_in

PROGRESS_READ_BYTES = 1 << 20
ATTEMPTS_KEPT = 3
"""Control folders kept for each job, of attempts that are over."""
JOBS_KEPT = 100
"""Jobs with folders of their own, beside those that have something running."""


class Phase(Enum):
    """Where a unit stands, as its folder and the process table tell."""

    UNCLAIMED = auto()
    """Nobody started it yet."""
    STARTING = auto()
    """Its supervisor is alive and about to start the rank."""
    RUNNING = auto()
    """Its supervisor is alive and has started the rank."""
    ENDED = auto()
    """The rank exited, and its output is complete."""
    VANISHED = auto()
    """Its supervisor died before it could say how the rank ended."""
    FENCED = auto()
    """An agent has decided that it shall not start."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a folder tells.

    Attributes:
        phase: Where the unit stands.
        supervisor: The actor's process.
        raylet: The process of Ray that started the actor.
        rank: The rank's process.
        ended: What the supervisor said at the end.
    """

    phase: Phase
    supervisor: Process | None = None
    raylet: Process | None = None
    rank: Process | None = None
    ended: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StepLine:
    """One line of ``progress.jsonl``."""

    step: int
    loss: float | None
    step_seconds: float
    checkpoint_step: int


@dataclass(frozen=True, slots=True)
class ChangeLine:
    """One line of ``changes.jsonl``: what became of a plan.

    Attributes:
        before: Plan that the ranks left; empty if they keep it.
        after: Plan that was asked for.
        step: Last step under the plan that was left.
        stood_still_seconds: For how long they did not train.
        phases: Where that time went, as (name, seconds) in order.
        refused: Why they keep the plan that they have; empty if they went over.
    """

    before: str
    after: str
    step: int = 0
    stood_still_seconds: float = 0.0
    phases: tuple[tuple[str, float], ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class ObservedLine:
    """One line of ``changes.jsonl``: what steps under a plan take.

    Attributes:
        step: The last step that was looked at.
        row: What was measured; without the model's name and the placement.
    """

    step: int
    row: PlanRow


@dataclass(frozen=True, slots=True)
class MissedLine:
    """One line of ``changes.jsonl``: a checkpoint that could not be made.

    Attributes:
        step: The step that it would have been of.
        code: Code of the reason.
        message: Why not.
    """

    step: int
    code: str
    message: str


ToldLine = ChangeLine | MissedLine | ObservedLine
"""One line of ``changes.jsonl``."""

T = TypeVar("T")


class ControlFolder:
    """One unit's control folder.

    Attributes:
        in_pod: Whether its unit runs in a pod of its job's own (``job_pods``).
    """

    in_pod = False

    def __init__(self, units: Path, key: UnitKey) -> None:
        self.key = key
        self.path = units / key.uid / str(key.attempt) / str(key.unit)

    def prepare(self, launch: dict[str, Any]) -> None:
        """Creates the folder with its ``launch.json``."""
        self.path.mkdir(parents=True, exist_ok=True)
        # Its manifest carries variables, which are nobody else's.
        write_atomically(self.path / "launch.json", json.dumps(launch, indent=1), mode=0o600)

    def observe(self) -> Observation:
        """Where the unit stands now."""
        claim = read_json(self.path / "claim")
        if claim is None:
            return Observation(Phase.UNCLAIMED)
        if claim.get("by") != "supervisor":
            return Observation(Phase.FENCED)
        supervisor = _process(claim.get("supervisor"))
        raylet = _process(claim.get("raylet"))
        # The order matters: a supervisor that is dead now has written all that it ever will.
        alive = supervisor is not None and supervisor.alive
        ended = read_json(self.path / "ended.json")
        started = read_json(self.path / "process.json")
        rank = _process(started)
        if ended is not None:
            phase = Phase.ENDED
        elif not alive:
            phase = Phase.VANISHED
        else:
            phase = Phase.STARTING if started is None else Phase.RUNNING
        return Observation(phase, supervisor, raylet, rank, ended)

    def fence(self) -> bool:
        """Makes sure that the unit never starts; False if its supervisor was faster."""
        self.path.mkdir(parents=True, exist_ok=True)
        return claim(self.path, {"by": "agent"})

    def kill_processes(self, session: int = 0) -> bool:
        """Kills whatever is left of the unit; False if something outlives that. Blocks."""
        return processes.kill_unit(self.path, session)

    def close(self) -> None:
        """The unit is over; what it told stays."""

    def request_stop(self) -> None:
        """Asks the ranks for a planned stop."""
        (self.path / "stop").touch()

    @property
    def stop_requested(self) -> bool:
        """Whether a planned stop was asked for."""
        return (self.path / "stop").exists()

    def ask_for_plan(self, plan: str) -> None:
        """Asks the ranks to go on under another plan."""
        write_atomically(self.path / "plan", plan)

    def plan(self) -> str:
        """The plan that was asked for last, or else the one that the unit was started with."""
        try:
            return (self.path / "plan").read_text().strip()
        except OSError:
            return str((read_json(self.path / "launch.json") or {}).get("plan", ""))

    def request_end(self) -> None:
        """Remembers that it was told to exit at once."""
        (self.path / "end").touch()

    @property
    def end_requested(self) -> bool:
        """Whether it was told to exit at once."""
        return (self.path / "end").exists()

    def rendezvous(self) -> str:
        """Where unit 0 listens; empty until it has bound."""
        try:
            return (self.path / "rendezvous").read_text().strip()
        except OSError:
            return ""

    def exit_statement(self) -> dict[str, Any] | None:
        """The rank's own words about its end."""
        return read_json(self.path / "exit.json")

    def decide(self, verdict: dict[str, Any]) -> None:
        """Writes down how it ended, so that the answer stays the same."""
        write_atomically(self.path / "verdict.json", json.dumps(verdict))

    def verdict(self) -> dict[str, Any] | None:
        """How it ended, if that was decided."""
        return read_json(self.path / "verdict.json")

    def progress_since(self, offset: int) -> tuple[list[StepLine], int]:
        """Complete progress lines from ``offset`` on, and the offset after them."""
        return self._lines_since("progress.jsonl", offset, _step_line)

    def changes_since(self, offset: int) -> tuple[list[ToldLine], int]:
        """The same of ``changes.jsonl``."""
        return self._lines_since("changes.jsonl", offset, _change_line)

    def _lines_since(
        self, name: str, offset: int, read: Callable[[bytes], T | None]
    ) -> tuple[list[T], int]:
        try:
            with (self.path / name).open("rb") as file:
                file.seek(offset)
                content = file.read(PROGRESS_READ_BYTES)
        except OSError:
            return [], offset
        end = content.rfind(b"\n") + 1
        found = map(read, content[:end].splitlines())
        return [line for line in found if line is not None], offset + end

    def reported_offset(self) -> int:
        """How far progress was acknowledged before; 0 where nobody knows."""
        return self._number("reported")

    def remember_reported(self, offset: int) -> None:
        """Remembers how far progress was acknowledged. Not synced: twice is harmless."""
        write_atomically(self.path / "reported", str(offset))

    def changes_told(self) -> int:
        """How far changes of plan were acknowledged before; 0 where nobody knows."""
        return self._number("changes-told")

    def remember_changes_told(self, offset: int) -> None:
        """Remembers how far changes of plan were acknowledged. Not synced: twice is harmless."""
        write_atomically(self.path / "changes-told", str(offset))

    def _number(self, name: str) -> int:
        try:
            return int((self.path / name).read_text())
        except (OSError, ValueError):
            return 0


def clear_old_folders(units: Path, busy: set[str]) -> None:
    """Removes control folders of old attempts and jobs, so that the disk they take is bounded.

    Args:
        units: The folder of all units.
        busy: Jobs of which something runs, or has not been told: only their old attempts go.
    """
    jobs = sorted(units.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    idle = [path for path in jobs if path.name not in busy]
    for path in idle[JOBS_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
    for path in jobs:
        attempts = sorted(
            (p for p in path.glob("*") if p.name.isdigit()), key=lambda p: int(p.name)
        )
        for old in attempts[:-ATTEMPTS_KEPT]:
            if not any(not (unit / "verdict.json").exists() for unit in old.iterdir()):
                shutil.rmtree(old, ignore_errors=True)


def claim(folder: Path, content: dict[str, Any]) -> bool:
    """Creates ``claim`` whole or not at all; False if there is one already."""
    handle, name = tempfile.mkstemp(prefix="claim.", dir=folder)
    draft = Path(name)
    try:
        os.fchmod(handle, 0o644)  # agent and Ray may be different users
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(content))
        os.link(draft, folder / "claim")
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """A reader sees the old file or the new one, never a part.

    Args:
        path: The file.
        text: What shall be in it.
        mode: Who may read and write it, as far as the umask allows.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is no such file or it holds no object."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def process_json(one: Process | None) -> dict[str, int] | None:
    """A process as the folder's files name it."""
    return None if one is None else {"pid": one.pid, "start_ticks": one.start_ticks}


def _process(value: object) -> Process | None:
    if not isinstance(value, dict):
        return None
    try:
        return Process(int(value["pid"]), int(value["start_ticks"]))
    except (KeyError, TypeError, ValueError):
        return None


def _step_line(raw: bytes) -> StepLine | None:
    """A line that a rank wrote; None for one that says nothing usable."""
    try:
        value = json.loads(raw)
        loss = value.get("loss")
        return StepLine(
            step=int(value["step"]),
            loss=float(loss) if loss is not None and math.isfinite(float(loss)) else None,
            step_seconds=float(value.get("step_seconds") or 0.0),
            checkpoint_step=int(value.get("checkpoint_step") or 0),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _change_line(raw: bytes) -> ToldLine | None:
    """A line that a rank wrote; None for one that says nothing usable."""
    try:
        value = json.loads(raw)
        if "observed" in value:
            return _observed_line(value)
        if "missed" in value:
            step = max(0, int(value["missed"]))
            return MissedLine(step, str(value["reason"]), str(value["message"]))
        after, refused = str(value["to"]), str(value.get("refused") or "")
        if refused:
            return ChangeLine("", after, refused=refused)
        seconds = {str(name): float(took) for name, took in value["seconds"].items()}
        if not all(math.isfinite(took) and took >= 0 for took in seconds.values()):
            return None
        still = seconds.pop("stood_still")
        step = max(0, int(value["step"]))
        return ChangeLine(str(value["from"]), after, step, still, tuple(seconds.items()))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _observed_line(value: dict[str, Any]) -> ObservedLine | None:
    step, row = int(value["observed"]), row_of(value)
    if not 0 <= step <= INTEGER_MAX or not isinstance(row, PlanRow) or unsound_in(row):
        return None
    return ObservedLine(step, row)
