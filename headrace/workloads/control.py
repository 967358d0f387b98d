"""The folder through which a unit speaks with the actor that started it. No torch in here.

The actor writes ``launch.json`` before the start, ``plan`` to ask for another plan, on the same
ranks or on others, and ``stop`` to ask for a planned stop. The unit writes ``rendezvous`` (unit 0),
``progress.jsonl`` and ``changes.jsonl`` (rank 0) and, at the end, ``exit.json``.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from headrace.api.profile_rows import PlanRow, flat
from headrace.workloads.refusal import START_REFUSED, WorkloadError

SUCCEEDED = "Succeeded"
STOPPED = "Stopped"
FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Launch:
    """What one unit is told.

    Attributes:
        uid: The job's.
        attempt: Number of this start of the job.
        unit: Which unit this is; 0 hosts the rendezvous.
        units_total: Units of the attempt.
        job_name: For people.
        manifest: The job's manifest, in canonical form.
        plan: Execution plan in short form; empty for a program of the user's own.
        first_rank: Global rank of this unit's first process.
        ranks_total: Ranks of the attempt.
        accelerators: Accelerators that this unit may touch.
        accelerator_type: ``cpu``, or a GPU model.
        cpu_cores: Cores that it may use; empty for no say.
        rendezvous: Where unit 0 listens, as host:port; empty for unit 0 itself.
        bind_address: Host that unit 0 binds and advertises.
        node: Name of this node, for people; empty where unknown.
        joins: Whether the attempt trains already, and this unit joins it.
    """

    uid: str
    attempt: int
    unit: int
    units_total: int
    job_name: str
    manifest: Mapping[str, Any]
    plan: str
    first_rank: int
    ranks_total: int
    accelerators: tuple[str, ...]
    accelerator_type: str
    cpu_cores: tuple[int, ...]
    rendezvous: str
    bind_address: str
    node: str = ""
    joins: bool = False

    @classmethod
    def from_json(cls, text: str) -> "Launch":
        """Read what an actor wrote; keys that this release does not know are passed over.

        Raises:
            WorkloadError: A key is missing or has the wrong type.
        """
        try:
            found = json.loads(text)
            return cls(
                uid=str(found["uid"]),
                attempt=int(found["attempt"]),
                unit=int(found["unit"]),
                units_total=int(found["units_total"]),
                job_name=str(found.get("job_name", "")),
                manifest=dict(found["manifest"]),
                plan=str(found.get("plan", "")),
                first_rank=int(found["first_rank"]),
                ranks_total=int(found["ranks_total"]),
                accelerators=tuple(str(item) for item in found.get("accelerators", ())),
                accelerator_type=str(found.get("accelerator_type", "") or "cpu"),
                cpu_cores=tuple(int(core) for core in found.get("cpu_cores", ())),
                rendezvous=str(found.get("rendezvous", "")),
                bind_address=str(found.get("bind_address", "") or "127.0.0.1"),
                node=str(found.get("node", "")),
                joins=bool(found.get("joins", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WorkloadError(
                START_REFUSED, f"launch.json is not a launch: {type(error).__name__}: {error}"
            ) from error


class StopSignal:
    """Whether a planned stop was asked for, by the ``stop`` file or by a signal."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / "stop" if folder is not None else None
        self._signalled = threading.Event()

    def listen(self) -> None:
        """Take SIGTERM as a request to stop."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def listen_to_keyboard(self) -> None:
        """Take Ctrl-C as one too; pressed again, it interrupts as ever."""
        signal.signal(signal.SIGINT, self._on_keyboard)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled.set()

    def _on_keyboard(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled.set()
        # torchrun hears the keyboard as well, and then sends the same signal once more.
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.stderr.write("stopping after this step, with a checkpoint; Ctrl-C again: at once\n")

    def asked(self) -> bool:
        """Whether it was asked for; one look at the file system."""
        if not self._signalled.is_set() and self._file is not None and self._file.exists():
            self._signalled.set()
        return self._signalled.is_set()

    def wait_seconds(self, seconds: float) -> bool:
        """Pause, but not beyond a SIGTERM; returns whether a stop was asked for."""
        self._signalled.wait(seconds)
        return self.asked()


class ControlFolder:
    """The files themselves. Without a folder (under plain torchrun) nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.step_begun = 0
        """The step on which this rank works, or worked last; 0 before the first."""
        self._progress: int | None = None

    def launch(self) -> Launch:
        """What to run."""
        assert self.path is not None
        try:
            text = (self.path / "launch.json").read_text()
        except FileNotFoundError as error:
            raise WorkloadError(
                START_REFUSED, f"there is no launch.json in {self.path}; the actor writes it"
            ) from error
        return Launch.from_json(text)

    def wanted_plan(self) -> tuple[str, int]:
        """The plan under which the actor wants the attempt to go on, empty for no wish; and a
        number that is another one each time it is asked.
        """
        if self.path is None:
            return "", 0
        try:
            with (self.path / "plan").open(encoding="utf-8") as file:
                return file.read().strip(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return "", 0

    def publish_rendezvous(self, address: str) -> None:
        """Say where unit 0 listens."""
        self._write("rendezvous", address)

    def progress(
        self, *, step: int, loss: float | None, step_seconds: float, checkpoint_step: int
    ) -> None:
        """Append one line."""
        if self.path is None:
            return
        if self._progress is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._progress = os.open(self.path / "progress.jsonl", flags, 0o644)
        line = {
            "step": step,
            "loss": loss,
            "step_seconds": round(step_seconds, 6),
            "checkpoint_step": checkpoint_step,
        }
        try:
            os.write(self._progress, json.dumps(line).encode() + b"\n")
        except OSError as error:
            # A full disk of the node loses a line for people, which is no reason to lose work.
            sys.stderr.write(f"progress of step {step} could not be told: {error}\n")

    def observed(self, step: int, row: PlanRow) -> None:
        """Append one line about what steps under the present plan took."""
        self._append("changes.jsonl", {"observed": step, **flat(row)}, "an observation")

    def changed(self, change: Mapping[str, Any]) -> None:
        """Append one line about a plan that was asked for: what it cost, or why it cannot be."""
        # If that fails, whoever asked hears nothing and restarts the ranks.
        self._append("changes.jsonl", change, "a change of plan")

    def missed(self, *, step: int, reason: str, message: str) -> None:
        """Append one line about a checkpoint that could not be made, while training goes on."""
        line = {"missed": step, "reason": reason, "message": message}
        self._append("changes.jsonl", line, "a missed checkpoint")

    def _append(self, name: str, line: Mapping[str, Any], what: str) -> None:
        if self.path is None:
            return
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            # A full disk of the node is no reason to lose work.
            sys.stderr.write(f"{what} could not be told: {error}\n")

    def exit(self, outcome: str, *, step: int = 0, reason: str = "", message: str = "") -> int:
        """Say how it ended; returns the exit status."""
        document = {"outcome": outcome, "step": step, "reason": reason, "message": message}
        self._write("exit.json", json.dumps(document))
        return 1 if outcome == FAILED else 0

    def _write(self, name: str, content: str) -> None:
        if self.path is None:
            return
        draft = self.path / f".{name}.{os.getpid()}"
        draft.write_text(content, encoding="utf-8")
        draft.replace(self.path / name)


class Chronicle:
    """Lines on stdout that tell how a unit came to where it is, with seconds since its start."""

    def __init__(self, who: str) -> None:
        self._who = who

    def say(self, text: str) -> None:
        """One line; an output that nobody reads any more is no reason to stop training."""
        try:
            sys.stdout.write(f"[{self._who} {seconds_since_start():7.2f}s] {text}\n")
            sys.stdout.flush()
        except OSError:
            pass


def seconds_since_start(process: int | str = "self") -> float:
    """Seconds since a process was started, the interpreter's own start included.

    Args:
        process: Its pid; this one if left out.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, IndexError, ValueError):
        return time.process_time()
