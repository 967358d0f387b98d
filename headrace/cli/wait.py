"""Waiting for jobs, with a progress bar for people and lines for logs."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.api.generated import jobs_pb2
from headrace.cli import views
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import has_colour, is_terminal, note, note_outage
from headrace.client.client import Client

if TYPE_CHECKING:
    from rich.console import Console

FINISHED = frozenset({"Succeeded", "Failed"})


def wait_for(client: Client, uids: list[str], timeout_seconds: float) -> None:
    """Returns when every job has succeeded.

    Raises:
        CommandError: A job failed or was withdrawn, or time is up.
    """
    waiting = set(uids)
    failed: list[str] = []
    with deadline(client, timeout_seconds) as late, _display() as display:
        for message in changes(client, late):
            job = message.job
            if job.uid not in waiting:
                continue
            if message.kind == jobs_pb2.WatchJobsResponse.KIND_GONE or job.status.withdrawn:
                failed.append(f"{job.name} was withdrawn")
                waiting.discard(job.uid)
            else:
                display.show(job)
            if job.status.stage in FINISHED:
                waiting.discard(job.uid)
                if job.status.stage == "Failed":
                    failed.append(f"{job.name} failed: {views.reason(job.status.reason)}")
            if not waiting:
                break
    if waiting:
        raise CommandError(
            ExitCode.TIMED_OUT,
            f"{len(waiting)} of {len(uids)} jobs are not done after {timeout_seconds:g} s; they "
            "go on (`headrace top` shows them)",
        )
    if failed:
        raise CommandError(ExitCode.JOB_FAILED, "; ".join(failed))


def changes(client: Client, late: threading.Event) -> Iterator[jobs_pb2.WatchJobsResponse]:
    """Changes of jobs until time is up; then the connection is closed and the watch breaks off."""
    try:
        yield from client.watch_jobs(on_outage=note_outage)
    except Exception:
        if not late.is_set():
            raise


@contextmanager
def deadline(client: Client, timeout_seconds: float) -> Iterator[threading.Event]:
    """Closes the client when time is up, which is what ends a stream that says nothing.

    Args:
        client: Whose calls shall end.
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
        yield late
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
