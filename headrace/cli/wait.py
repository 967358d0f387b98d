"""Waiting for jobs, with a progress bar for people and lines for logs."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.api.generated import common_pb2, jobs_pb2
from headrace.cli import views
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import has_colour, is_terminal, note, note_outage
from headrace.client.client import Client
from headrace.client.trouble import CallError, Kind

if TYPE_CHECKING:
    from rich.console import Console

FINISHED = frozenset({"Succeeded", "Failed"})


def wait_for(client: Client, names: Mapping[str, str], timeout_seconds: float) -> None:
    """Returns when every job has succeeded, also those that are forgotten by then.

    Args:
        client: Who is asked.
        names: What to call each job, by uid.
        timeout_seconds: How long at most; 0 for ever.

    Raises:
        CommandError: A job failed or was withdrawn, time is up, or somebody pressed Ctrl-C.
    """
    waiting = set(names)
    try:
        failed = _wait(client, names, waiting, timeout_seconds)
    except KeyboardInterrupt:
        raise CommandError(
            ExitCode.INTERRUPTED,
            f"interrupted; {', '.join(names[uid] for uid in names if uid in waiting)} "
            f"{'goes' if len(waiting) == 1 else 'go'} on (`headrace top` shows jobs, "
            "`headrace delete` ends them)",
        ) from None
    if waiting:
        raise CommandError(
            ExitCode.TIMED_OUT,
            f"{len(waiting)} of {len(names)} jobs are not done after {timeout_seconds:g} s; they "
            "go on (`headrace top` shows them)",
        )
    if failed:
        raise CommandError(ExitCode.JOB_FAILED, "; ".join(failed))


def _wait(
    client: Client, names: Mapping[str, str], waiting: set[str], timeout_seconds: float
) -> list[str]:
    """Takes from ``waiting`` who is over, until nobody is left or time is up; returns failures."""
    present, version = set[str](), 0
    failed: list[str] = []
    with deadline(client, timeout_seconds), _display() as display:
        for message in client.watch_jobs(on_outage=note_outage):
            job = message.job
            ends: dict[str, str | None] = {}
            if message.kind == jobs_pb2.WatchJobsResponse.KIND_SYNCED:
                missing = [uid for uid in waiting - present if _is_forgotten(client, uid)]
                ends = {uid: _end_of_forgotten(client, uid, names[uid], 0) for uid in missing}
            elif job.uid not in waiting:
                pass
            elif message.kind == jobs_pb2.WatchJobsResponse.KIND_GONE:
                ends[job.uid] = _end_of_forgotten(client, job.uid, names[job.uid], version)
            else:
                present.add(job.uid)
                ends[job.uid] = _end_of_present(job)
                display.show(job)
            version = max(version, message.version)
            waiting.difference_update(uid for uid, end in ends.items() if end is not None)
            failed += [end for end in ends.values() if end]
            if not waiting:
                break
    return failed


def _end_of_present(job: jobs_pb2.Job) -> str | None:
    """What went wrong with a job that is over; empty if it succeeded, None if it goes on."""
    if job.status.stage in FINISHED:
        return _told(job.name, job.status.stage == "Succeeded", job.status.reason)
    return f"{job.name} was withdrawn" if job.status.withdrawn else None


def _told(name: str, succeeded: bool, reason: common_pb2.Reason) -> str:
    return "" if succeeded else f"{name} failed: {views.reason(reason)}"


def _is_forgotten(client: Client, uid: str) -> bool:
    """Whether a job that a watch did not tell of has gone, and is not just about to come."""
    try:
        client.get_job_by_uid(uid)
    except CallError as trouble:
        if trouble.kind is not Kind.NOT_FOUND:
            raise
        return True
    return False


def _end_of_forgotten(client: Client, uid: str, name: str, version: int) -> str:
    """The same of a job that was forgotten after ``version``: the log knows how it ended."""
    for event in reversed(client.list_events(uid, version)):
        forgotten = json.loads(event.body_json or "{}").get("kind") == "ForgetJob"
        if not forgotten or not event.reason.code:
            continue
        if event.reason.code == "Withdrawn":
            return f"{name} was withdrawn"
        return _told(name, event.reason.code == "Succeeded", event.reason)
    return f"{name} is gone, and the log does not tell (any more) how it ended"


@contextmanager
def deadline(client: Client, timeout_seconds: float) -> Iterator[None]:
    """Closes the client when time is up, which is what ends a stream that says nothing.

    Args:
        client: Whose calls shall end. What they raise by that ends the block, quietly.
        timeout_seconds: When; 0 for never.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        client.close()

    timer = threading.Timer(timeout_seconds, end)
    timer.daemon = True
    if timeout_seconds:
        timer.start()
    try:
        yield
    except Exception:
        if not late.is_set():
            raise
    finally:
        timer.cancel()
        if timeout_seconds:
            timer.join()


class _Lines:
    """For logs: a line whenever a job's stage or plan changed."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def show(self, job: jobs_pb2.Job) -> None:
        """Tells of a change."""
        plan = f" {job.status.plan}" if job.status.plan else ""
        line = f"job/{job.name} {job.status.stage}{plan}"
        if self._said.get(job.uid) != line:
            self._said[job.uid] = line
            note(f"{line} {views.progress(job)}")


class _Bars:
    """For people: a bar for each job."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def show(self, job: jobs_pb2.Job) -> None:
        """Moves the job's bar."""
        now = job.status.progress
        # A new task is drawn at once, so it must have all that its columns show from the start.
        shown = {
            "total": now.steps_total or None,
            "completed": now.step,
            "steps": views.progress(job),
            "stage": job.status.stage,
            "plan": job.status.plan or "-",
            "loss": views.loss(job),
        }
        if job.uid in self._tasks:
            self._progress.update(self._tasks[job.uid], **shown)
        else:
            self._tasks[job.uid] = self._progress.add_task(job.name, **shown)


@contextmanager
def _display() -> Iterator[_Lines | _Bars]:
    if not is_terminal(sys.stderr):
        yield _Lines()
        return
    from rich.console import Console

    console = Console(stderr=True, no_color=not has_colour(sys.stderr), highlight=False)
    with bars(console) as shown:
        yield shown


@contextmanager
def bars(console: "Console") -> Iterator[_Bars]:
    """A live bar for each job that is shown, on a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[steps]}", markup=False),
        TextColumn(
            "{task.fields[stage]} {task.fields[plan]} loss {task.fields[loss]}", markup=False
        ),
        console=console,
    ) as progress:
        yield _Bars(progress)
